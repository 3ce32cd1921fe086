"""Usage as a picture: bars in the terminal, or a PNG."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size

from dspy_live.cli.commands.usage import one_line
from dspy_live.core.errors import ConfigurationError

_FIELDS = {"cost": "total_cost", "tokens": "total_tokens", "calls": "api_calls", "runs": "runs"}
_TITLES = {"cost": "cost in US dollars", "tokens": "tokens", "calls": "LM calls", "runs": "runs"}
_MOST = 40
_WIDEST = 40
"""Columns that a name may take, in the terminal and in a picture."""


def draw_terminal(rows: list[dict[str, Any]], by: str, figure: str, out: TextIO) -> None:
    """Draw one bar per row, as wide as the terminal; the last 40 rows of a time, the largest 40 of anything else."""
    names, values = _bars(rows, by, figure)
    labels = [_label(value, figure) for value in values]
    names = [_cut(name, _WIDEST) for name in names]
    left = max(map(cell_len, names))
    room = max(10, shutil.get_terminal_size((100, 24)).columns - left - max(map(len, labels)) - 4)
    most = max(values) or 1.0
    print(f"{_TITLES[figure]} by {by}", file=out)
    for name, value, label in zip(names, values, labels, strict=True):
        print(f"{set_cell_size(name, left)}  {_bar(value / most * room)} {label}", file=out)


def _bar(length: float) -> str:
    whole, eighths = divmod(round(length * 8), 8)
    return "█" * whole + (chr(0x2590 - eighths) if eighths else "")


def _label(value: float, figure: str) -> str:
    return f"${value:,.4f}" if figure == "cost" else f"{value:,.0f}"


def _cut(name: str, width: int) -> str:
    return name if cell_len(name) <= width else set_cell_size(name, width - 1) + "…"


def draw_png(path: Path, rows: list[dict[str, Any]], by: str, figure: str) -> None:
    """Draw the rows into a PNG. Raises :class:`ConfigurationError` for another suffix, or without matplotlib.

    The largest 40 rows, or the last 40 of a time. A sign that the font does not have is drawn as a box.
    """
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"--png writes PNG files; got {path.name!r}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise ConfigurationError("--png needs the extra 'plot': pip install 'dspy-live[plot]'") from None
    names, values = _bars(rows, by, figure)
    picture = Figure(figsize=(10, max(2.5, 0.35 * len(names) + 1.2)), dpi=120, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    axes.barh(range(len(values)), values, height=0.6, color="#3b6fb6")
    # A model may be called "$x$", which is no formula.
    axes.set_yticks(range(len(names)), [_cut(name, _WIDEST) for name in names], parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value, figure))
    axes.invert_yaxis()
    axes.set_title(f"{_TITLES[figure]} by {by}")
    for place, value in enumerate(values):
        axes.annotate(_label(value, figure), (value, place), (4, 0), textcoords="offset points", va="center")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        picture.savefig(path)


def _tick(value: float, figure: str) -> str:
    return f"${value:,g}" if figure == "cost" else f"{value:,g}"


def _bars(rows: list[dict[str, Any]], by: str, figure: str) -> tuple[list[str], list[float]]:
    field = _FIELDS[figure]
    if rows and all(row[field] is None for row in rows):
        raise ConfigurationError(f"runs can't be counted by {by}: a run may use several; draw calls, tokens or cost")
    if by not in ("day", "hour"):
        rows = sorted(rows, key=lambda row: row[field] or 0, reverse=True)[:_MOST]
    names = [one_line(row[by] or "(none)") for row in rows[-_MOST:]]
    return names, [float(row[field] or 0) for row in rows[-_MOST:]]
