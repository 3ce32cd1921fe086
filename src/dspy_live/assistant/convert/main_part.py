"""The part of a file that runs: the ``if __name__`` block, or a script's own statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert.awaiting import Awaiter, Plan
from dspy_live.assistant.convert.calls import twin_name
from dspy_live.assistant.convert.names import binds, free, reads
from dspy_live.assistant.convert.obstacles import explain
from dspy_live.assistant.convert.values import Env, Kind

DEFINITIONS = (cst.FunctionDef, cst.ClassDef)


@dataclass(slots=True)
class Running:
    """The statements of a file that call programs, and where they stand.

    Args:
        guard: the ``if __name__ == "__main__"`` statement, or ``None`` for a plain script.
        before: the statements of the part up to the first call.
        tail: the statements from the first call on.
    """

    guard: cst.If | None
    before: list[cst.BaseStatement]
    tail: list[cst.BaseStatement]


def waits(plan: Plan, statement: cst.CSTNode) -> bool:
    """Tell whether a statement of the file's top level runs a module.

    One that only waits for a library, ``data = requests.get(…)``, makes what others import: it is no run.
    """
    if isinstance(statement, DEFINITIONS):
        return False
    trial = Plan(plan.source, special=plan.special)
    awaiter = Awaiter(trial, Env(plan.source))
    statement.visit(awaiter)
    return awaiter.awaited > awaiter.library or any("calls a module" in o.text for o in awaiter.obstacles)


def running_part(plan: Plan) -> Running | None:
    """Find the statements that run programs, or ``None`` when the file only defines things.

    A script may have a guard as well; what it calls then follows what the script itself calls.
    """
    guard = plan.source.guard()
    inner = guard_body(guard)
    inside = _first_waiting(plan, inner)
    body: list[cst.BaseStatement] = [node for node in plan.source.module.body if node is not guard]
    first = _first_waiting(plan, body)
    if first is not None:
        return Running(None, body[:first], [*body[first:], *(inner if inside is not None else ())])
    return None if inside is None else Running(guard, inner[:inside], inner[inside:])


def guard_body(guard: cst.If | None) -> list[cst.BaseStatement]:
    """Return the statements of an ``if __name__`` block; none where there is none."""
    return list(guard.body.body) if guard is not None and isinstance(guard.body, cst.IndentedBlock) else []


def indented(statements: Sequence[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """Return statements of a file's top level as they must be inside a block: one empty line at most."""
    return [node.with_changes(leading_lines=_inside(getattr(node, "leading_lines", ()))) for node in statements]


def _inside(leading: Sequence[cst.EmptyLine]) -> list[cst.EmptyLine]:
    found: list[cst.EmptyLine] = []
    for line in leading:
        if line.comment is not None:
            found.append(line)
        elif not found or found[-1].comment is not None:
            found.append(line.with_changes(indent=False))
    return found


def _first_waiting(plan: Plan, body: Sequence[cst.BaseStatement]) -> int | None:
    return next((index for index, statement in enumerate(body) if waits(plan, statement)), None)


def run_in_main(plan: Plan, running: Running, module: cst.Module) -> cst.Module:
    """Return the module with its running part in ``async def main()``, or unchanged with a note that says why."""
    single = _single_call(plan, running)
    if single is not None:
        name = cst.ensure_type(single.func, cst.Name).value
        if not plan.waits("", name)[1]:
            plan.note_sync("", name)
            return module
        return _replace_tail(module, running, _started(plan, running, single), [], (), plan.source.guard())
    moved, kept = split_script(plan, running)
    reason = _early_use(running, moved, kept)
    if reason:
        plan.notes.add("left", f"The statements that run the program were left as they are: {reason}.")
        return module
    awaiter = Awaiter(plan, Env(plan.source), cst.IndentedBlock(moved))
    body = cst.ensure_type(cst.IndentedBlock(moved).visit(awaiter), cst.IndentedBlock).body
    if awaiter.obstacles:
        plan.notes.add(
            "left", f"Where the program is run: {explain(awaiter.obstacles)}; that call blocks while it runs."
        )
    if not awaiter.awaited:
        return module
    name = _free_name(plan)
    main = _main_function(name, [*_globals(plan, moved), *indented(list(body))])
    call = _run(plan, cst.Call(cst.Name(name)))
    plan.notes.add("changed", f"What ran the program is now `async def {name}()`, started with asyncio.run().")
    return _replace_tail(module, running, [call], [main], kept, plan.source.guard())


def _single_call(plan: Plan, running: Running) -> cst.Call | None:
    """Return the call of a function of the file that is all that waits in the running part, outside of loops."""
    part = cst.IndentedBlock(running.tail)
    awaiter = Awaiter(Plan(plan.source, special=plan.special), Env(plan.source))
    part.visit(awaiter)
    if awaiter.awaited != 1 or awaiter.obstacles or (running.guard is None and len(running.tail) > 1):
        return None
    finder = _Once()
    part.visit(finder)
    return next((call for call in finder.calls if _waits_itself(plan, call)), None)


def _waits_itself(plan: Plan, call: cst.Call) -> bool:
    value = Env(plan.source).of(call.func)
    return isinstance(call.func, cst.Name) and value.kind is Kind.FUNCTION and plan.waits("", call.func.value)[0]


class _Once(cst.CSTVisitor):
    """Collects the calls that run at most once."""

    def __init__(self) -> None:
        self.calls: list[cst.Call] = []

    def visit_Call(self, node: cst.Call) -> None:
        self.calls.append(node)

    def on_visit(self, node: cst.CSTNode) -> bool:
        repeated = (cst.For, cst.While, cst.BaseComp, cst.Lambda, *DEFINITIONS)
        return not isinstance(node, repeated) and super().on_visit(node)


def _started(plan: Plan, running: Running, call: cst.Call) -> list[cst.BaseStatement]:
    """``main()`` becomes ``asyncio.run(main())`` where it stands: no wrapper needed."""
    name = cst.ensure_type(call.func, cst.Name).value
    if len(m.findall(plan.source.module, m.Name(name))) == 2 and name not in _exported(plan):
        plan.in_place.add(name)
        plan.notes.add("changed", f"{name}() is asynchronous now and is started with asyncio.run().")
        started = _run_expression(plan, call)
    else:
        plan.twins.add(("", name))
        started = _run_expression(plan, call.with_changes(func=cst.Name(twin_name(name))))
    part = cst.IndentedBlock(running.tail).deep_replace(call, started)
    return list(cst.ensure_type(part, cst.IndentedBlock).body)


def _exported(plan: Plan) -> set[str]:
    names: set[str] = set()
    for node in m.findall(plan.source.module, m.Assign(targets=[m.AssignTarget(target=m.Name("__all__"))])):
        names |= {str(s.evaluated_value) for s in m.findall(node, m.SimpleString()) if isinstance(s, cst.SimpleString)}
    return names


def split_script(plan: Plan, running: Running) -> tuple[list[cst.BaseStatement], list[cst.BaseStatement]]:
    """Split a script's tail into what moves into main() and what may stay where it is.

    Definitions, imports and the making of programs stay: other files may import them.
    """
    if running.guard is not None:
        return running.tail, []
    moved: list[cst.BaseStatement] = []
    kept: list[cst.BaseStatement] = []
    names: set[str] = set()
    counts: dict[str, int] = {}
    for statement in plan.source.module.body:
        for name in binds(statement):
            counts[name] = counts.get(name, 0) + 1
    inner = guard_body(plan.source.guard())
    for piece in running.tail:
        once = piece not in inner and all(counts[name] == 1 for name in binds(piece))
        stays = isinstance(piece, DEFINITIONS) or (_makes_program(plan, piece) and not reads(piece) & names)
        if _is_import(piece) or (once and stays):
            kept.append(piece)
        else:
            moved.append(piece)
            names |= binds(piece)
    return moved, kept


def _is_import(statement: cst.BaseStatement) -> bool:
    return m.matches(statement, m.SimpleStatementLine(body=[m.Import() | m.ImportFrom()]))


def _makes_program(plan: Plan, statement: cst.BaseStatement) -> bool:
    """Tell whether a statement only makes a program: moving it before what runs changes nothing."""
    pattern = m.SimpleStatementLine(body=[m.Assign(targets=[m.AssignTarget(target=m.Name())])])
    if not m.matches(statement, pattern) or waits(plan, statement):
        return False
    value = plan.source.variables.get(next(iter(binds(statement))))
    if value is None or value.kind in (Kind.OPAQUE, Kind.OBJECT, Kind.FOREIGN):
        return False
    init = plan.definition(value.cls, "__init__") if value.cls else None
    return init is None or not m.findall(init, m.Call(func=m.Attribute(attr=m.Name("configure"))))


def _early_use(running: Running, moved: Sequence[cst.BaseStatement], kept: Sequence[cst.BaseStatement]) -> str:
    """Say which definition needs, while it is being defined, something that main() would only make later."""
    if running.guard is not None:
        return ""
    names = set().union(*(binds(statement) for statement in moved)) if moved else set()
    for statement in kept:
        if isinstance(statement, DEFINITIONS):
            early = _definition_time(statement) & names
            if early:
                return f"{statement.name.value} needs {', '.join(sorted(early))} while it is being defined"
    return ""


def _definition_time(node: cst.CSTNode) -> set[str]:
    if isinstance(node, cst.FunctionDef):
        found = set().union(*(reads(d) for d in node.decorators)) if node.decorators else set()
        return found | reads(node.params)
    if isinstance(node, cst.ClassDef):
        found = set().union(*(reads(part) for part in [*node.decorators, *node.bases])) if node.bases else set()
        for statement in node.body.body:
            found |= _definition_time(statement) if isinstance(statement, DEFINITIONS) else reads(statement)
        return found
    return set()


def _globals(plan: Plan, moved: Sequence[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """``global`` for the names that main() sets and other code of the file uses."""
    names = set().union(*(binds(statement) for statement in moved)) if moved else set()
    elsewhere: set[str] = set()
    guard = plan.source.guard()
    for statement in _all_statements(plan, guard):
        if statement in moved:
            continue
        elsewhere |= free(statement) if isinstance(statement, DEFINITIONS) else binds(statement)
    shared = sorted(names & elsewhere)
    if not shared:
        return []
    items = [cst.NameItem(cst.Name(name)) for name in shared]
    return [cst.SimpleStatementLine([cst.Global(items)])]


def _all_statements(plan: Plan, guard: cst.If | None) -> list[cst.BaseStatement]:
    inner = guard_body(guard)
    return [*(node for node in plan.source.module.body if node is not guard), *inner]


def _free_name(plan: Plan) -> str:
    taken = reads(plan.source.module) | set(plan.source.functions) | set(plan.source.classes)
    return next(name for name in ("main", "run", "run_program", "main_async", "_main") if name not in taken)


def _main_function(name: str, body: Sequence[cst.BaseStatement]) -> cst.FunctionDef:
    first, *rest = body
    leading = [line for line in getattr(first, "leading_lines", ()) if line.comment is not None]
    return cst.FunctionDef(
        name=cst.Name(name),
        params=cst.Parameters(),
        body=cst.IndentedBlock([first.with_changes(leading_lines=leading), *rest]),
        returns=cst.Annotation(cst.Name("None")),
        asynchronous=cst.Asynchronous(),
        leading_lines=[cst.EmptyLine(indent=False)] * 2,
    )


def _run_expression(plan: Plan, call: cst.Call) -> cst.Call:
    plan.imports.add("asyncio")
    return cst.Call(cst.Attribute(cst.Name("asyncio"), cst.Name("run")), [cst.Arg(call)])


def _run(plan: Plan, call: cst.Call) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([cst.Expr(_run_expression(plan, call))])


def new_guard(body: Sequence[cst.BaseStatement], old: cst.If | None = None) -> cst.If:
    """Return an ``if __name__ == "__main__":`` statement; the comments above the old one stay."""
    test = cst.parse_expression('__name__ == "__main__"')
    first, *rest = indented(body)
    first = first.with_changes(leading_lines=_comments(getattr(first, "leading_lines", ())))
    return cst.If(
        test=test,
        body=cst.IndentedBlock([first, *rest]),
        leading_lines=_two_blank_lines(old.leading_lines if old is not None else ()),
    )


def _two_blank_lines(leading: Sequence[cst.EmptyLine]) -> list[cst.EmptyLine]:
    """Return two blank lines and the comments of ``leading``: what stands above a statement after a function."""
    return [*[cst.EmptyLine(indent=False)] * 2, *_comments(leading)]


def _comments(leading: Sequence[cst.EmptyLine]) -> list[cst.EmptyLine]:
    return [line for line in leading if line.comment is not None]


def _replace_tail(
    module: cst.Module,
    running: Running,
    calls: list[cst.BaseStatement],
    functions: list[cst.BaseStatement],
    kept: Sequence[cst.BaseStatement] = (),
    guard: cst.If | None = None,
) -> cst.Module:
    """Put ``calls`` where the tail was, and ``functions`` before it."""
    if running.guard is None:
        gone = [node for node in running.tail if node not in kept]
        body = [node for node in module.body if node not in gone and node is not guard]
        rest = [node for node in guard_body(guard) if node not in gone]
        return module.with_changes(body=[*body, *functions, new_guard([*calls, *rest], guard)])
    assert isinstance(running.guard.body, cst.IndentedBlock)
    block = running.guard.body.with_changes(body=[*running.before, *calls])
    guard = running.guard.with_changes(body=block)
    if functions:
        guard = guard.with_changes(leading_lines=_two_blank_lines(guard.leading_lines))
    at = list(module.body).index(running.guard)
    return module.with_changes(body=[*module.body[:at], *functions, guard, *module.body[at + 1 :]])
