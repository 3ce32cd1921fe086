"""Usage as a picture: bars in the terminal, or a PNG."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TextIO

from dspy_live.core.errors import ConfigurationError

_FIELDS = {"cost": "total_cost", "tokens": "total_tokens", "calls": "api_calls", "runs": "runs"}
_TITLES = {"cost": "cost in US dollars", "tokens": "tokens", "calls": "LM calls", "runs": "runs"}
_MOST = 40


def draw_terminal(rows: list[dict[str, Any]], by: str, figure: str, out: TextIO) -> None:
    """Draw one bar per row, as wide as the terminal; the last 40 rows of a time, the largest 40 of anything else."""
    names, values = _bars(rows, by, figure)
    labels = [_label(value, figure) for value in values]
    left = min(max(map(len, names)), 40)
    room = max(10, shutil.get_terminal_size((100, 24)).columns - left - max(map(len, labels)) - 4)
    most = max(values) or 1.0
    print(f"{_TITLES[figure]} by {by}", file=out)
    for name, value, label in zip(names, values, labels, strict=True):
        print(f"{_cut(name, left):<{left}}  {_bar(value / most * room)} {label}", file=out)


def _bar(length: float) -> str:
    whole, eighths = divmod(round(length * 8), 8)
    return "█" * whole + (chr(0x2590 - eighths) if eighths else "")


def _label(value: float, figure: str) -> str:
    return f"${value:,.4f}" if figure == "cost" else f"{value:,.0f}"


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def draw_png(path: Path, rows: list[dict[str, Any]], by: str, figure: str) -> None:
    """Draw the rows into a PNG. Raises :class:`ConfigurationError` for another suffix, or without matplotlib."""
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"--png writes PNG files; got {path.name!r}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("--png needs the extra 'plot': pip install 'dspy-live[plot]'") from None
    names, values = _bars(rows, by, figure)
    picture = Figure(figsize=(10, max(2.5, 0.35 * len(names) + 1.2)), dpi=120, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    axes.barh(names, values, height=0.6, color="#3b6fb6")
    axes.invert_yaxis()
    axes.set_title(f"{_TITLES[figure]} by {by}")
    for place, value in enumerate(values):
        axes.annotate(_label(value, figure), (value, place), (4, 0), textcoords="offset points", va="center")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path)


def _bars(rows: list[dict[str, Any]], by: str, figure: str) -> tuple[list[str], list[float]]:
    field = _FIELDS[figure]
    if rows and all(row[field] is None for row in rows):
        raise ConfigurationError(f"runs can't be counted by {by}: a run may use several; draw calls, tokens or cost")
    if by not in ("day", "hour"):
        rows = sorted(rows, key=lambda row: row[field] or 0, reverse=True)[:_MOST]
    names = [str(row[by] or "(none)") for row in rows[-_MOST:]]
    return names, [float(row[field] or 0) for row in rows[-_MOST:]]
