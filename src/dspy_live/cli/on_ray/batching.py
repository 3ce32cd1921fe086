"""``dspy-live batch … --on ray``: Ray Data gives the file's ranges to workers; this process writes what comes back.

The output, the checkpoint and the summary have one writer, and their order is the file's. A worker that dies gives
its range back: Ray starts another one, and what was not written yet is asked again.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from dspy_live.cli.on_ray.batch_worker import BatchWork, BatchWorker
from dspy_live.cli.on_ray.cluster import check_ray, pass_on, ray_cluster
from dspy_live.cli.on_ray.replicas import Replicas, replicas_of
from dspy_live.cli.on_ray.row_ranges import RowRange, row_ranges
from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.cli.flags import ProgramFlags
    from dspy_live.programs.api.batch import BatchItem
    from dspy_live.runtime.checkpoint import Checkpoint

ROWS_PER_SLOT = 4
"""Rows of a range for each row that runs at once: the end of a range leaves slots idle, and its loss asks it again."""
WINDOW = 4096
"""Ranges that Ray Data gets at once. It keeps a block for each of them and plans with all, so that a longer file is run
in several goes; each starts its workers anew."""


def rows_on_ray(
    source: str,
    target: str,
    program: Any,
    flags: ProgramFlags,
    workers: str | None,
    concurrency: int,
    checkpoint: str | None,
    retry_failed: bool,
) -> Callable[[Callable[[BatchItem, Any], None]], None]:
    """Check what the command was told, and return the function that runs the rows."""
    if concurrency < 1:
        raise ConfigurationError(f"concurrency must be a whole number, at least 1; got {concurrency}")
    return partial(
        batch_on_ray,
        source,
        target,
        program,
        flags,
        workers=replicas_of(workers, flag="--workers"),
        concurrency=concurrency,
        checkpoint=checkpoint,
        retry_failed=retry_failed,
    )


def batch_on_ray(
    source: str,
    target: str,
    program: Any,
    flags: ProgramFlags,
    take: Callable[[BatchItem, Any], object],
    *,
    workers: Replicas,
    concurrency: int,
    checkpoint: str | None,
    retry_failed: bool,
) -> None:
    """Run every row of a file on workers.

    Args:
        source: a JSON Lines or Parquet file that the workers can read under the same path.
        target: the program, as the workers find it.
        program: the program itself, opened here.
        flags: how the workers open and run it.
        take: called for each row in the file's order, with the item and its outputs as the line shows them.
        workers: how many there are.
        concurrency: how many rows run at once in each.
        checkpoint: a file that remembers finished rows.
        retry_failed: ask again for rows that it has as failed.

    Raises :class:`ConfigurationError` for what would fail every row alike.
    """
    check_ray()
    from dspy_live.programs.run.program import program_fingerprint
    from dspy_live.runtime.checkpoint import Checkpoint

    ranges = row_ranges(source, concurrency * ROWS_PER_SLOT)
    parts = list(islice(ranges, WINDOW))
    if not parts:
        return
    with ExitStack() as opened:
        kept = None
        if checkpoint is not None:
            kept = opened.enter_context(closing(Checkpoint(checkpoint, program_fingerprint(program))))
        done = frozenset(kept.done(retry_failed=retry_failed)) if kept is not None else frozenset[int]()
        work = BatchWork(target, flags, str(Path.cwd()), concurrency)
        opened.enter_context(ray_cluster(workers.most))
        opened.enter_context(_exit_at_sigterm())  # after Ray's start, which sets a handler of its own
        while parts:
            for line in _lines(work, workers, [_text(part, done) for part in parts]):
                take(*_item(orjson.loads(line), kept))
            parts = list(islice(ranges, WINDOW))


@contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    def exit_now(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, exit_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _text(part: RowRange, done: frozenset[int]) -> str:
    here = sorted(done.intersection(range(part.first, part.first + part.rows))) if done else []
    return orjson.dumps([*astuple(part), here]).decode()


def _lines(work: BatchWork, workers: Replicas, parts: list[str]) -> Iterator[bytes]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    from dspy_live.loading.config.read import read_config

    config = work.flags.config
    file = None if config is None else read_config(config, for_server=False)

    # --quiet is for scripts, and our own line says what there was to do; warnings and errors are told.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # that there is no bar
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # One block for each range. They are made here: tasks that make them would wait for a processor that workers have.
    given = ray.data.from_items([{"range": part} for part in parts], override_num_blocks=len(parts))
    answered = given.map_batches(
        BatchWorker,
        fn_constructor_args=(work,),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=workers.least, max_size=workers.most, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        **pass_on(os.environ, file),
    )
    for batch in answered.iter_batches(batch_size=None, prefetch_batches=1):
        yield from batch["line"]


def _item(line: dict[str, Any], kept: Checkpoint | None) -> tuple[BatchItem, Any]:
    """Return the item of a worker's line and its outputs; what has ended is kept, what was kept is read."""
    from dspy_live.programs.api.batch import BatchError, BatchItem

    if "ends" in line:
        raise ConfigurationError(line["ends"])
    index, inputs, record = line["index"], line["input"], line.get("record")
    resumed = record is None
    if record is None:
        assert kept is not None
        record = kept.get(index, line["print"])
        assert record is not None
    elif kept is not None and not line["input_problem"]:
        kept.put(index, line["print"], record)
    if "error" in record:
        error = BatchError(index, inputs, record["error"], record["message"])
        return BatchItem(index, inputs, None, error, resumed=resumed), None
    return BatchItem(index, inputs, resumed=resumed), record["outputs"]
