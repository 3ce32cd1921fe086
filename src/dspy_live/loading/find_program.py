"""Find the program that a name stands for in a module, or say what the module holds instead."""

from __future__ import annotations

import difflib
import inspect
from types import ModuleType
from typing import Any

import dspy

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.user_frame import user_line


def find_program(module: ModuleType, name: str) -> tuple[str, Any]:
    """Return a program of the module and its name; without ``name`` the module's only program.

    Raises :class:`ConfigurationError` when there is none, or several to choose from.
    """
    if not name:
        return _only(module)
    path, call = (name[:-2], True) if name.endswith("()") else (name, False)
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"{_label(module)} has no {path!r}{_hint(module, path)}") from None
    if call:
        found = _called(found, name)
    return path.rpartition(".")[2], _program(found, name, module)


def programs_in(module: ModuleType) -> dict[str, Any]:
    """The programs of a module by name: instances first, else its own classes that need no arguments."""
    public = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    instances = {k: v for k, v in public.items() if isinstance(v, dspy.Module)}
    return instances or {
        k: v
        for k, v in public.items()
        if inspect.isclass(v)
        and issubclass(v, dspy.Module)
        and v.__module__ == module.__name__
        and not _needed_arguments(v)
    }


def _only(module: ModuleType) -> tuple[str, Any]:
    found = programs_in(module)
    if len(found) == 1:
        name = next(iter(found))
        return name, _program(found[name], name, module)
    if not found:
        raise ConfigurationError(f"{_label(module)} holds no program: no dspy.Module at its top level")
    raise ConfigurationError(f"{_label(module)} holds {len(found)} programs; name one: {_listed(found)}")


def _program(found: Any, name: str, module: ModuleType) -> Any:
    if isinstance(found, dspy.Module):
        return found
    if inspect.isclass(found):
        if issubclass(found, dspy.Module):
            return _instance(found, name)
        if issubclass(found, dspy.Signature):
            return dspy.Predict(found)
    raise ConfigurationError(
        f"{name!r} in {_label(module)} is {_description(found)}, not a program{_hint(module, name)}"
    )


def _instance(cls: type[Any], name: str) -> Any:
    needed = _needed_arguments(cls)
    if needed:
        raise ConfigurationError(
            f"{name!r} is a class that needs arguments ({', '.join(needed)}): "
            f"make an instance of it in the file and name that"
        )
    return _called(cls, name)


def _called(make: Any, name: str) -> Any:
    try:
        return make()
    except Exception as exc:
        line = user_line(exc)
        at = f"\n  at {line}" if line else ""
        raise ConfigurationError(f"{name!r} can't be made: {type(exc).__name__}: {exc}{at}") from exc


def _needed_arguments(cls: type[Any]) -> list[str]:
    try:
        # Not the class's own signature: dspy's metaclass takes anything.
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _description(found: Any) -> str:
    if inspect.ismodule(found):
        return "a module"
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    if inspect.iscoroutinefunction(found) or inspect.isfunction(found):
        return "a function (write name() if it makes the program)"
    if isinstance(found, dspy.BaseLM):
        return "an LM"
    kind = type(found).__name__
    return f"{'an' if kind[0].lower() in 'aeio' else 'a'} {kind}"


def _hint(module: ModuleType, name: str) -> str:
    found = programs_in(module)
    if not found:
        return "; there is no program in it"
    close = difflib.get_close_matches(name, found, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; programs there: {_listed(found)}"


def _listed(found: dict[str, Any]) -> str:
    return ", ".join(f"{k} ({v.__name__ if inspect.isclass(v) else type(v).__name__})" for k, v in found.items())


def _label(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return file.rpartition("/")[2] if file else module.__name__
