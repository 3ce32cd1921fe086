"""What a site needs for ten streams, and for each power of ten up to a million: machines, the bottleneck, money.

    python bench/simulated_site.py [docs/images/scaling.json]

How many streams a core holds comes from :mod:`simulation`, with costs that ``bench/scaling.py`` has measured; what
balancer, Redis and PostgreSQL cost from ``bench/site_cost.py``. The rest are assumptions, all of them in
:class:`Assumptions`: change them to your own.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_plot import medians
from simulation import MEASURED, costs, most_clients

MONTH = 730 * 3600
"""Seconds."""


@dataclass(frozen=True)
class Assumptions:
    """The work, what was measured elsewhere, and prices in US dollars. All streams are there all month."""

    tokens_per_s: float = 20.0
    """Of each stream; the LM sends each token as a chunk of its own."""
    tokens: int = 300
    late: float = 0.05
    """Seconds by which 99 of 100 tokens are late at most in a server."""
    used: float = 0.6
    """Share of what a core can do that it is given to do: the rest is for peaks, and for a machine that fails."""
    balancer_token: float = 21e-6
    """Seconds of CPU, measured."""
    redis_token: float = 40e-6
    """Seconds of CPU for each token of a run that is kept in Redis, measured."""
    kept: float = 0.1
    """Share of the streams that are runs of ``POST /runs``."""
    rows: float = 100e-6
    """Seconds of PostgreSQL's CPU for the rows of each run, measured."""
    frame: int = 176
    """Bytes of a token on the wire: 110 of the frame, 66 of TCP, IP and Ethernet."""
    core: float = 25.0
    """A month of a core with 4 GB."""
    gigabyte: float = 0.05
    """A GB to the clients."""
    lm_tokens_per_s: float = 2500.0
    """What one accelerator generates for many streams at once."""
    lm: float = 1500.0
    """A month of that accelerator."""


@dataclass(frozen=True)
class Site:
    """What so many streams need: cores of each part, GB of memory, and dollars a month."""

    streams: int
    servers: int
    memory: float
    balancers: int
    redis: int
    postgres: int
    accelerators: int
    gbit_per_s: float
    machines_cost: float
    traffic_cost: float
    lm_cost: float


def site(streams: int, per_core: int, memory_kb: float, given: Assumptions) -> Site:
    """Return what so many streams need, where a server's core holds ``per_core`` of them."""
    tokens = streams * given.tokens_per_s

    def cores(seconds_per_token: float) -> int:
        return max(1, math.ceil(tokens * seconds_per_token / given.used))

    servers = max(1, math.ceil(streams / (per_core * given.used)))
    balancers, redis = cores(given.balancer_token), cores(given.redis_token * given.kept)
    postgres = cores(given.rows / given.tokens)
    accelerators = max(1, math.ceil(tokens / given.lm_tokens_per_s))
    bytes_per_s = tokens * given.frame
    return Site(
        streams,
        servers,
        servers * 0.1 + streams * memory_kb / 1e6,
        balancers,
        redis,
        postgres,
        accelerators,
        bytes_per_s * 8 / 1e9,
        (servers + balancers + redis + postgres) * given.core,
        bytes_per_s * MONTH / 1e9 * given.gigabyte,
        accelerators * given.lm,
    )


_HEAD = ("streams", "tokens/s", "server cores", "memory, GB", "balancer cores", "Redis cores", "PostgreSQL cores")
_HEAD += ("Gbit/s", "accelerators", "machines, $", "traffic, $", "LM, $")


def table(measured: Mapping[str, Any], given: Assumptions) -> str:
    """Return the sites of all powers of ten, as Markdown."""
    per_core = most_clients(given.tokens, 1 / given.tokens_per_s, costs(measured), given.late)
    memory = max(medians(measured["streams"], "streams", "memory_kb").items())[1]
    lines = [
        f"A core holds {per_core:,} streams and is given {per_core * given.used:,.0f}; a stream takes {memory:.0f} kB.",
        "",
        f"| {' | '.join(_HEAD)} |",
        "|" + "---|" * len(_HEAD),
    ]
    for power in range(1, 7):
        one = site(10**power, per_core, memory, given)
        cells = [one.streams, one.streams * given.tokens_per_s, one.servers, one.memory, one.balancers, one.redis]
        cells += [one.postgres, one.gbit_per_s, one.accelerators, one.machines_cost, one.traffic_cost, one.lm_cost]
        lines.append("| " + " | ".join(_short(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else MEASURED
    print(table(json.loads(path.read_text()), Assumptions()))
