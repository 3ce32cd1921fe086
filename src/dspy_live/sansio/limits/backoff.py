"""How long to wait before another try: exponential, with full jitter."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.checks import positive


@dataclass(frozen=True, slots=True)
class Backoff:
    """A wait between 0 and ``min(cap, base * factor ** n)`` seconds before retry ``n`` (from 0).

    The whole of it is random ("full jitter"): callers that failed together come back spread out.

    Args:
        base: seconds, the most that the first retry waits.
        cap: seconds, the most that any waits.
        factor: how much each one's most exceeds the one's before, at least 1.
    """

    base: float = 0.5
    cap: float = 30.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        positive("base", self.base, "seconds")
        positive("cap", self.cap, "seconds")
        if positive("factor", self.factor) < 1:
            raise ConfigurationError(f"factor must be at least 1; got {self.factor!r}")

    def delay(self, retry: int, chance: float, after: float | None = None) -> float:
        """Return the seconds to wait before retry number ``retry`` (from 0).

        ``chance`` is a random number in [0, 1). ``after`` is what the other side asked for (``Retry-After``): the wait
        is never shorter, and the jitter comes on top, else all would come back in the same instant.
        """
        # Past 2**64 the cap has long been reached, and a float power would overflow.
        most = min(self.cap, self.base * self.factor ** min(retry, 64))
        return chance * most if after is None else after + chance * min(most, self.base)
