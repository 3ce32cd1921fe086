"""So many calls at once, over all processes and machines together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

from dspy_live.core.call import Call
from dspy_live.core.errors import Overloaded
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._leases import Leases
from dspy_live.layers._outage import OnOutage
from dspy_live.layers.limit import Limit, LimitStatistics


class SharedLimit(Limit):
    """As :class:`~dspy_live.layers.limit.Limit`, for all processes and machines that use the same ``name``.

    Each slot is a lease in the server. A process says every two seconds that it lives; the slots of one that has not
    for 15 seconds are free again. Processes take turns: one whose first call has waited longest gets the next slot.
    In a process ``concurrency + queue`` calls are inside at most. A call waits for one exchange with the server; calls
    that come together share one.

    While the server does not answer ``on_outage`` decides; it is tried again every second. A server that comes back
    empty grants nothing for 3 seconds, so that all can tell it what they hold.

    Args:
        url: ``redis://host:port`` and so on, as for :class:`~dspy_live.runtime.stores.redis.RedisStore`.
        name: the limit's name; processes that share it must give the same ``concurrency``.
        concurrency: at least 1, for all processes together.
        queue: how many may wait in each process; 0 refuses at once when ``concurrency`` calls of this process are
            inside.
        key: calls of different keys take turns in the queue of a process.
        on_outage: ``"alone"``, the default, lets each process run up to ``concurrency`` calls; ``"refuse"`` refuses
            new calls with :class:`~dspy_live.core.errors.Overloaded`. Calls that run go on.
        timeout: seconds to wait for the server.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` as ``Limit`` does, and without the ``redis`` extra.
    """

    def __init__(
        self,
        url: str,
        name: str,
        concurrency: int,
        *,
        queue: int = 100,
        key: Callable[[Call], Hashable] | None = None,
        on_outage: OnOutage = "alone",
        timeout: float = 1.0,
    ) -> None:
        super().__init__(concurrency, queue=queue, key=key)
        self.name = name
        self._leases = Leases(url, name, concurrency, on_outage, timeout)

    def __call__(self, service: Service) -> Service:
        leases = self._leases

        async def leased(call: Call, sink: Sink) -> Result:
            if not await leases.acquire():
                raise Overloaded(
                    f"the server of the limit {self.name!r} does not answer, and nothing passes without it; try again "
                    "later, or let each process count alone with on_outage='alone'",
                    limit=leases.limit,
                    local=True,
                )
            try:
                return await service(call, sink)
            finally:
                leases.release()

        return super().__call__(leased)

    def __repr__(self) -> str:
        return f"SharedLimit({self.name!r}, {self._leases.limit}, queue={self._slots.gate.queue})"

    def statistics(self) -> LimitStatistics:
        """Return this process's share: ``active`` are the slots that it holds, ``waiting`` the calls that have none."""
        here, leases = super().statistics(), self._leases
        return replace(here, active=leases.held, waiting=here.waiting + leases.waiting)

    def resize(self, concurrency: int) -> None:
        """Change the limit, for this process's part in it: all that share it must do so."""
        super().resize(concurrency)
        self._leases.limit = concurrency
