"""When one service fails, another answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._attempts import attempts
from dspy_live.sansio.failures import transient


@dataclass(frozen=True, slots=True)
class FallbackStatistics:
    """Calls, how often each of the other services was tried, and calls that none could answer."""

    calls: int
    tried: tuple[int, ...]
    failed: int


def _worth_another(failure: BaseException) -> bool:
    return transient(failure) or isinstance(failure, Overloaded)


class Fallback:
    """Tries the ``others``, in order, when the service fails: another model, another region, a remote server.

    A refusal by a limit around the service (an open circuit, a full queue) counts as a failure too: put each
    service's own limits on itself. After the first token a ``Restart`` comes first; a door that can't take words back
    then ends the call with :class:`~dspy_live.core.errors.StreamBroken`.

    Args:
        others: at least one.
        when: tells of a failure whether another service may do better; by default transient failures and refusals.
    """

    kind: ClassVar[str] = "fallback"

    def __init__(self, *others: Service, when: Callable[[BaseException], bool] = _worth_another) -> None:
        if not others:
            raise ConfigurationError("Fallback needs at least one other service")
        self.others = others
        self.when = when
        self._calls = 0
        self._tried = [0] * len(others)
        self._failed = 0

    def __repr__(self) -> str:
        return f"Fallback({len(self.others)} other{'s' * (len(self.others) > 1)})"

    def statistics(self) -> FallbackStatistics:
        return FallbackStatistics(self._calls, tuple(self._tried), self._failed)

    def __call__(self, service: Service) -> Service:
        def following(call: Call, failure: Exception, attempt: int) -> tuple[Service, float] | None:
            if not self.when(failure):
                return None
            if attempt > len(self.others):
                self._failed += 1
                return None
            self._tried[attempt - 1] += 1
            return self.others[attempt - 1], 0.0

        def fallen_back(call: Call, sink: Sink) -> Coroutine[Any, Any, Result]:
            self._calls += 1
            return attempts(call, sink, service, following)

        return fallen_back
