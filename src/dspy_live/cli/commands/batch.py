"""``dspy-live batch``: a program over every row of a file, resumable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError, InputError, LiveError
from dspy_live.core.schema import Schema

if TYPE_CHECKING:
    from dspy_live.programs.api.batch import BatchItem


def batch(
    source: str,
    /,
    *,
    program: str,
    output: Annotated[str, Parameter(alias="-o")],
    concurrency: int = 32,
    checkpoint: str | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
    flags: ProgramFlags | None = None,
) -> int:
    """Run a program over every row of a file.

    The output has one JSON line per row, in the order of the input: its index, the input, and the output or the error.
    With a checkpoint, a rerun after a crash does only what is missing and writes the whole output again.

    Args:
        source: rows to read: JSON Lines, .csv or .tsv; - for JSON Lines on stdin.
        program: file.py:object, package.module:object, a saved program's folder or 'question -> answer'.
        output: file to write, - for stdout.
        concurrency: how many rows run at once.
        checkpoint: a file that remembers finished rows.
        quiet: no progress bar.
    """
    from dspy_live.cli.open_program import open_program, warn_if_simulated

    # A lone dash comes as @-, see app.
    source, output = ("-" if name == "@-" else name for name in (source, output))
    _check_files(source, output, checkpoint)
    flags = flags or ProgramFlags()
    ready = open_program(program, flags)
    warn_if_simulated(ready.lm)
    options = {
        "concurrency": concurrency,
        "checkpoint": checkpoint,
        "progress": False if quiet else None,
        "timeout": flags.timeout,
        "execution": flags.execution,
    }
    return _run(ready.loaded.program, ready.schema, source, output, options)


def _check_files(source: str, output: str, checkpoint: str | None) -> None:
    if source != "-" and Path(source).is_dir():
        raise ConfigurationError(f"can't read {source}: it is a folder")
    if source != "-" and not Path(source).exists():
        raise ConfigurationError(f"can't read {source}: there is no such file")
    if output != "-" and Path(output).is_dir():
        raise ConfigurationError(f"can't write {output}: it is a folder")
    named = {"input": source, "output": output, "checkpoint": checkpoint}
    places: dict[Path, str] = {}
    for what, name in named.items():
        if name in (None, "-"):
            continue
        place = Path(str(name)).resolve()
        if place in places and not place.is_char_device():
            raise ConfigurationError(f"the {what} {name} is the {places[place]}")
        places[place] = what


def _run(program: Any, schema: Schema, source: str, output: str, options: dict[str, Any]) -> int:
    import asyncio

    from dspy_live.cli.run_recording import run_recording
    from dspy_live.programs.api.batch import stream_batch

    done = failed = 0
    began = False

    async def write() -> None:
        nonlocal done, failed, began
        with _writer(output) as file:
            items: Any = stream_batch(program, inputs_of(schema, source), ordered=True, **options)
            try:
                async for item in items:
                    began = True
                    _write(file, _line(item), output)
                    done += 1
                    failed += item.error is not None
            finally:
                await items.aclose()

    try:
        with run_recording():
            asyncio.run(write())
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from exc
    finally:
        if began or sys.exc_info()[0] is None:
            print(f"dspy-live: {done} rows, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def inputs_of(schema: Schema, source: str) -> Iterator[Any]:
    """Yield each row as the program's checked inputs; columns that it does not take stay out."""
    from dspy_live.cli.input.rows import BadRow, read_rows
    from dspy_live.programs.api.batch import Row

    names = {field.name for field in schema.inputs}
    for row in read_rows(source):
        if isinstance(row, BadRow):
            yield Row(row.text, problem=row.message)
            continue
        given = row if schema.open else {name: value for name, value in row.items() if name in names}
        try:
            yield Row(row, schema.check(given))
        except InputError as exc:
            yield Row(row, problem=exc.message)


def _line(item: BatchItem) -> bytes:
    import orjson

    from dspy_live.programs.run.schema import outputs_of

    row: dict[str, Any] = {"index": item.index, "input": item.inputs}
    if item.error is not None:
        row["error"] = {"type": item.error.kind, "message": item.error.message}
    else:
        row["output"] = outputs_of(item.result)
    return orjson.dumps(row, default=str) + b"\n"


def _write(file: Any, line: bytes, output: str) -> None:
    try:
        file.write(line)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise LiveError(f"can't write {output}: {exc.strerror}; what is written so far is whole") from exc


def _writer(output: str) -> Any:
    if output == "-":
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    try:
        return Path(output).open("wb", buffering=0)
    except OSError as exc:
        raise ConfigurationError(f"can't write {output}: {exc.strerror}") from exc
