"""The picture and the table of ``bench/scaling.py``'s results."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Points = Sequence[dict[str, Any]]


def medians(points: Points, by: str, of: str) -> dict[int, float]:
    """Return the median of a figure over the rounds, by the number of streams or of tokens."""
    return {
        place: statistics.median(point[of] for point in points if point[by] == place)
        for place in sorted({point[by] for point in points})
    }


def further_tokens(tokens: Points) -> dict[int, float]:
    """Return the CPU of each further token of a reply, in µs, from each length to the next."""
    cost = medians(tokens, "tokens", "reply_us")
    return {b: (cost[b] - cost[a]) / (b - a) for a, b in itertools.pairwise(cost)}


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the results into a PNG. Needs matplotlib (the extra ``plot``)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4))
    streams = found["streams"]
    for axis, of, title in zip(
        axes,
        ("begin_us", "token_us", "memory_kb"),
        ("CPU to begin a stream, µs", "CPU per token, µs", "memory per stream, kB"),
        strict=False,
    ):
        enough = [point for point in streams if of == "token_us" or point["streams"] >= 200]
        axis.scatter([p["streams"] for p in enough], [p[of] for p in enough], s=10, color="C7")
        _line(axis, medians(enough, "streams", of), "streams that are open", title)
    _line(axes[3], further_tokens(found["tokens"]), "tokens of a reply", "CPU per further token of a reply, µs")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(axis: Any, values: dict[int, float], x: str, title: str) -> None:
    axis.plot(list(values), list(values.values()), marker="o", color="C0")
    for place, value in values.items():
        axis.annotate(
            f"{value:.3g}", (place, value), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8
        )
    axis.set_xscale("log")
    axis.set_xticks(
        list(values), [f"{place // 1000}k" if place >= 1000 else str(place) for place in values], fontsize=8
    )
    axis.set_xticks([], minor=True)
    axis.set_ylim(0, max(values.values()) * 1.4)
    axis.set_xlabel(x, fontsize=9)
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.15)


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    streams, tokens = found["streams"], found["tokens"]
    begin, each, memory = (medians(streams, "streams", of) for of in ("begin_us", "token_us", "memory_kb"))
    lines = ["| open streams | CPU to begin one, µs | CPU per token, µs | memory of each, kB |", "|---|---|---|---|"]
    for n in begin:
        few = n < 200  # what a process takes at once is then more than what the streams do
        lines.append(
            f"| {n:,} | {'–' if few else f'{begin[n]:.0f}'} | {each[n]:.0f} | {'–' if few else f'{memory[n]:.0f}'} |"
        )
    reply, held = medians(tokens, "tokens", "reply_us"), medians(tokens, "tokens", "memory_kb")
    further = further_tokens(tokens)
    lines += [
        "",
        "| tokens of a reply | CPU per reply, ms | CPU per further token, µs | memory, kB |",
        "|---|---|---|---|",
    ]
    for n in reply:
        lines.append(
            f"| {n:,} | {reply[n] / 1000:.2f} | {f'{further[n]:.1f}' if n in further else '–'} | {held[n]:,.0f} |"
        )
    request = statistics.median(point["reply_us"] for point in found["requests"])
    return "\n".join([*lines, "", f"A request that does not stream: {request:.0f} µs."])
