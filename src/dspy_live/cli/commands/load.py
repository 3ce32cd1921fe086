"""``dspy-live load``: how much a server takes, and how quickly it answers meanwhile."""

from __future__ import annotations

import json as slow_json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dspy_live.core.errors import ConfigurationError, LiveError, NotFound

if TYPE_CHECKING:
    from dspy_live.cli.load.drive import Ask, Sample
    from dspy_live.client import AsyncClient


def load(
    url: str,
    /,
    *,
    concurrency: Annotated[int, Parameter(alias="-c")] = 32,
    rate: float | None = None,
    seconds: float = 10.0,
    requests: Annotated[int | None, Parameter(alias="-n")] = None,
    stream: Annotated[bool, Parameter(negative="")] = False,
    program: str | None = None,
    inputs: str | None = None,
    api_key: str | None = None,
    timeout: float = 120.0,
    json: Annotated[bool, Parameter(negative="")] = False,
    png: Path | None = None,
) -> int:
    """Load a server and report rates, latencies and errors.

    A closed loop keeps so many runs under way (--concurrency); an open loop begins so many a second (--rate),
    whatever the server does, and counts latency from when a run was due. The exit status is 1 when no run went well.

    Args:
        url: the server's address, such as http://127.0.0.1:8000.
        concurrency: runs under way at once, in a closed loop.
        rate: runs a second, in an open loop.
        seconds: how long runs are begun.
        requests: the most runs.
        stream: read server-sent events, and measure the time to the first token.
        program: a program of the server; its default one otherwise.
        inputs: a JSON object; {n} in its texts becomes the run's number. Made up from the program's fields otherwise.
        api_key: the server's key.
        timeout: seconds for one run.
        json: print the measurements as JSON.
        png: draw latency over time into this file.
    """
    from dspy_live.cli.load.drive import Load, drive
    from dspy_live.cli.load.report import check_png, draw, draw_png, measurements, show
    from dspy_live.cli.loop import run_loop
    from dspy_live.client import AsyncClient

    numbers = {"concurrency": concurrency, "rate": rate, "seconds": seconds, "requests": requests, "timeout": timeout}
    for name, value in numbers.items():
        if value is not None and not value > 0:
            raise ConfigurationError(f"--{name} must be more than 0; got {value}")
    if png is not None:
        check_png(png)
    client = AsyncClient(url, api_key=api_key, program=program)

    async def go() -> Load:
        make = made_up(await described(client, program)) if inputs is None else from_text(inputs)
        ask = (streaming if stream else plain)(client, make, timeout)
        return await drive(ask, seconds=seconds, concurrency=concurrency, rate=rate, requests=requests)

    found = run_loop(go())
    summary = measurements(found)
    how = f"open loop, {rate:g} runs a second" if rate is not None else f"closed loop, {concurrency} at once"
    title = f"{url}: {how}{', streaming' if stream else ''}"
    if json:
        print(slow_json.dumps({"url": url, "loop": "open" if rate is not None else "closed", **summary}))
    else:
        show(summary, title, sys.stdout)
        draw(found, sys.stdout)
    if png is not None:
        draw_png(found, png, title)
    if found.interrupted:
        return 130
    return 0 if summary["runs"] > summary["failed"] else 1


def plain(client: AsyncClient, make: Callable[[int], dict[str, Any]], timeout: float) -> Ask:
    """Return the function that runs a program and takes its outputs whole."""

    async def ask(number: int, sample: Sample) -> None:
        try:
            await client.predict(make(number), timeout=timeout)
        except LiveError as exc:
            sample.error = exc.code

    return ask


def streaming(client: AsyncClient, make: Callable[[int], dict[str, Any]], timeout: float) -> Ask:
    """Return the function that runs a program and reads its events."""
    import asyncio

    from dspy_live.core.events import Token

    async def ask(number: int, sample: Sample) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with client.stream(make(number), timeout=timeout) as run:
                while batch := await run.receive_many():
                    tokens = sum(type(event) is Token for event in batch)
                    if tokens and sample.first is None:
                        sample.first = loop.time()
                    sample.tokens += tokens
        except LiveError as exc:
            sample.error = exc.code

    return ask


async def described(client: AsyncClient, program: str | None) -> dict[str, Any]:
    """Return the description of a program of the server. Raises :class:`NotFound`."""
    programs = await client.programs()
    for found in programs:
        if program in (None, found["name"]):
            return found
    raise NotFound(f"no program {program!r}; the server has {', '.join(p['name'] for p in programs)}")


def made_up(program: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    """Return the function that makes a program's inputs for each run; :class:`ConfigurationError` where it can't."""
    samples: dict[str, Callable[[int], Any]] = {
        "str": lambda n: f"What would you say about the number {n}?",
        "int": lambda n: n,
        "float": lambda n: n / 2,
        "bool": lambda n: n % 2 == 0,
        "list[str]": lambda n: [f"item {n}", f"item {n + 1}"],
    }
    makers = {}
    for field in program["inputs"]:
        maker = samples.get(field["type"])
        if maker is not None and field["required"]:
            makers[field["name"]] = maker
        elif field["required"]:
            raise ConfigurationError(
                f"no inputs can be made up for {field['name']!r}, which is {field['type']}: give --inputs"
            )
    if not makers and not program["inputs"]:
        raise ConfigurationError("the program's inputs are not known: give --inputs")
    return lambda number: {name: maker(number) for name, maker in makers.items()}


def from_text(text: str) -> Callable[[int], dict[str, Any]]:
    """Return the function that makes inputs from a JSON object with ``{n}`` in its texts."""
    try:
        values = slow_json.loads(text)
    except ValueError as exc:
        raise ConfigurationError(f"--inputs is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise ConfigurationError("--inputs must be a JSON object with one key per input")

    def make(number: int) -> dict[str, Any]:
        return {k: v.replace("{n}", str(number)) if isinstance(v, str) else v for k, v in values.items()}

    return make
