"""Identical calls in flight share one run, over all processes and machines together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.events import Event, Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._outage import Outage
from dspy_live.layers._playback import Recorder, play, read
from dspy_live.layers._same import name_of, same_question
from dspy_live.layers._shared_flight import SharedFlight
from dspy_live.layers.single_flight import SingleFlight, SingleFlightStatistics
from dspy_live.runtime.stores.line import line_to

logger = logging.getLogger("dspy_live.single_flight")

MAX_BYTES = 16 * 1024 * 1024
"""A result above this is not handed to other processes: it would hold up the server for everybody."""


@dataclass(frozen=True, slots=True)
class SharedSingleFlightStatistics(SingleFlightStatistics):
    """As :class:`~dspy_live.layers.single_flight.SingleFlightStatistics`; and of ``runs`` those that another process
    made, and those for which it is waited now."""

    followed: int
    following: int


class SharedSingleFlight(SingleFlight):
    """As :class:`~dspy_live.layers.single_flight.SingleFlight`, for all processes that use the same ``name``.

    In a process it is a ``SingleFlight``. Of several processes that ask the same at the same time one makes the run,
    and the others get its result: the whole of it at its end, so that only calls that don't stream (``call.stream``)
    share a run with another process. Their program's own object (``Predicted.value``) is ``UNSET``.

    When the process that makes the run dies, another one makes it after 6 seconds, and at once when its callers leave.
    Who leaves while it waits is not missed. When the run fails, or its result is above 16 MB or nothing that JSON can
    hold, each of the other processes makes a run of its own. So they do while the server does not answer, for this is
    only a saving.

    With a :class:`~dspy_live.layers.cache.Cache` over the same server inside of it, calls that come later find the
    answer there.

    Args:
        url: ``redis://host:port`` and so on, as for :class:`~dspy_live.runtime.stores.redis.RedisStore`.
        name: processes that share runs give the same one.
        key: as for ``SingleFlight``; a key that is no JSON is shared in its own process only.
        timeout: seconds to wait for the server.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``redis`` extra, or for a wrong URL.
    """

    def __init__(
        self,
        url: str,
        name: str,
        key: Callable[[Call], Hashable | None] = same_question,
        *,
        timeout: float = 1.0,
    ) -> None:
        super().__init__(key)
        self.name = name
        self._outage = Outage(f"the single flight {name!r}", "alone", logger)
        self._line = line_to(url, timeout)
        self._probe = SharedFlight(self._line, f"dspy-live:flight:{name}:{{}}", self._outage)
        self._followed = 0
        self._asking: set[SharedFlight] = set()

    def __repr__(self) -> str:
        return f"SharedSingleFlight({self.name!r})"

    def statistics(self) -> SharedSingleFlightStatistics:
        following = sum(flight.following for flight in tuple(self._asking))
        return SharedSingleFlightStatistics(
            self._runs, self._joined, self._alone, len(self._flights), self._followed, following
        )

    def __call__(self, service: Service) -> Service:
        async def for_all(call: Call, sink: Sink) -> Result:
            name = None if call.stream else name_of(call, self.key(call))
            if self._outage.down:
                self._probe.end("left")  # finds out whether the server is back
            if name is None or self._outage.down:
                return await service(call, sink)
            flight = SharedFlight(self._line, f"dspy-live:flight:{self.name}:{{{name}}}", self._outage)
            self._asking.add(flight)
            try:
                part = await flight.begin()
            finally:
                self._asking.discard(flight)
            if part.kind == "lead":
                return await _lead(flight, service, call, sink)
            kept = _decoded(part.result) if part.kind == "result" else None
            if kept is None:
                return await service(call, sink)
            self._followed += 1
            await play(call, sink, *kept)
            return kept[1]

        return super().__call__(for_all)


async def _lead(flight: SharedFlight, service: Service, call: Call, sink: Sink) -> Result:
    recorder = Recorder(sink)
    try:
        result = await service(call, recorder)
    except Exception:
        flight.end("done")
        raise
    except BaseException:
        flight.end("left")
        raise
    flight.end("done", _encoded(recorder.record(result, call.stream)))
    return result


def _encoded(record: dict[str, Any]) -> bytes:
    """Return a result as JSON; nothing when it can't be handed on."""
    try:
        body = msgspec.json.encode(record)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return b""
    return body if len(body) <= MAX_BYTES else b""


def _decoded(body: bytes) -> tuple[list[Event], Result] | None:
    try:
        return read(msgspec.json.decode(body), stream=False)
    except msgspec.DecodeError:
        return None
