"""A run's outputs, and what the server says of the run beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply(Mapping[str, Any]):
    """A program's outputs: ``reply.answer`` and ``reply["answer"]`` are the same.

    Attributes:
        outputs: the values by output field, in the signature's order.
        run_id: the run's id, as in the server's log.
        usage: the sums of the run's LM calls; ``usage["cost"]`` is US dollars, ``None`` when unknown.
        cached: true when every LM reply came from the server's cache.
        duration_ms: how long the run took on the server.
    """

    outputs: dict[str, Any]
    run_id: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    cached: bool = False
    duration_ms: float | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self.outputs[name]
        except KeyError:
            raise AttributeError(f"the reply has no output {name!r}; it has {', '.join(self.outputs)}") from None

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def reply_of(outputs: dict[str, Any], beside: Mapping[str, Any], run_id: str) -> Reply:
    """Return the reply of a prediction and what came beside it."""
    run = beside.get("run") or {}
    return Reply(outputs, run_id, run.get("usage") or {}, bool(run.get("cached")), beside.get("duration_ms"))


def reply_of_body(body: dict[str, Any], run_id: str, server_timing: str) -> Reply:
    """Return the reply of a flat ``/predict`` body.

    The server's own keys, ``run`` and ``duration_ms``, are known by their values: a program may have
    outputs of those names, and then they are its.
    """
    beside: dict[str, Any] = {}
    run = body.get("run")
    if isinstance(run, dict) and run.get("id") == run_id:
        beside["run"] = body.pop("run")
    _, _, duration = server_timing.partition("dur=")
    if isinstance(body.get("duration_ms"), float) and f"{body['duration_ms']:.3f}" == duration:
        beside["duration_ms"] = body.pop("duration_ms")
    return reply_of(body, beside, run_id)
