"""Asynchronous twins: ``aforward`` beside ``forward``, ``ask_async`` beside ``ask``."""

from __future__ import annotations

from dataclasses import dataclass, field

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.awaiting import Awaiter, Plan
from dspy_live.assistant.convert.calls import twin_name
from dspy_live.assistant.convert.obstacles import explain
from dspy_live.assistant.convert.source import ClassFacts


@dataclass(slots=True)
class Edits:
    """Changes to whole definitions: by original node, what takes its place and what follows it."""

    instead: dict[cst.CSTNode, cst.BaseStatement] = field(default_factory=dict)
    after: dict[cst.CSTNode, list[cst.BaseStatement]] = field(default_factory=dict)

    def apply(self, module: cst.Module) -> cst.Module:
        """Return the module with the edits made."""
        changed = module.visit(_Apply(self))
        assert isinstance(changed, cst.Module)
        return changed


class _Apply(cst.CSTTransformer):
    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self.edits = edits

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        first = self.edits.instead.get(original_node, updated_node)
        rest = self.edits.after.get(original_node)
        return cst.FlattenSentinel([first, *rest]) if rest else first


def awaited_body(plan: Plan, function: cst.FunctionDef, facts: ClassFacts | None) -> tuple[cst.BaseSuite, Awaiter]:
    """Return a function's body with its waiting calls awaited."""
    awaiter = Awaiter(plan, plan.source.env_of(function, facts), function.body, in_function=True)
    body = function.body.visit(awaiter)
    assert isinstance(body, cst.BaseSuite)
    return body, awaiter


def make_twin(plan: Plan, function: cst.FunctionDef, facts: ClassFacts | None) -> cst.FunctionDef:
    """Return the asynchronous twin of a function or method."""
    body, _ = awaited_body(plan, function, facts)
    name = function.name.value
    blank = [cst.EmptyLine(indent=False)] * (1 if facts is not None else 2)
    return function.with_changes(
        name=cst.Name(twin_name(name)),
        asynchronous=cst.Asynchronous(),
        body=_with_docstring(body, f"Like :meth:`{name}`, without blocking." if facts else f"Like {name}(), to await."),
        leading_lines=blank,
        lines_after_decorators=[],
    )


def make_in_place(plan: Plan, function: cst.FunctionDef, facts: ClassFacts | None) -> cst.FunctionDef:
    """Return the function itself, asynchronous, with its calls awaited."""
    body, _ = awaited_body(plan, function, facts)
    return function.with_changes(body=body, asynchronous=function.asynchronous or cst.Asynchronous())


def make_requested(plan: Plan, edits: Edits) -> None:
    """Make every twin that was asked for, and those that they ask for in turn."""
    done: set[tuple[str, str]] = set()
    while waiting := sorted(plan.twins - done):
        for cls, name in waiting:
            done.add((cls, name))
            function = plan.definition(cls, name)
            owner = next((c for c in plan.source.classes.values() if c.methods.get(name) is function), None)
            if function is None or has_twin(plan, owner, name):
                continue
            edits.after.setdefault(function, []).append(make_twin(plan, function, owner if cls else None))
            label = f"{owner.name}.{name}" if cls and owner else name
            plan.notes.add(
                "changed", f"{label}() has an asynchronous twin, {twin_name(name)}().", plan.source.line(function)
            )


def has_twin(plan: Plan, facts: ClassFacts | None, name: str) -> bool:
    """Tell whether the file already has the twin of a function."""
    twin = twin_name(name)
    return twin in (facts.methods if facts is not None else plan.source.functions)


def in_existing_async(plan: Plan, edits: Edits) -> None:
    """Await the waiting calls inside functions that are asynchronous already."""
    methods: list[tuple[ClassFacts | None, cst.FunctionDef]] = [
        (facts, method) for facts in plan.source.classes.values() for method in facts.methods.values()
    ]
    functions: list[tuple[ClassFacts | None, cst.FunctionDef]] = [(None, f) for f in plan.source.functions.values()]
    for facts, function in [*functions, *methods]:
        if function.asynchronous is None or function in edits.instead:
            continue
        if plan.special is not None and is_route(function):
            text = (
                f"The handler {function.name.value}() answers over HTTP: `convert fastapi` writes routes that stream."
            )
            plan.notes.add("advice", text, plan.source.line(function))
            continue
        body, awaiter = awaited_body(plan, function, facts)
        if not body.deep_equals(function.body):
            edits.instead[function] = function.with_changes(body=body)
            name, line = function.name.value, plan.source.line(function)
            how = "streams" if plan.special is not None else "no longer blocks the loop: it awaits its modules"
            plan.notes.add("changed", f"{name}() was asynchronous already; it now {how}.", line)
        if awaiter.obstacles:
            plan.notes.add(
                "left", f"In {function.name.value}(): {explain(awaiter.obstacles)}.", plan.source.line(function)
            )


def is_route(function: cst.FunctionDef) -> bool:
    """Tell whether a function is a handler of a FastAPI app or router."""
    pattern = m.Decorator(m.Call(func=m.Attribute(attr=m.Name(value=m.MatchIfTrue(known.ROUTES.__contains__)))))
    return bool(function.decorators) and all(m.matches(each, pattern) for each in function.decorators)


def _with_docstring(body: cst.BaseSuite, text: str) -> cst.BaseSuite:
    """Replace a docstring, where there is one."""
    pattern = m.SimpleStatementLine(body=[m.Expr(value=m.SimpleString() | m.ConcatenatedString())])
    if isinstance(body, cst.IndentedBlock) and len(body.body) > 1 and m.matches(body.body[0], pattern):
        new = cst.SimpleStatementLine([cst.Expr(cst.SimpleString(f'"""{text}"""'))])
        return body.with_changes(body=[new, *body.body[1:]])
    return body
