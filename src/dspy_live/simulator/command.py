"""The body of ``dspy-live sim``: the simulated LM as a server, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Any, cast

from dspy_live.simulator.faults import FaultName, Faults
from dspy_live.simulator.server import Simulator


def run_sim(
    host: str = "127.0.0.1",
    port: int = 8001,
    *,
    seed: int = 0,
    ttft: float = 0.2,
    tokens_per_second: float | None = 50.0,
    jitter: float = 0.2,
    length: int | None = None,
    faults: Mapping[str, float] | None = None,
    api_key: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the simulated LM until SIGINT or SIGTERM.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        seed: another seed gives other answers, jitter and faults.
        ttft: seconds before the first token.
        tokens_per_second: pace after it; ``None`` or 0 is as fast as the socket takes them.
        jitter: share by which each wait varies, 0 to 1.
        length: tokens of a reply's last text field; ``None`` is 24 to 64, by the seed.
        faults: a fault's name and its probability, e.g. ``{"429": 0.1, "cut": 0.05}``; ``"all"`` shares its
            probability among all faults.
        api_key: requests without it are refused with 401.
        say: where the line with the address goes, once it listens.

    Raises:
        ValueError: for an unknown fault or an impossible number.
        OSError: when it can't listen there.
    """
    rates = dict(faults or {})
    shared = rates.pop("all", 0.0)
    chosen = Faults.every(shared) if shared else Faults()
    chosen = Faults({**chosen.rates, **cast("dict[FaultName, float]", rates)})
    simulator = Simulator(
        seed,
        ttft=ttft,
        tokens_per_second=tokens_per_second or None,
        jitter=jitter,
        length=length,
        faults=chosen,
        api_key=api_key,
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(simulator, host, port, say))


async def _serve(simulator: Simulator, host: str, port: int, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    url = await simulator.start(host, port)
    say(f"Simulated LM on {url} (any model name; --api-base {url})")
    await end.wait()
    await simulator.stop()


def loop_factory() -> Callable[[], Any]:
    """uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
