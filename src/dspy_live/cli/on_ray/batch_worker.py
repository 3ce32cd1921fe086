"""One worker of a batch on Ray: it opens the program as the command does, and runs the rows of a range."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from dspy_live.cli.on_ray.row_ranges import RowRange, read_range

if TYPE_CHECKING:
    from dspy_live.cli.flags import ProgramFlags
    from dspy_live.programs.api.batch import BatchItem


@dataclass(frozen=True)
class BatchWork:
    """What each worker is told.

    Args:
        target: the program.
        flags: the flags that say how it is opened and run.
        folder: where the command was started.
        concurrency: how many rows run at once in a worker.
    """

    target: str
    flags: ProgramFlags
    folder: str
    concurrency: int


class BatchWorker:
    """The class of Ray Data's actors: ranges go in, the lines of their rows come out."""

    def __init__(self, work: BatchWork) -> None:
        from dspy_live.cli.open_program import open_program

        self._work = work
        if Path(self._work.folder).is_dir():
            os.chdir(self._work.folder)
        self._ready = open_program(self._work.target, self._work.flags)
        self._cached: dict[tuple[str, int], Any] = {}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Run the ranges that are given; returns one JSON text for each row, in the file's order.

        A range is a JSON text: the values of a :class:`RowRange`, and the rows that a checkpoint has, by their place
        in the file.
        """
        from dspy_live.cli.run_recording import run_recording

        lines: list[bytes] = []
        for text in batch["range"]:
            *values, done = orjson.loads(text)
            with run_recording():  # written when the range is done, as Ray kills a worker without a word
                lines += asyncio.run(self._run(RowRange(*values), frozenset(done)))
        return {"line": lines}

    async def _run(self, part: RowRange, done: frozenset[int]) -> list[bytes]:
        from dspy_live.core.errors import ConfigurationError
        from dspy_live.programs.api.batch import ends_batch, stream_batch

        lines, asked, rows = [], [], []
        for index, raw in enumerate(read_range(part, self._cached), part.first):
            row = self._row(raw)
            lines.append({"index": index, "input": row.raw, "print": _fingerprint(row)})
            if index not in done:
                asked.append(lines[-1])
                rows.append(row)
        flags, many = self._work.flags, self._work.concurrency
        try:
            items: Any = stream_batch(
                self._ready.loaded.program,
                rows,
                concurrency=many,
                ordered=True,
                progress=False,
                timeout=flags.timeout,
                execution=flags.execution,
            )
            async with aclosing(items):
                async for item in items:
                    asked[item.index].update(_outcome(item))
        except Exception as exc:
            if not (isinstance(exc, (ConfigurationError, ValueError)) or ends_batch(exc)):
                raise
            return [orjson.dumps({"ends": str(exc)})]
        return [orjson.dumps(line, default=str) for line in lines]

    def _row(self, raw: bytes) -> Any:
        from dspy_live.cli.input.rows import BadRow, row_of_line
        from dspy_live.core.errors import InputError
        from dspy_live.programs.api.batch_inputs import Row

        row = row_of_line(raw.decode("utf-8", "surrogateescape"))
        if isinstance(row, BadRow):
            return Row(row.text, problem=row.message)
        schema = self._ready.schema
        names = {field.name for field in schema.inputs}
        given = row if schema.open else {name: value for name, value in row.items() if name in names}
        try:
            return Row(row, schema.check(given))
        except InputError as exc:
            return Row(row, problem=exc.message)


def _fingerprint(row: Any) -> str:
    """The same as a batch on one machine keeps, so that either goes on with the other's checkpoint."""
    from dspy_live.runtime.checkpoint import fingerprint

    return "" if row.inputs is None else fingerprint([(), dict(row.inputs)])


def _outcome(item: BatchItem) -> dict[str, Any]:
    from dspy_live.programs.api.batch import record_of

    return {"record": record_of(item), "input_problem": item.error is not None and item.error.kind == "InvalidInput"}
