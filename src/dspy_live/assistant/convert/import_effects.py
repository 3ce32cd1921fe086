"""What the import of a user's file does besides defining things, and where it configures its LM."""

from __future__ import annotations

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.awaiting import Plan
from dspy_live.assistant.convert.main_part import running_part
from dspy_live.assistant.convert.names import dotted
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import Source

_ASKING = frozenset({"input", "exit", "quit", "sys.exit"})
_LAST = frozenset({"parse_args", "launch", "serve_forever", "run_until_complete"})
"""Methods that read the command line, or run until they are stopped."""


def note_import_effects(source: Source, notes: Notes, importer: str) -> None:
    """Warn of statements of the top level that an import runs: they call programs, ask a person, start a server."""
    found = _first_effect(source)
    if found is None:
        return
    line = source.line(found)
    notes.add(
        "advice",
        f"{importer} imports the file, and an import runs its top level, from this line on: "
        'put what is not to run then under `if __name__ == "__main__":`.',
        line,
    )


def _first_effect(source: Source) -> cst.CSTNode | None:
    running = running_part(Plan(source))
    called = running.tail[0] if running is not None and running.guard is None else None
    for node in source.module.body:
        if node is called:
            return node
        if isinstance(node, cst.FunctionDef | cst.ClassDef) or node is source.guard():
            continue
        if any(_acts(source, call) for call in m.findall(node, m.Call()) if isinstance(call, cst.Call)):
            return node
    return None


def _acts(source: Source, call: cst.Call) -> bool:
    name = source.imports.qualified(call.func) or dotted(call.func) or ""
    return name in _ASKING or name in known.SERVERS or name == "asyncio.run" or name.rpartition(".")[2] in _LAST


def note_notebook(source: Source, notes: Notes) -> None:
    """Warn of what an exported notebook calls and only a notebook has."""
    calls = m.findall(source.module, m.Call(func=m.Name("get_ipython") | m.Name("display")))
    for call in calls:
        name = dotted(cst.ensure_type(call, cst.Call).func) or ""
        if name not in source.functions and name not in source.imports.table:
            said = f"{name}() is there in a notebook only: take it out to run the file by itself."
            notes.add("advice", said, source.line(call))
            return


def lifespan_of(source: Source) -> str:
    """Return the lifespan function of the file's own app that configures DSPy; empty where there is none."""
    for name, function in source.functions.items():
        decorators = {(dotted(each.decorator) or "").rpartition(".")[2] for each in function.decorators}
        if "asynccontextmanager" in decorators and _configures(source, function):
            return name
    return ""


def note_inner_lm(source: Source, notes: Notes) -> None:
    """Warn of an LM that a function configures: whoever imports the file does not call it."""
    if any(_configures(source, node) for node in source.module.body if not isinstance(node, cst.FunctionDef)):
        return
    for name, function in source.functions.items():
        if _configures(source, function):
            notes.add(
                "advice",
                f"The LM is configured in {name}(), which an import does not call: configure it at the top level, or "
                "name one with --lm or DSPY_LIVE_LM.",
                source.line(function),
            )
            return


def _configures(source: Source, node: cst.CSTNode) -> bool:
    names = {source.imports.qualified(call.func) for call in m.findall(node, m.Call()) if isinstance(call, cst.Call)}
    return bool(names & {"dspy.configure", "dspy.settings.configure"})
