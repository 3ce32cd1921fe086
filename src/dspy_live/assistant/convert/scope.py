"""Puts the statements that run a program into a ``with`` block, or something before and after them."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.awaiting import Plan
from dspy_live.assistant.convert.candidates import choose
from dspy_live.assistant.convert.main_part import (
    DEFINITIONS,
    Running,
    guard_body,
    indented,
    new_guard,
    running_part,
    split_script,
)
from dspy_live.assistant.convert.names import dotted
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import Source

_RUNNERS = frozenset({"asyncio.run", "anyio.run", "uvloop.run", "loop.run_until_complete", *known.SERVERS})


def running_or_example(source: Source, notes: Notes, program: str | None) -> tuple[Source, Running]:
    """Return the part of the file that runs; a file that runs nothing gets an example run first.

    Raises:
        NoProgram, SeveralPrograms: nothing is run in the file and it is not clear what to run.
    """
    running = _started(source)
    if running is not None:
        return source, running
    candidate = choose(source, program)
    notes.add(
        "advice", f"The file runs nothing, so an example run of {candidate.name} was added: put your inputs there."
    )
    if not candidate.buildable:
        notes.add("advice", f"{candidate.name} takes arguments when it is made: fill them in where it is made.")
    call = cst.parse_statement(f"print({candidate.expression}({candidate.sample_call()}))\n")
    guard = source.guard()
    if guard is None or not isinstance(guard.body, cst.IndentedBlock):
        module = source.module.with_changes(body=[*source.module.body, new_guard([call])])
    else:
        block = guard.body.with_changes(body=[*guard.body.body, call])
        changed = guard.with_changes(body=block)
        module = source.module.with_changes(body=[changed if n is guard else n for n in source.module.body])
    source = Source(module.code, first_pass=False)
    running = _started(source)
    assert running is not None
    return source, running


def _started(source: Source) -> Running | None:
    """The running part; ``asyncio.run(main())`` of a program that is asynchronous already counts as well."""
    running = running_part(Plan(source))
    guard = source.guard()
    if guard is None or not isinstance(guard.body, cst.IndentedBlock) or (running and running.guard is not None):
        return running or _script(source)
    body = guard_body(guard)
    first = next((i for i, node in enumerate(body) if _starts(source, node)), None)
    return running if first is None else Running(guard, body[:first], body[first:])


def _script(source: Source) -> Running | None:
    body: list[cst.BaseStatement] = list(source.module.body)
    first = next(
        (i for i, node in enumerate(body) if not isinstance(node, DEFINITIONS) and _starts(source, node, bare=True)),
        None,
    )
    return None if first is None else Running(None, body[:first], body[first:])


def _starts(source: Source, node: cst.CSTNode, *, bare: bool = False) -> bool:
    """Tell whether a statement starts a loop, or calls a function of the file.

    With ``bare``, only a call that is a statement by itself counts: ``config = load()`` makes a thing for others.
    """
    called = {dotted(call.func) or "" for call in m.findall(node, m.Call()) if isinstance(call, cst.Call)}
    if any(name in _RUNNERS for name in called):
        return True
    assigns = m.findall(node, m.Assign() | m.AnnAssign())
    return any(name in source.functions for name in called) and not (bare and assigns)


def _may_exit(source: Source) -> bool:
    """Tell whether the file ends its process anywhere: nothing after such a run would be reached."""
    names = ("sys.exit", "SystemExit", "exit", "quit")
    found = m.findall(source.module, m.Call() | m.Raise())
    return any(dotted(node.func) in names for node in found if isinstance(node, cst.Call)) or any(
        node.exc is not None and dotted(node.exc) == "SystemExit" for node in found if isinstance(node, cst.Raise)
    )


def _try_finally(inner: Sequence[cst.BaseStatement], tail: Sequence[cst.BaseStatement]) -> cst.Try:
    lines = list(getattr(inner[0], "leading_lines", ()))
    comments = [line for line in lines if line.comment is not None]
    body = indented([inner[0].with_changes(leading_lines=comments), *inner[1:]])
    return cst.Try(
        body=cst.IndentedBlock(body),
        finalbody=cst.Finally(cst.IndentedBlock(tail)),
        leading_lines=[line for line in lines if line.comment is None][:2],
    )


def around(
    source: Source,
    running: Running,
    *,
    before: Sequence[str] = (),
    within: str = "",
    after: Sequence[str] = (),
) -> cst.Module:
    """Return the module with statements before and after its running part, which stands in ``with within:``.

    Where the file may end its process, what comes after stands in a ``finally``.
    """
    plan = Plan(source)
    moved, _ = split_script(plan, running)
    first, *rest = moved
    lines = list(getattr(first, "leading_lines", ()))
    inner: list[cst.BaseStatement] = list(moved)
    if within:
        block = cst.parse_statement(f"with {within}:\n    pass\n")
        assert isinstance(block, cst.With)
        comments = [line for line in lines if line.comment is not None]
        statements = indented([first.with_changes(leading_lines=comments), *rest])
        blank = [line for line in lines if line.comment is None][:2]
        inner = [block.with_changes(body=cst.IndentedBlock(statements), leading_lines=blank)]
    head = [cst.parse_statement(text + "\n") for text in before]
    tail = [cst.parse_statement(text + "\n") for text in after]
    if tail and _may_exit(source):
        inner, tail = [_try_finally(inner, tail)], []
    if running.guard is None:
        gone = {id(node) for node in moved}
        guard = source.guard()
        body = [node for node in source.module.body if id(node) not in gone and node is not guard]
        if guard is None:
            added = [*head, *inner, *tail]
            if body and isinstance(body[-1], DEFINITIONS) and not getattr(added[0], "leading_lines", ()):
                added[0] = added[0].with_changes(leading_lines=[cst.EmptyLine(indent=False)] * 2)
            return source.module.with_changes(body=[*body, *added])
        rest_of_guard = [node for node in guard_body(guard) if id(node) not in gone]
        return source.module.with_changes(
            body=[*body, new_guard([*head, *indented(inner), *tail, *rest_of_guard], guard)]
        )
    assert isinstance(running.guard.body, cst.IndentedBlock)
    block_body = running.guard.body.with_changes(body=[*running.before, *head, *inner, *tail])
    guard = running.guard.with_changes(body=block_body)
    return source.module.with_changes(body=[guard if n is running.guard else n for n in source.module.body])
