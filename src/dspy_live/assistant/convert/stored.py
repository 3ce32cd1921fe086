"""Programs that one function keeps for others: in a global, in a dict of the file, in ``app.state``, in an argument.

A web app makes its programs when it starts and uses them in its routes. Each place is taken for a program only where
all that is kept there behaves alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert.names import dotted
from dspy_live.assistant.convert.values import OPAQUE, PROGRAMS, Env, Kind, Value

if TYPE_CHECKING:
    from dspy_live.assistant.convert.source import Source

ANY_KEY = "*"


@dataclass(slots=True)
class Stored:
    """What functions keep.

    Args:
        globals: values of ``global`` names that a function sets.
        entries: values of ``name["key"]``, by name and key; the key is :data:`ANY_KEY` where it is no literal.
        states: values of ``….state.name``, where FastAPI and Starlette keep what an app shares.
        arguments: values that calls of the file hand to a function, by the function's and the parameter's name.
    """

    globals: dict[str, Value] = field(default_factory=dict)
    entries: dict[tuple[str, str], Value] = field(default_factory=dict)
    states: dict[str, Value] = field(default_factory=dict)
    arguments: dict[tuple[str, str], Value] = field(default_factory=dict)

    def entry(self, node: cst.Subscript) -> Value:
        """Return what ``name[key]`` is; with a key that is no literal, what all entries of the name are."""
        name = dotted(node.value) or ""
        key = _key(node)
        exact = self.entries.get((name, key), OPAQUE)
        if key != ANY_KEY and exact.kind is not Kind.OPAQUE:
            return exact
        return _alike([value for (owner, _), value in self.entries.items() if owner == name])

    def state(self, node: cst.Attribute) -> Value:
        """Return what ``….state.name`` is."""
        return self.states.get(_state_name(node), OPAQUE)


def find_stored(source: Source) -> Stored:
    """Read what the functions and methods of a file keep."""
    stored = Stored()
    found: dict[tuple[str, str, str], list[Value]] = {}
    for function, env in _functions(source):
        names = _global_names(function)
        for target, node in _assigned(function):
            place = _place(target, names, source)
            if place is not None:
                found.setdefault(place, []).append(env.of(node))
    for (kind, name, key), all_values in found.items():
        value = _alike(all_values)
        if value.kind is Kind.OPAQUE:
            continue
        if kind == "global":
            stored.globals[name] = value
        elif kind == "entry":
            stored.entries[name, key] = value
        else:
            stored.states[name] = value
    return stored


def _assigned(function: cst.FunctionDef) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """Yield (target, value) of a function's assignments but those of ``None``, which only empty a place."""
    for node in m.findall(function.body, m.Assign() | m.AnnAssign()):
        value = cst.ensure_type(node, cst.Assign).value if isinstance(node, cst.Assign) else None
        targets = [each.target for each in node.targets] if isinstance(node, cst.Assign) else []
        if isinstance(node, cst.AnnAssign):
            value, targets = node.value, [node.target]
        if value is not None and not m.matches(value, m.Name("None")):
            yield from ((target, value) for target in targets)


def find_arguments(source: Source) -> dict[tuple[str, str], Value]:
    """Return the programs that the file's own calls hand to its functions, where all calls hand over alike ones."""
    found: dict[tuple[str, str], list[Value]] = {}
    places: list[tuple[cst.CSTNode, Env]] = [(function.body, env) for function, env in _functions(source)]
    defined = (cst.FunctionDef, cst.ClassDef)
    places += [(node, Env(source)) for node in source.module.body if not isinstance(node, defined)]
    for body, env in places:
        for call in m.findall(body, m.Call(func=m.Name())):
            for function, parameter, value in _handed(source, cst.ensure_type(call, cst.Call), env):
                found.setdefault((function, parameter), []).append(value)
    known = {name for name in {function for function, _ in found} if _only_called(source, name)}
    alike = {place: _alike(values) for place, values in found.items() if place[0] in known}
    return {place: value for place, value in alike.items() if value.kind in PROGRAMS}


def _only_called(source: Source, name: str) -> bool:
    """Tell whether a function is used in its file by plain calls alone, so that all of its arguments are seen."""
    calls = [cst.ensure_type(call, cst.Call) for call in m.findall(source.module, m.Call(func=m.Name(name)))]
    uses = len(m.findall(source.module, m.Name(name))) - 1
    starred = any(arg.star for call in calls for arg in call.args)
    return uses == len(calls) and not starred and not source.functions[name].decorators


def _handed(source: Source, call: cst.Call, env: Env) -> Iterator[tuple[str, str, Value]]:
    """Yield (function, parameter, value) for the arguments of one call of a function of the file."""
    name = cst.ensure_type(call.func, cst.Name).value
    function = source.functions.get(name)
    if function is None or name in env.names:
        return
    positional = [*function.params.posonly_params, *function.params.params]
    for index, arg in enumerate(call.args):
        if arg.keyword is not None:
            yield name, arg.keyword.value, env.of(arg.value)
        elif index < len(positional):
            yield name, positional[index].name.value, env.of(arg.value)


def _functions(source: Source) -> Iterator[tuple[cst.FunctionDef, Env]]:
    for function in source.functions.values():
        yield function, source.env_of(function)
    for facts in source.classes.values():
        for method in facts.methods.values():
            yield method, source.env_of(method, facts)


def _global_names(function: cst.FunctionDef) -> set[str]:
    found = m.findall(function.body, m.Global())
    return {item.name.value for node in found for item in cst.ensure_type(node, cst.Global).names}


def _place(target: cst.BaseExpression, names: set[str], source: Source) -> tuple[str, str, str] | None:
    if isinstance(target, cst.Name):
        return ("global", target.value, "") if target.value in names else None
    if isinstance(target, cst.Subscript) and isinstance(target.value, cst.Name):
        return ("entry", target.value.value, _key(target)) if target.value.value in source.variables else None
    if isinstance(target, cst.Attribute) and (name := _state_name(target)):
        return "state", name, ""
    return None


def _key(node: cst.Subscript) -> str:
    index = node.slice[0].slice
    if len(node.slice) == 1 and isinstance(index, cst.Index) and isinstance(index.value, cst.SimpleString):
        return str(index.value.evaluated_value)
    return ANY_KEY


def _state_name(node: cst.Attribute) -> str:
    outer = dotted(node.value) or ""
    return node.attr.value if outer == "state" or outer.endswith(".state") else ""


def _alike(values: list[Value]) -> Value:
    """Return the value where all are known and behave the same."""
    behaviours = {(value.kind, value.cls, value.function) for value in values}
    return values[0] if len(behaviours) == 1 else OPAQUE
