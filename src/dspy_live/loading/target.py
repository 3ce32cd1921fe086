"""Find the program that a command line, a server or another language names.

A target is one of

- ``path/to/file.py:object``;
- ``package.module:object``;
- a folder written by ``program.save(folder, save_program=True)``;
- an inline signature such as ``"question -> answer"``.

``object`` is an instance of a ``dspy.Module``, a class of one that needs no arguments, a
signature class, a dotted path to one of these, or a call without arguments, ``make()``.
It may be left out where the module holds exactly one program.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import dspy

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.find_program import find_program
from dspy_live.loading.user_frame import user_line

_ANONYMOUS = frozenset({"program", "app", "main", "module", "agent", "predictor"})


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A program, ready to run.

    Args:
        program: the user's own object, a ``dspy.Module``.
        name: what clients call it: the object's name, or its file's where the object is called
            ``program`` or the like.
        target: the text that named it.
        path: the file or folder it was read from, ``None`` for an inline signature.
    """

    program: Any
    name: str
    target: str
    path: Path | None = None


def load(target: str, *, state: str | Path | None = None, allow_pickle: bool = False) -> LoadedProgram:
    """Load the program that ``target`` names.

    Args:
        target: see the module's own text.
        state: a ``.json`` file written by ``program.save(file)``, loaded into the program
            (``.pkl`` with ``allow_pickle``).
        allow_pickle: read a saved program, which is a pickle, and so runs the code in it: only for a folder of
            your own.

    Raises:
        ConfigurationError: with one line that says what is wrong, and the file's own line where its code raised.
    """
    text = target.strip()
    if not text:
        raise ConfigurationError("no target: give file.py:object, package.module:object or 'question -> answer'")
    loaded = _load(text, allow_pickle)
    if state is not None:
        _load_state(loaded.program, Path(state), allow_pickle)
    return loaded


def _load(target: str, allow_pickle: bool) -> LoadedProgram:
    if "->" in target:
        return LoadedProgram(_inline(target), "predict", target)
    where, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    path = Path(where).expanduser()
    if path.suffix == ".py":
        return _named(_import_file(path), name, target, path.resolve())
    if path.is_dir() and not name and not _is_package(path):
        return LoadedProgram(_saved(path, allow_pickle), path.resolve().name, target, path.resolve())
    if path.suffix in (".json", ".pkl"):
        raise ConfigurationError(
            f"{where} holds the state of a program, not the program: name the program and add --state {where}"
        )
    if path.is_file():
        raise ConfigurationError(f"{where} is not a Python file")
    module = _import_module(where)
    file = getattr(module, "__file__", None)
    return _named(module, name, target, Path(file) if file else None)


def _named(module: ModuleType, name: str, target: str, path: Path | None) -> LoadedProgram:
    found, program = find_program(module, name)
    stem = module.__name__.rpartition(".")[2].removeprefix(_PREFIX)
    return LoadedProgram(program, stem if found.lower() in _ANONYMOUS else found, target, path)


def _inline(signature: str) -> Any:
    try:
        predictor = dspy.Predict(signature)
    except Exception as exc:
        raise ConfigurationError(f"{signature!r} is no signature: {exc}") from exc
    if not predictor.signature.output_fields:
        raise ConfigurationError(
            f"{signature!r} has no output: name one behind the arrow, such as 'question -> answer'"
        )
    return predictor


_PREFIX = "_dspy_live_"


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"no such file: {path}{_similar_file(path)}")
    file = path.resolve()
    # A file in a package is imported as part of it, so that its relative imports work.
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    name = ".".join(parts)
    known = sys.modules.get(name)
    if known is None and (len(parts) > 1 or name not in sys.stdlib_module_names):
        _first_on_path(root)
        return _import(name, str(path))
    if known is not None and getattr(known, "__file__", None) and Path(str(known.__file__)).resolve() == file:
        return known
    # Something else has the name: json.py, or two demo.py. A name of its own keeps both whole.
    _first_on_path(root)
    return _import_spec(_PREFIX + file.stem, file, str(path))


def _import_spec(name: str, file: Path, target: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{target} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise _import_failed(target, exc) from exc
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(
            f"{name!r} is no target: give file.py:object, package.module:object, "
            "a saved program's folder or 'question -> answer'"
        )
    _first_on_path(Path.cwd())
    return _import(name, name)


def _import(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # The module itself is missing, and not one that it imports.
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            hint = f"; did you mean {name}.py?" if Path(f"{name}.py").is_file() else f" (looked in {Path.cwd()} too)"
            raise ConfigurationError(f"no module named {exc.name!r}{hint}") from exc
        raise _import_failed(target, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _import_failed(target, exc) from exc


def _import_failed(target: str, exc: BaseException) -> ConfigurationError:
    error = f"it calls sys.exit({exc.code!r})" if isinstance(exc, SystemExit) else f"{type(exc).__name__}: {exc}"
    line = user_line(exc)
    return ConfigurationError(f"{target} can't be imported: {error}" + (f"\n  at {line}" if line else ""))


def _saved(folder: Path, allow_pickle: bool) -> Any:
    if not (folder / "program.pkl").is_file():
        raise ConfigurationError(
            f"{folder} is no saved program: there is no program.pkl in it "
            "(program.save(folder, save_program=True) writes one)"
        )
    if not allow_pickle:
        raise ConfigurationError(
            f"{folder} is a saved program, a pickle: reading it runs the code in it. "
            "Add --allow-pickle if it is your own"
        )
    _first_on_path(Path.cwd())
    try:
        return dspy.load(str(folder), allow_pickle=True)
    except Exception as exc:
        raise ConfigurationError(f"{folder} can't be loaded: {type(exc).__name__}: {exc}") from exc


def _load_state(program: Any, path: Path, allow_pickle: bool) -> None:
    if not path.is_file():
        raise ConfigurationError(f"no such state file: {path}")
    try:
        program.load(str(path), allow_pickle=allow_pickle)
    except Exception as exc:
        raise ConfigurationError(f"{path} does not fit the program: {type(exc).__name__}: {exc}") from exc


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def _first_on_path(folder: Path) -> None:
    text = str(folder)
    if text not in sys.path:
        sys.path.insert(0, text)


def _similar_file(path: Path) -> str:
    import difflib

    try:
        names = [p.name for p in path.parent.glob("*.py")]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.with_name(close[0])}?" if close else f" (in {path.parent.resolve()})"
