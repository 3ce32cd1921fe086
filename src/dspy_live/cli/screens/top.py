"""The screen of ``dspy-live top``: a server's statistics of now and of the last minutes, laid out by rich."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS = " ▁▂▃▄▅▆▇█"
_COUNTS = ("started", "succeeded", "failed", "cancelled", "tokens")
KEPT = 300


@dataclass(slots=True)
class History:
    """The statistics of a server, the newest last; ``at`` are seconds of one clock."""

    url: str
    programs: tuple[str, ...] = ()
    simulated: bool = False
    stats: deque[tuple[float, Mapping[str, Any]]] = field(default_factory=lambda: deque(maxlen=KEPT))
    trouble: str = ""
    failing_since: str = ""

    def add(self, at: float, stats: Mapping[str, Any]) -> None:
        """Add the server's statistics of now. A server that was started anew begins a new history."""
        if self.stats and stats["uptime_s"] < self.stats[-1][1]["uptime_s"]:
            self.stats.clear()
        self.stats.append((at, stats))
        self.trouble = self.failing_since = ""

    def fail(self, why: str, at: str) -> None:
        """Keep why the server did not answer now, and the time of day since when it has not."""
        self.failing_since = self.failing_since or at
        self.trouble = f"{why} (since {self.failing_since})"

    def rates(self, name: str) -> list[float]:
        """Return how much a count grew per second, between each two neighbours."""
        pairs = zip(self.stats, list(self.stats)[1:], strict=False)
        return [(new[name] - old[name]) / max(after - before, 1e-9) for (before, old), (after, new) in pairs]

    def now(self) -> Mapping[str, Any] | None:
        """Return the newest statistics."""
        return self.stats[-1][1] if self.stats else None


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last ``width`` values as bars, the highest of them full."""
    last = list(values)[-width:]
    most = max(last, default=0.0)
    if most <= 0:
        return _BARS[0] * len(last)
    # Something is never shown as nothing.
    return "".join(_BARS[0 if v <= 0 else max(1, round(v / most * 8))] for v in last)


def screen(history: History, width: int = 80) -> RenderableType:
    """Return the screen. It fits ``width`` columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    now = history.now()
    head = Text.assemble((history.url, "bold"), "  ", ", ".join(history.programs))
    if history.simulated:
        head.append("  simulated LM", "yellow")
    if history.trouble:
        head.append(f"\n{history.trouble}", "red")
    if now is None:
        return head
    if now["draining"]:
        head.append("  shutting down", "red")
    table = Table.grid(padding=(0, 2))
    for name, value in _lines(history, now):
        table.add_row(Text(name, "dim"), value)
    room = max(10, width - 24)
    graphs = Table.grid(padding=(0, 2))
    active = [float(stats["active"]) for _, stats in history.stats]
    for name, values in (
        ("active", active),
        ("runs/s", history.rates("started")),
        ("streamed/s", history.rates("tokens")),
    ):
        peak = f"{max(values[-room:], default=0.0):,.0f}"
        graphs.add_row(Text(name, "dim"), Text(sparkline(values, room), "cyan"), Text(peak, "dim"))
    return Group(head, "", table, "", graphs)


def _lines(history: History, now: Mapping[str, Any]) -> list[tuple[str, str]]:
    limit = f" of {now['max_active']}" if now["max_active"] is not None else ""
    rate = {name: (history.rates(name) or [0.0])[-1] for name in _COUNTS}
    return [
        ("up", _duration(now["uptime_s"])),
        ("active", f"{now['active']}{limit}"),
        ("runs", f"{now['started']:,}   {rate['started']:,.1f}/s"),
        ("went well", f"{now['succeeded']:,}"),
        ("failed", f"{now['failed']:,}   cancelled {now['cancelled']:,}"),
        ("streamed", f"{now['tokens']:,} tokens   {rate['tokens']:,.0f}/s"),
        ("cost", f"${now['cost']:,.4f}"),
        ("first token", _quantiles(now["first_token_ms"])),
        ("duration", _quantiles(now["duration_ms"])),
    ]


def _quantiles(found: Mapping[str, float] | None) -> str:
    return "–" if not found else "   ".join(f"{name} {value:,.0f} ms" for name, value in found.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
