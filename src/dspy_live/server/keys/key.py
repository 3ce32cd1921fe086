"""One API key: its name, its hash, what it may do and what it may use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.checks import positive, whole
from dspy_live.server.keys.token import is_digest

KeyScope = Literal["run", "metrics", "usage"]
SCOPES: tuple[KeyScope, ...] = ("run", "metrics", "usage")
"""``run`` is for programs, a key's own runs and its own usage, ``metrics`` for ``/metrics`` and ``/stats``, ``usage``
for what all keys have used."""
PLAIN: tuple[KeyScope, ...] = ("run", "metrics")
"""The scopes of a key that is given without any, on a command line or to ``create_app``."""

Period = Literal["day", "month"]
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of one day or one month (UTC): US dollars, tokens, LM calls. ``None``: no such limit."""

    max_cost: float | None = None
    max_tokens: int | None = None
    max_calls: int | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None:
            positive("max_cost", self.max_cost, "US dollars")
        for name in ("max_tokens", "max_calls"):
            if (value := getattr(self, name)) is not None:
                whole(name, value)
        if not self.limits():
            raise ConfigurationError("a quota needs at least one of max_cost, max_tokens and max_calls")

    def limits(self) -> dict[str, Any]:
        """Return the limits that there are, as ``Budget`` takes them."""
        found = {"max_cost": self.max_cost, "max_tokens": self.max_tokens, "max_calls": self.max_calls}
        return {name: value for name, value in found.items() if value is not None}

    def same_limits(self, limits: Mapping[Any, float]) -> bool:
        """True where a budget's ``limits`` (by unit) are these."""
        return dict(limits) == {name.removeprefix("max_"): value for name, value in self.limits().items()}


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key of a server.

    Args:
        name: what logs, ledger and metrics call it; letters, digits and ``_ . @ -``.
        digest: its hash, see :func:`~dspy_live.server.keys.token.digest_of`.
        programs: the programs that it may run; ``None`` for all.
        scopes: what it may do, of :data:`SCOPES`.
        requests_per_minute: runs in any 60 seconds, or ``None``.
        tokens_per_minute: tokens of its runs in any 60 seconds, or ``None``. They are counted when an LM has answered,
            so that the runs under way then may exceed it.
        concurrency: runs at once, or ``None``.
        day: what it may use in a day.
        month: what it may use in a month.
    """

    name: str
    digest: str
    programs: tuple[str, ...] | None = None
    scopes: tuple[KeyScope, ...] = ("run",)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    day: Quota | None = None
    month: Quota | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ConfigurationError(f"a key's name is 1 to 64 letters, digits and '_ . @ -'; got {self.name[:80]!r}")
        if not is_digest(self.digest):
            raise ConfigurationError(f"the key {self.name!r} has no hash of the form sha256:…")
        if unknown := [scope for scope in self.scopes if scope not in SCOPES]:
            raise ConfigurationError(
                f"the key {self.name!r} has the scope {unknown[0]!r}; there are {', '.join(SCOPES)}"
            )
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (value := getattr(self, name)) is not None:
                positive(name, value)
        if self.concurrency is not None:
            whole("concurrency", self.concurrency, "runs")

    @property
    def quotas(self) -> dict[Period, Quota]:
        """The limits by day and by month that there are."""
        found: dict[Period, Quota | None] = {"day": self.day, "month": self.month}
        return {period: quota for period, quota in found.items() if quota is not None}

    @property
    def limited(self) -> bool:
        """True where the key has a limit of any kind."""
        limits = (self.requests_per_minute, self.tokens_per_minute, self.concurrency, self.programs)
        return bool(self.quotas) or any(limit is not None for limit in limits)
