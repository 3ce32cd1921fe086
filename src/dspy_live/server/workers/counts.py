"""What a worker has counted, and the files that remember it: no counter goes backwards when a worker dies.

A worker writes its file before it tells its counts to anybody. So what was ever shown is in a file, and the files of
those that are gone add up to no less.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from dspy_live.server.workers.sums import counters_only, lost_runs, merged_texts, summed_counts

DEAD = "dead.counts"
_LIVE = "worker-*.counts"


class Counts(msgspec.Struct, kw_only=True):
    """What one worker has counted since its start.

    Args:
        worker: its number, which no other worker of the server has had.
        statistics: those of its runs, as ``/stats`` shows them.
        durations: seconds of its last runs.
        first: seconds until the first token of its last runs.
        metrics: the text of its ``/metrics``.
    """

    worker: int
    statistics: dict[str, Any] = {}
    durations: list[float] = []
    first: list[float] = []
    metrics: str = ""


class DeadCounts(msgspec.Struct):
    """The sums of the workers that are gone, and their numbers."""

    workers: list[int] = []
    statistics: dict[str, float] = {}
    metrics: str = ""


def file_of(folder: Path, worker: int) -> Path:
    """Return the file of a worker's counts."""
    return folder / f"worker-{worker}.counts"


def write(folder: Path, counts: Counts) -> None:
    """Write a worker's counts; a reader sees the file as it was before, or whole."""
    _replace(file_of(folder, counts.worker), msgspec.msgpack.encode(counts))


def bury(folder: Path, worker: int) -> None:
    """Add the counts of a worker that is gone to those of the dead; the runs that it had not ended have failed.

    Only the supervisor may call this. Until the worker's own file is removed, readers see by its number that it is
    counted.
    """
    path = file_of(folder, worker)
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=Counts)
    except (OSError, msgspec.DecodeError):  # it had nothing to tell
        return
    dead = read_dead(folder)
    statistics = dict(found.statistics)
    statistics["failed"] = statistics.get("failed", 0) + statistics.get("active", 0)
    sums = summed_counts([dead.statistics, statistics])
    texts = (dead.metrics, counters_only(found.metrics), lost_runs(found.metrics))
    metrics = merged_texts([("", text) for text in texts])
    _replace(folder / DEAD, msgspec.msgpack.encode(DeadCounts([*dead.workers, worker], sums, metrics)))
    path.unlink()


def read_dead(folder: Path) -> DeadCounts:
    """Return the sums of the workers that are gone."""
    try:
        return msgspec.msgpack.decode((folder / DEAD).read_bytes(), type=DeadCounts)
    except OSError:
        return DeadCounts()


def read_files(folder: Path) -> list[Counts]:
    """Return the counts of all workers that have a file. Read the dead after them: one may die in between."""
    found = []
    for path in sorted(folder.glob(_LIVE)):
        try:
            found.append(msgspec.msgpack.decode(path.read_bytes(), type=Counts))
        except OSError:  # buried meanwhile
            continue
    return found


def latest(told: Iterable[Counts], files: Iterable[Counts], dead: DeadCounts) -> list[Counts]:
    """Return each worker's counts once: what it has told, else what its file says, nothing of a buried one."""
    by_worker = {one.worker: one for one in files} | {one.worker: one for one in told}
    return [by_worker[number] for number in sorted(by_worker.keys() - set(dead.workers))]


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)
