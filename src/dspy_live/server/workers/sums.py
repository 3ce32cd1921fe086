"""Add up what workers tell: statistics, readiness, and the text of Prometheus' metrics. Arithmetic alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dspy_live.server.runs.registry import percentiles

COUNTED = ("started", "succeeded", "failed", "cancelled", "refused", "tokens", "cost")
"""The statistics that only ever grow."""

_TYPE = re.compile(r"# TYPE (\S+) (\S+)")
_UNDER_WAY = re.compile(r'(?m)^(?P<prefix>\w+)_requests_active\{(?P<program>program=".*")\} (?P<count>[1-9]\S*)$')
_OF_ONE = "_layer"
"""Ends the name of gauges that can't be added, such as a limit's size: each worker's has a label instead."""


def summed_counts(each: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the sums of the statistics that only ever grow."""
    sums: dict[str, float] = dict.fromkeys(COUNTED, 0)
    for statistics in each:
        for name in COUNTED:
            sums[name] += statistics.get(name, 0)
    return sums | {"cost": round(sums["cost"], 10)}


def summed_statistics(
    live: Sequence[Mapping[str, Any]],
    dead: Mapping[str, float],
    durations: Sequence[float],
    first: Sequence[float],
    uptime: float,
) -> dict[str, Any]:
    """Return the statistics of the whole server, in the form of one worker's.

    Args:
        live: those of each worker that lives.
        dead: the sums of those that are gone.
        durations: seconds of the last runs of all.
        first: seconds until the first token of the last runs of all.
        uptime: seconds since the server's start.
    """
    limits = [one.get("max_active") for one in live]
    return {
        "active": sum(one["active"] for one in live),
        "max_active": None if None in limits else sum(limits),
        "draining": all(one["draining"] for one in live),
        "uptime_s": round(uptime, 3),
        **summed_counts([*live, dead]),
        "duration_ms": percentiles(durations),
        "first_token_ms": percentiles(first),
        "workers": len(live),
    }


def summed_readiness(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the readiness of the whole server, which is ready while one of its workers is.

    ``each`` is what the workers say; the first says the rest for all. What is known of the LM is the last that any
    worker has heard.
    """
    ready = [one for one in each if one["status"] == "ready"]
    limits = [one["max_active"] for one in each]
    heard = [one["lm"] for one in each if one["lm"]["heard_s"] is not None]
    return {
        **each[0],
        "status": "ready" if ready else each[0]["status"],
        "active": sum(one["active"] for one in each),
        "max_active": None if None in limits else sum(limits),
        "lm": min(heard, key=lambda lm: lm["heard_s"]) if heard else each[0]["lm"],
        "workers": len(each),
        "workers_ready": len(ready),
    }


def merged_texts(texts: Iterable[tuple[str, str]]) -> str:
    """Return one text of metrics for several: the sums of series that have the same name and labels.

    Args:
        texts: each worker's number and its text, in Prometheus' format 0.0.4.
    """
    heads: dict[str, list[str]] = {}
    sums: dict[str, dict[str, float]] = {}
    for worker, text in texts:
        family, kind = "", ""
        for line in text.splitlines():
            if line.startswith("#"):
                words = line.split(" ", 3)
                if words[2] != family:
                    family, kind = words[2], ""
                    fresh = family not in heads
                    sums.setdefault(family, {})
                    heads.setdefault(family, [])
                if match := _TYPE.match(line):
                    kind = match[2]
                if fresh:
                    heads[family].append(line)
            elif line:
                name, _, value = line.rpartition(" ")
                if worker and kind == "gauge" and family.endswith(_OF_ONE) and name.endswith("}"):
                    name = f'{name[:-1]},worker="{worker}"}}'
                of = sums.setdefault(family, {})
                of[name] = of.get(name, 0.0) + float(value)
    return "".join(_family(lines, sums[family]) for family, lines in heads.items())


def lost_runs(text: str) -> str:
    """Return a text in which the runs under way of another text are runs that have failed: their worker has died."""
    lost = ""
    for match in _UNDER_WAY.finditer(text):
        name = f"{match['prefix']}_requests_total"
        if not lost:
            lost = f"# HELP {name} Runs that have ended, by outcome.\n# TYPE {name} counter\n"
        lost += f'{name}{{outcome="error",{match["program"]}}} {match["count"]}\n'
    return lost


def counters_only(text: str) -> str:
    """Return a text of metrics without its gauges: what is left of a worker that is gone."""
    kept, gauge = [], False
    for part in re.split(r"(?m)^(?=# HELP )", text):
        gauge = (match := _TYPE.search(part)) is not None and match[2] == "gauge"
        if not gauge:
            kept.append(part)
    return "".join(kept)


def _family(lines: Sequence[str], series: Mapping[str, float]) -> str:
    return "".join(f"{line}\n" for line in (*lines, *(f"{name} {value!r}" for name, value in series.items())))
