"""``convert serving``, ``fastapi``, ``tests``: a program behind HTTP, and a program under test."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

import libcst as cst

from dspy_live.assistant.convert.candidates import Candidate, candidates, choose, makes_programs
from dspy_live.assistant.convert.import_effects import lifespan_of as _lifespan
from dspy_live.assistant.convert.import_effects import note_import_effects, note_inner_lm
from dspy_live.assistant.convert.importing import add_imports
from dspy_live.assistant.convert.names import binds, reads
from dspy_live.assistant.convert.report import NoProgram, Notes, SeveralPrograms
from dspy_live.assistant.convert.source import Source
from dspy_live.assistant.convert.swap import uses, with_live_lm

_FASTAPI = '''"""A FastAPI app around {name} of {module}.py. Start it with: uvicorn {stem}:app"""

{importlib}from typing import Any

import dspy_live
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
{pydantic}
{importing}
{made}{model}
app = FastAPI(title="{name}"{lifespan})
call = dspy_live.asyncify({program})
tokens = dspy_live.streamify({program})


@app.post("/ask")
async def ask({parameter}) -> dict[str, Any]:
    """Run the program and return its outputs."""
    prediction = await call(**{inputs})
    return prediction.toDict()


@app.post("/ask/stream")
async def ask_stream({parameter}) -> StreamingResponse:
    """Run the program and send its text as server-sent events."""
    events = dspy_live.streaming_response(tokens(**{inputs}))
    return StreamingResponse(events, media_type="text/event-stream")


# The whole of dspy-live's server, with its playground, under /live.
app.mount("/live", dspy_live.create_app({program}))
'''

_TESTS = '''"""Tests of {name} of {module}.py. The simulated LM answers: no key, no network, the same text each time."""

import asyncio
{importlib}from collections.abc import Iterator

import dspy
import dspy_live
import pytest
from dspy_live.simulator import Simulator

{importing}

INPUTS = dict({arguments})


@pytest.fixture
def lm() -> Iterator[dspy.LM]:
    with Simulator().running() as url:
        yield dspy_live.LM("openai/simulated", api_base=url, api_key="simulated", cache=False)


def test_it_answers(lm: dspy.LM) -> None:
    with dspy.context(lm=lm):
        prediction = {expression}(**INPUTS)
    assert prediction.toDict()


def test_many_at_once(lm: dspy.LM) -> None:
    async def three() -> list[dspy.Prediction]:
        call = dspy_live.asyncify({expression})
        return await asyncio.gather(*(call(**INPUTS) for _ in range(3)))

    with dspy.context(lm=lm):
        predictions = asyncio.run(three())
    assert len(predictions) == 3


def test_it_streams(lm: dspy.LM) -> None:
    async def items() -> list[object]:
        return [item async for item in dspy_live.streamify({expression})(**INPUTS)]

    with dspy.context(lm=lm):
        seen = asyncio.run(items())
    assert any(isinstance(item, str) for item in seen)
    assert isinstance(seen[-1], dspy.Prediction)
'''


def to_serving(text: str, notes: Notes, program: str | None = None, stem: str = "program", package: str = "") -> str:
    """Return the source with ``app``, an ASGI application that serves the program."""
    source = Source(text)
    if uses(source, "dspy_live.create_app"):
        notes.add("left", "The file makes an app with dspy_live.create_app already.")
        return text
    candidate = importable(source, program)
    app = next(name for name in ("app", "live_app", "dspy_live_app") if name not in reads(source.module))
    line = cst.parse_statement(f"{app} = dspy_live.create_app({candidate.expression})\n")
    body = list(source.module.body)
    guard = source.guard()
    at = next((i for i, node in enumerate(body) if node is guard), len(body))
    blank = 2 if at and isinstance(body[at - 1], cst.FunctionDef | cst.ClassDef) else 1
    body.insert(at, line.with_changes(leading_lines=[cst.EmptyLine(indent=False)] * blank))
    module = add_imports(source.module.with_changes(body=body), ["dspy_live"])
    notes.add("changed", f"{app} serves {candidate.name} over HTTP, server-sent events and WebSocket.")
    served = ".".join(filter(None, (package, stem)))
    note_import_effects(source, notes, "a server of the app")
    note_inner_lm(source, notes)
    notes.add(
        "advice",
        f"Start it with `uvicorn {served}:{app}`; `dspy-live serve {stem}.py:{candidate.name}` needs no change at all.",
    )
    return with_live_lm(module.code, notes)


def to_fastapi(text: str, notes: Notes, program: str | None = None, stem: str = "program", package: str = "") -> str:
    """Return the source of a new file: a FastAPI app with typed routes for the program."""
    source = Source(text)
    candidate = importable(source, program)
    imported, made, expression = _bound(candidate)
    lifespan = _lifespan(source)
    note_import_effects(source, notes, f"{plain(stem)}_api.py")
    module = ".".join(filter(None, (package, stem)))
    app = ".".join(filter(None, (package, f"{plain(stem)}_api")))
    inputs = candidate.inputs
    builtin = inputs is not None and all(re.fullmatch(r"[a-z\[\], |]*(None)?", kind) for _, kind in inputs)
    fields = "".join(f"    {name}: {kind if builtin else 'Any'}\n" for name, kind in inputs or ())
    model = f"\n\nclass Inputs(BaseModel):\n{fields}\n" if fields else ""
    notes.add("changed", f"A new file, {plain(stem)}_api.py, serves {candidate.name} under /ask and /ask/stream.")
    notes.add("advice", f"Start it with `uvicorn {app}:app`; it needs FastAPI: pip install fastapi uvicorn.")
    if not lifespan:
        note_inner_lm(source, notes)
    return _FASTAPI.format(
        name=candidate.name,
        module=stem,
        stem=app,
        importing=_importing(module, [*([lifespan] if lifespan else []), imported]),
        importlib="" if module_name(module) else "import importlib\n",
        lifespan=f", lifespan={lifespan}" if lifespan else "",
        made=made,
        program=expression,
        model=model,
        pydantic="from pydantic import BaseModel\n" if fields else "",
        parameter="inputs: Inputs" if fields else "inputs: dict[str, Any]",
        inputs="inputs.model_dump()" if fields else "inputs",
    )


def to_tests(text: str, notes: Notes, program: str | None = None, stem: str = "program", package: str = "") -> str:
    """Return the source of a new file: tests of the program against the simulated LM."""
    source = Source(text)
    candidate = importable(source, program)
    imported, _, _ = _bound(candidate)
    note_import_effects(source, notes, f"test_{plain(stem)}.py")
    module = ".".join(filter(None, (package, stem)))
    notes.add("changed", f"A new file, test_{plain(stem)}.py, tests {candidate.name} against the simulated LM.")
    notes.add("advice", "The inputs in INPUTS are examples: put your own there, and assert what matters to you.")
    return _TESTS.format(
        name=candidate.name,
        module=stem,
        importing=_importing(module, [imported]),
        importlib="" if module_name(module) else "import importlib\n",
        expression=candidate.expression,
        arguments=candidate.sample_call(),
    )


def importable(source: Source, program: str | None) -> Candidate:
    """Return the program that is meant, as another file can import it: not from the ``if __name__`` block.

    Raises:
        NoProgram: the file has none, or none of that name.
        SeveralPrograms: there are several and none was named.
    """
    guard = source.guard()
    top = set().union(*(binds(node) for node in source.module.body if node is not guard))
    if program is not None:
        chosen = choose(source, program)
        return chosen if chosen.name in top else choose(source, _class_of(source, chosen.name))
    found = [c for c in candidates(source) if c.name in top]
    if not found:
        facts = {value.cls for value in source.variables.values() if value.cls}
        classes = [f.name for f in source.programs() if f.name in facts]
        if len(classes) > 1:
            raise SeveralPrograms(
                f"The file has several programs: {', '.join(classes)}. Name the one you mean.", classes
            )
        if not classes and makes_programs(source):
            raise NoProgram(
                "No program of the file can be imported: they are made inside functions or classes. Make one at the "
                "file's top level and give it a name."
            )
        return choose(source, classes[0] if classes else None)
    buildable = [c for c in found if c.buildable] or found
    if len(buildable) == 1:
        return buildable[0]
    return choose(source)


def plain(stem: str) -> str:
    """Return a file's name as a part of a new file's name."""
    return re.sub(r"\W", "_", stem) or "program"


def module_name(module: str) -> bool:
    """Tell whether ``import`` can name a module: not one such as ``01_rag``."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in module.split("."))


def _importing(module: str, names: Sequence[str]) -> str:
    """Return the statements that import names from the user's file, whatever the file is called."""
    wanted = sorted(dict.fromkeys(names))
    if module_name(module):
        return f"from {module} import {', '.join(wanted)}"
    return "\n".join(f'{name} = importlib.import_module("{module}").{name}' for name in wanted)


def _class_of(source: Source, variable: str) -> str:
    value = source.variables.get(variable)
    return value.cls if value is not None and value.cls else variable


def _bound(candidate: Candidate) -> tuple[str, str, str]:
    """Return (what to import, a line that makes the program, the name under which it then goes)."""
    if candidate.instance:
        return candidate.name, "", candidate.name
    return candidate.name, f"\nprogram = {candidate.expression}\n", "program"
