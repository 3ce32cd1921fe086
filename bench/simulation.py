"""A core that serves streams, simulated event by event: how busy it is, and how late a token is that passes through it.

    python bench/simulation.py [docs/images/scaling.json]     beside what bench/scaling.py has measured

The server is one loop. It takes all connections that have something for it, serves them one after the other, and looks
again. What it costs are three numbers, which are taken from the measurements:

    begin   for a reply, apart from its tokens: from the request to the last frame
    wake    for a connection that has something
    chunk   for each chunk that is there by then

So a busy server is cheaper per token: chunks gather while it is elsewhere. Polling systems with gated service are the
textbook's name for it (H. Takagi, "Analysis of Polling Systems", 1986).
"""

from __future__ import annotations

import heapq
import json
import random
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_plot import medians

MEASURED = Path(__file__).resolve().parent.parent / "docs" / "images" / "scaling.json"
AT_ONCE = 10
"""Chunks that the LM of the measured replies sends together."""


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU."""

    begin: float
    wake: float
    chunk: float


@dataclass(frozen=True)
class Outcome:
    """What came of a simulation. Times are seconds; a delay is from a token's arrival to its departure."""

    share: float
    replies_per_s: float
    reply_cpu: float
    delay_p50: float
    delay_p99: float


def costs(measured: Mapping[str, Any]) -> Costs:
    """Return the costs that follow from the results of ``bench/scaling.py``: two lines through its measurements."""
    reply = medians(measured["tokens"], "tokens", "reply_us")
    (least, first), (most, last) = min(reply.items()), max(reply.items())
    together = (last - first) / (most - least) * AT_ONCE  # a wake and ten chunks
    alone = statistics.median(point["token_us"] for point in measured["streams"])  # a wake and one chunk
    chunk = max(0.0, (together - alone) / (AT_ONCE - 1))
    return Costs((first - together * least / AT_ONCE) / 1e6, (alone - chunk) / 1e6, chunk / 1e6)


def one_core(clients: int, tokens: int, interval: float, cost: Costs, seconds: float, seed: int = 1) -> Outcome:
    """Simulate clients that ask again and again for ``tokens`` tokens, which an LM sends every ``interval`` seconds."""
    chance = random.Random(seed)
    arrivals = [(chance.random() * interval, client, chance.randint(1, tokens)) for client in range(clients)]
    heapq.heapify(arrivals)
    now = busy = 0.0
    done = 0
    delays: list[float] = []
    warm = 20 * interval
    while now < warm + seconds:
        now = max(now, arrivals[0][0])
        ready: dict[int, list[float]] = {}
        begins: list[int] = []
        while arrivals and arrivals[0][0] <= now:
            at, client, left = heapq.heappop(arrivals)
            if left > tokens:
                begins.append(client)
                continue
            ready.setdefault(client, []).append(at)
            if left > 1:
                heapq.heappush(arrivals, (at + interval, client, left - 1))
            else:
                begins.append(-client - 1)
        began = now
        for waiting in ready.values():
            now += cost.wake + cost.chunk * len(waiting)
            if now > warm:
                delays += [now - at for at in waiting]
        for client in begins:
            if client >= 0:
                now += cost.begin
                heapq.heappush(arrivals, (now + interval, client, tokens))
            else:
                heapq.heappush(arrivals, (now, -client - 1, tokens + 1))
                done += now > warm
        if now > warm:
            busy += now - max(began, warm)
    delays.sort()
    over = now - warm
    return Outcome(
        busy / over,
        done / over,
        busy / max(1, done),
        delays[len(delays) // 2],
        delays[int(len(delays) * 0.99)],
    )


def most_clients(tokens: int, interval: float, cost: Costs, late: float, seconds: float = 3.0) -> int:
    """Return how many streams a core holds, within 2 %, where 99 of 100 tokens are late by ``late`` seconds at most."""
    low, high = 1, 2
    while one_core(high, tokens, interval, cost, seconds).delay_p99 <= late:
        low, high = high, high * 2
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        if one_core(middle, tokens, interval, cost, seconds).delay_p99 <= late:
            low = middle
        else:
            high = middle
    return low


def beside(measured: Mapping[str, Any]) -> str:
    """Return the simulation of what was measured beside it, as a Markdown table."""
    cost = costs(measured)
    lines = [
        f"begin {cost.begin * 1e6:.0f} µs, wake {cost.wake * 1e6:.1f} µs, chunk {cost.chunk * 1e6:.1f} µs",
        "",
        "| clients | CPU per reply, measured | simulated | | a reply takes, measured | simulated | |",
        "|---|---|---|---|---|---|---|",
    ]
    lasted = medians(measured["mixed"], "clients", "p50_ms")
    for clients, reply in medians(measured["mixed"], "clients", "reply_us").items():
        tokens = next(point["tokens"] for point in measured["mixed"] if point["clients"] == clients)
        found = one_core(clients, tokens, 0.02, cost, 5.0)
        takes = clients / found.replies_per_s * 1000
        cells = [f"{reply:.0f} µs", f"{found.reply_cpu * 1e6:.0f} µs", f"{found.reply_cpu * 1e6 / reply - 1:+.0%}"]
        cells += [f"{lasted[clients]:.0f} ms", f"{takes:.0f} ms", f"{takes / lasted[clients] - 1:+.0%}"]
        lines.append(f"| {clients} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else MEASURED
    print(beside(json.loads(path.read_text())))
