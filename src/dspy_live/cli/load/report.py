"""The results of a load: measurements, a table for people, a plot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from dspy_live.cli.load.drive import Load
from dspy_live.core.errors import ConfigurationError

_SHARES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
_ROWS = 12


def measurements(load: Load) -> dict[str, Any]:
    """Return counts, rates per second, and times in milliseconds; a time that nobody measured is ``None``."""
    good = [s for s in load.samples if s.error is None]
    seconds = max(load.ended - load.started, 1e-9)
    tokens = sum(s.tokens for s in load.samples)
    return {
        "seconds": round(seconds, 3),
        "runs": len(load.samples),
        "failed": len(load.samples) - len(good),
        "errors": dict(Counter(s.error for s in load.samples if s.error is not None).most_common()),
        "rate": round(len(good) / seconds, 2),
        "latency_ms": _quantiles([s.latency for s in good]),
        "first_token_ms": _quantiles([s.first - s.due for s in good if s.first is not None]),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return the quantiles, the nearest rank of each: a time that some run really took."""
    if not values:
        return None
    ordered = sorted(values)
    return {name: round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 2) for name, share in _SHARES}


def show(found: dict[str, Any], title: str, out: TextIO) -> None:
    """Print the measurements for people."""
    print(title, file=out)
    print(
        f"  runs         {found['runs']:,} in {found['seconds']:.1f} s, {found['rate']:,.1f} good ones a second",
        file=out,
    )
    if found["failed"]:
        named = ", ".join(f"{name} {count:,}" for name, count in found["errors"].items())
        print(f"  failed       {found['failed']:,}: {named}", file=out)
    for name, key in (("latency", "latency_ms"), ("first token", "first_token_ms")):
        if found[key]:
            print(f"  {name:<11}  " + "   ".join(f"{q} {_time(ms)}" for q, ms in found[key].items()), file=out)
    if found["tokens"]:
        print(f"  tokens       {found['tokens']:,}, {found['tokens_per_second']:,.0f} a second", file=out)


def draw(load: Load, out: TextIO, width: int = 48) -> None:
    """Print how the latencies are spread, one bar per range; ranges grow by the same factor."""
    values = sorted(s.latency for s in load.samples if s.error is None)
    if len(values) < 2 or values[0] <= 0:
        return
    low, high = math.log(values[0]), math.log(values[-1])
    rows = _ROWS if high > low else 1
    step = (high - low) / rows or 1.0
    counts = Counter(min(rows - 1, int((math.log(v) - low) / step)) for v in values)
    most = max(counts.values())
    for row in range(rows):
        bar = "█" * math.ceil(counts[row] / most * width)
        print(f"  {_time(math.exp(low + row * step) * 1000):>9}  {bar} {counts[row] or ''}".rstrip(), file=out)


def check_png(path: Path) -> None:
    """Raise :class:`ConfigurationError` where no picture can be drawn, before a load has run for it."""
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"--png writes PNG files; got {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"can't write {path}: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise ConfigurationError("--png needs the extra 'plot': pip install 'dspy-live[plot]'")


def draw_png(load: Load, path: Path, title: str) -> None:
    """Draw latency over time, and its spread. Raises :class:`ConfigurationError` for a file that can't be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(picture)
    over_time, spread = picture.subplots(1, 2, width_ratios=(2, 1))
    good = [s for s in load.samples if s.error is None]
    bad = [s for s in load.samples if s.error is not None]
    over_time.plot([s.due - load.started for s in good], [s.latency * 1000 for s in good], ".", ms=3, label="latency")
    tokened = [s for s in good if s.first is not None]
    if tokened:
        firsts = [(s.first - s.due) * 1000 for s in tokened if s.first is not None]
        over_time.plot([s.due - load.started for s in tokened], firsts, ".", ms=3, label="first token")
    if bad:
        over_time.plot([s.due - load.started for s in bad], [s.latency * 1000 for s in bad], "rx", ms=4, label="failed")
    over_time.set(xlabel="seconds since the start", ylabel="milliseconds", title=title, ylim=(0, None))
    over_time.legend(loc="upper right")
    latencies = sorted(s.latency * 1000 for s in good)
    spread.plot(latencies, [(n + 1) / len(latencies) * 100 for n in range(len(latencies))])
    spread.set(xlabel="latency in milliseconds", ylabel="share of runs, %", ylim=(0, 100))
    for axes in (over_time, spread):
        axes.grid(alpha=0.3)
    try:
        picture.savefig(path)
    except OSError as exc:
        raise ConfigurationError(f"can't write {path}: {exc.strerror}") from exc


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"
