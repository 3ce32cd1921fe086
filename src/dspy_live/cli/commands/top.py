"""``dspy-live top``: a server's statistics, live."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dspy_live.core.errors import ConfigurationError, LiveError

if TYPE_CHECKING:
    from dspy_live.cli.screens.top import History
    from dspy_live.client.http import Endpoint


def top(
    url: str = "http://127.0.0.1:8000",
    /,
    *,
    every: float = 1.0,
    count: Annotated[int | None, Parameter(alias="-n")] = None,
    api_key: str | None = None,
) -> int:
    """Watch a server: runs, rates, latencies, tokens, cost. q or Ctrl-C ends it.

    On a terminal the picture is drawn in place; in a pipe each look is printed below the other. A server that goes
    away is waited for.

    Args:
        url: the server's address.
        every: seconds between two looks.
        count: the number of looks; no end by default.
        api_key: the server's key.
    """
    from dspy_live.cli.loop import run_loop
    from dspy_live.cli.screens.top import History
    from dspy_live.client.http import Endpoint

    if not every > 0 or (count is not None and count <= 0):
        raise ConfigurationError("--every and --count must be more than 0")
    run_loop(watch(Endpoint(url, api_key), History(url), every, count))
    return 0


async def watch(endpoint: Endpoint, history: History, every: float, count: int | None) -> None:
    """Look and show until the count is reached. Raises when the very first look fails."""
    import asyncio

    from rich.console import Console
    from rich.live import Live

    from dspy_live.cli.screens.keys import pressed
    from dspy_live.cli.screens.top import screen

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process with 1

    console = Screen(file=sys.stdout)
    await _look(endpoint, history, first=True)
    seen = 1
    if not console.is_terminal:
        console.print(screen(history, console.width))
        while count is None or seen < count:
            await asyncio.sleep(every)
            await _look(endpoint, history)
            console.print("", screen(history, console.width))
            seen += 1
        return
    picture = screen(history, console.width)
    with pressed("qQ") as left, Live(picture, console=console, auto_refresh=False, screen=count is None) as live:
        while count is None or seen < count:
            with suppress(TimeoutError):
                await asyncio.wait_for(left.wait(), every)
                return
            await _look(endpoint, history)
            live.update(screen(history, console.width), refresh=True)
            seen += 1


async def _look(endpoint: Endpoint, history: History, *, first: bool = False) -> None:
    from dspy_live.client.errors import Unreachable
    from dspy_live.client.http import programs_of

    try:
        if first or history.trouble:
            listed, _ = await endpoint.ask("GET", "/programs", timeout=10.0)
            history.programs = tuple(program["name"] for program in programs_of(listed, endpoint.url))
            history.simulated = bool(listed.get("simulated"))
        stats, _ = await endpoint.ask("GET", "/stats", timeout=10.0)
    except LiveError as exc:
        if first and isinstance(exc, Unreachable):
            do = "start one with `dspy-live serve`, or give its address: dspy-live top http://HOST:PORT"
            raise Unreachable(f"no server at {endpoint.url} ({exc.message}); {do}") from exc
        if first:
            raise
        history.fail(exc.message, time.strftime("%H:%M:%S"))
        return
    history.add(time.monotonic(), stats)
