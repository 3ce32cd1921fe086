"""``dspy-live batch``: a program over every row of a file, resumable."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dspy_live.cli.commands.batch_output import Output, open_output, part_of
from dspy_live.cli.commands.batch_summary import Summary
from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError, InputError
from dspy_live.core.schema import Schema

if TYPE_CHECKING:
    from dspy_live.programs.api.batch import BatchItem

OnError = Literal["return", "raise"]
TERMINATED = 143


def batch(
    source: str,
    /,
    *,
    program: str,
    output: Annotated[str, Parameter(alias="-o")],
    concurrency: int = 32,
    checkpoint: str | None = None,
    retry_failed: Annotated[bool, Parameter(negative="")] = False,
    on_error: OnError = "return",
    quiet: Annotated[bool, Parameter(negative="")] = False,
    on: Literal["ray"] | None = None,
    workers: str | None = None,
    flags: ProgramFlags | None = None,
) -> int:
    """Run a program over every row of a file.

    The output has one JSON line per row, in the order of the input: its index, the input, and the output or the error.
    With a checkpoint, a rerun after a crash does only what is missing and writes the whole output again. The rows are
    written to OUTPUT.part, which becomes OUTPUT at the end.

    Args:
        source: rows to read: JSON Lines, .csv or .tsv; - for JSON Lines on stdin.
        program: file.py:object, package.module:object, a saved program's folder or 'question -> answer'.
        output: file to write, - for stdout.
        concurrency: how many rows run at once.
        checkpoint: a file that remembers finished rows.
        retry_failed: ask again for rows that the checkpoint has as failed.
        on_error: return writes a failed row's error and goes on, raise ends the batch with the first one.
        quiet: no progress bar.
        on: ray runs the rows in workers of Ray Data, which read the same file: JSON Lines or .parquet. RAY_ADDRESS
            names a cluster; without it one is started on this machine. Needs dspy-live[ray].
        workers: with --on ray, how many workers, or MIN:MAX; 1 by default. Each has --concurrency rows at once.
    """
    from dspy_live.cli.open_program import open_program, warn_if_simulated

    # A lone dash comes as @-, see app.
    source, output = ("-" if name == "@-" else name for name in (source, output))
    _check_files(source, output, checkpoint)
    if retry_failed and checkpoint is None:
        raise ConfigurationError("--retry-failed asks again for the failed rows of a checkpoint; name it, --checkpoint")
    flags = flags or ProgramFlags()
    if on is not None:
        from dspy_live.cli.on_ray.cluster import check_ray

        check_ray()
    elif workers is not None:
        raise ConfigurationError("--workers says how many workers Ray runs; give --on ray too")
    ready = open_program(program, flags)
    warn_if_simulated(ready.lm)
    options = {
        "concurrency": concurrency,
        "checkpoint": checkpoint,
        "retry_failed": retry_failed,
        "progress": False if quiet else None,
        "timeout": flags.timeout,
        "execution": flags.execution,
    }
    elsewhere = None
    if on is not None:
        from dspy_live.cli.on_ray.batching import rows_on_ray

        given = (concurrency, checkpoint, retry_failed)
        elsewhere = rows_on_ray(source, program, ready.loaded.program, flags, workers, *given)
    return _run(ready.loaded.program, ready.schema, source, output, on_error, options, elsewhere)


def _check_files(source: str, output: str, checkpoint: str | None) -> None:
    if source != "-" and Path(source).is_dir():
        raise ConfigurationError(f"can't read {source}: it is a folder")
    if source != "-" and not Path(source).exists():
        raise ConfigurationError(f"can't read {source}: there is no such file")
    if output != "-" and Path(output).is_dir():
        raise ConfigurationError(f"can't write {output}: it is a folder")
    part = "-" if output == "-" else str(part_of(output))
    named = {"input": source, "output": output, "output's .part": part, "checkpoint": checkpoint}
    places: dict[Path, str] = {}
    for what, name in named.items():
        if name in (None, "-"):
            continue
        place = Path(str(name)).resolve()
        if place in places and not place.is_char_device():
            raise ConfigurationError(f"the {what} {name} is the {places[place]}")
        places[place] = what


def _run(
    program: Any,
    schema: Schema,
    source: str,
    output: str,
    on_error: OnError,
    options: dict[str, Any],
    elsewhere: Callable[[Callable[[BatchItem, Any], None]], None] | None = None,
) -> int:
    """Run the rows here, or ``elsewhere``, which hands each item back with its outputs."""
    import asyncio

    from dspy_live.cli.run_recording import run_recording
    from dspy_live.programs.api.batch import ends_batch, stream_batch

    summary = Summary()
    terminated = Terminated()
    left_in: Path | None = None
    ended = ""

    async def write(file: Output) -> None:
        with terminated.watch():
            items: Any = stream_batch(program, Inputs.of(schema, source), ordered=True, **options)
            async with contextlib.aclosing(items):
                async for item in items:
                    take(file, item, _outputs(item))

    def take(file: Output, item: BatchItem, outputs: Any) -> None:
        file.write(_line(item, outputs))
        summary.add(item)
        if item.error is not None and on_error == "raise":
            raise _Ended

    try:
        with run_recording():
            file = open_output(output)
            try:
                with file:
                    if elsewhere is None:
                        asyncio.run(write(file))
                    else:
                        with terminated.raised():
                            elsewhere(partial(take, file))
            finally:
                left_in = file.left_in
    except _Ended:
        ended = "a row has failed"
    except asyncio.CancelledError:
        if not terminated:
            raise
        ended = "terminated"
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    except BrokenPipeError:
        ended = "nobody reads the output any more"
        raise
    except Exception as exc:
        ended = "by an error" if summary.rows else ""
        if isinstance(exc, ValueError) or ends_batch(exc):
            raise ConfigurationError(str(exc)) from exc
        raise
    finally:
        if summary.rows or ended or sys.exc_info()[0] is None:
            print(summary.text(ended, left_in), file=sys.stderr)
    if terminated:
        return TERMINATED
    return 1 if summary.failed else 0


class _Ended(Exception):
    """A row has failed, and the first failure is to end the batch."""


class Terminated:
    """Turns SIGTERM into the cancellation that Ctrl-C is; true once it has come. A second one ends the process."""

    def __init__(self) -> None:
        self._came = False

    def __bool__(self) -> bool:
        return self._came

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Cancel the current task at SIGTERM. Where a loop has no signals (a thread, Windows) nothing changes."""
        import asyncio
        import signal

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def came() -> None:
            self._came = True
            loop.remove_signal_handler(signal.SIGTERM)
            task.cancel()

        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGTERM, came)
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGTERM)

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Raise the cancellation in this thread at SIGTERM, for work without a loop that began with no handler."""
        import asyncio

        try:
            yield
        except SystemExit:  # made of it in on_ray
            self._came = True
            raise asyncio.CancelledError from None


class Inputs:
    """The rows of a source as the program's checked inputs; columns that it does not take stay out."""

    def __init__(self, schema: Schema, source: str) -> None:
        self._schema = schema
        self._source = source

    @classmethod
    def of(cls, schema: Schema, source: str) -> Inputs:
        """Return the inputs; those of a file have a length, which the progress bar asks for."""
        return FileInputs(schema, source) if Path(source).is_file() else cls(schema, source)

    def __iter__(self) -> Iterator[Any]:
        from dspy_live.cli.input.rows import BadRow, read_rows
        from dspy_live.programs.api.batch_inputs import Row

        schema = self._schema
        names = {field.name for field in schema.inputs}
        for row in read_rows(self._source):
            if isinstance(row, BadRow):
                yield Row(row.text, problem=row.message)
                continue
            given = row if schema.open else {name: value for name, value in row.items() if name in names}
            try:
                yield Row(row, schema.check(given))
            except InputError as exc:
                yield Row(row, problem=exc.message)


class FileInputs(Inputs):
    """Those of a file, which can be read twice."""

    def __len__(self) -> int:
        from dspy_live.cli.input.rows import count_rows

        return count_rows(self._source)


def _outputs(item: BatchItem) -> Any:
    from dspy_live.programs.run.schema import outputs_of

    return None if item.error is not None else outputs_of(item.result)


def _line(item: BatchItem, outputs: Any) -> bytes:
    import orjson

    row: dict[str, Any] = {"index": item.index, "input": item.inputs}
    if item.error is not None:
        row["error"] = {"type": item.error.kind, "message": item.error.message}
    else:
        row["output"] = outputs
    return orjson.dumps(row, default=str) + b"\n"
