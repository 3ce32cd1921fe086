"""What ``bench/run.py`` prints: medians with their ranges, ratios first, and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
MORE_IS_BETTER = ("rate", "done")
LABELS = {
    "rate": "per second",
    "done": "ended well",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "first_p50_ms": "first token p50, ms",
    "first_p99_ms": "first token p99, ms",
    "closed_p50_ms": "LM's connection closed after, p50, ms",
    "closed_max_ms": "LM's connection closed after, longest, ms",
    "cpu_us": "CPU, µs per unit",
    "memory_mb": "memory, MB more",
}


def table(results: list[Result], shows: Mapping[str, Iterable[str]], titles: Mapping[str, str]) -> str:
    """Return a Markdown table: for each figure the median and the range of each system, and the first one's advantage.

    Args:
        results: one for each run of a scenario against a system.
        shows: the figures of each scenario.
        titles: the systems' titles by their names; the first is compared with each of the others.

    A scenario is marked with ``!`` where the load was short of its core in a run, or a request failed.
    """
    first, *others = titles
    head = ["scenario", "figure", titles[first], *(f"{titles[name]}" for name in others)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for scenario, figures in shows.items():
        flawed = [r for r in results if r["scenario"] == scenario and (r["load_share"] > 0.95 or r["failed"])]
        for figure in figures:
            values = {name: values_of(results, scenario, name, figure) for name in titles}
            if not any(values.values()):
                continue
            cells = [_cell(values[first])]
            cells += [f"{_cell(values[name])}{_ratio(figure, values[first], values[name])}" for name in others]
            lines.append(f"| {scenario}{'!' * bool(flawed)} | {LABELS[figure]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def values_of(results: Iterable[Result], scenario: str, system: str, figure: str) -> list[float]:
    """Return a figure of all runs of a scenario against a system."""
    found = [r.get(figure) for r in results if (r["scenario"], r["system"]) == (scenario, system)]
    return [value for value in found if value is not None]


def plot(results: list[Result], shows: Mapping[str, Iterable[str]], titles: Mapping[str, str], path: Path) -> None:
    """Draw each scenario's first figure as bars, with the range of the runs. Needs matplotlib (the extra ``plot``)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = {name: next(iter(figures)) for name, figures in shows.items()}
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.2 * len(drawn), 3.6), squeeze=False)
    for axis, (scenario, shown) in zip(axes[0], drawn.items(), strict=True):
        for place, (name, title) in enumerate(titles.items()):
            values = values_of(results, scenario, name, shown)
            if not values:
                continue
            middle = statistics.median(values)
            spread = [[middle - min(values)], [max(values) - middle]]
            axis.bar(place, middle, yerr=spread, capsize=3, color=f"C{place}", label=title)
            axis.annotate(f"{middle:.3g}", (place, max(values)), ha="center", va="bottom", fontsize=8)
        better = "more is better" if shown in MORE_IS_BETTER else "less is better"
        axis.set_title(f"{scenario}\n{LABELS[shown]} ({better})", fontsize=9)
        axis.set_xticks([])
        axis.margins(y=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    handles = {h.get_label(): h for axis in axes[0] for h in axis.containers if hasattr(h, "patches")}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=len(titles), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    middle = statistics.median(values)
    return f"{middle:g}" if len(values) == 1 else f"{middle:g} ({min(values):g} to {max(values):g})"


def _ratio(figure: str, first: list[float], other: list[float]) -> str:
    if not first or not other:
        return ""
    mine, theirs = statistics.median(first), statistics.median(other)
    better, worse = (mine, theirs) if figure in MORE_IS_BETTER else (theirs, mine)
    return f", **{better / worse:.1f}×**" if worse > 0 and better > 0 else ""
