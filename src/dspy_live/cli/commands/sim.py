"""``dspy-live sim``: the simulated LM behind a socket of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from dspy_live.simulator import Faults


def sim(
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    seed: int = 0,
    ttft: float = 0.3,
    tps: float = 60.0,
    jitter: float = 0.2,
    length: int | None = None,
    fast: Annotated[bool, Parameter(negative="")] = False,
    fault: Annotated[tuple[str, ...], Parameter(negative="", negative_iterable="")] = (),
    api_key: str | None = None,
) -> int:
    """Start the simulated LM as an OpenAI-compatible server, until Ctrl-C.

    It answers in the format that the adapter's prompt asks for, with plausible text.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        seed: another seed gives other answers.
        ttft: seconds before the first token.
        tps: tokens per second after it.
        jitter: share by which each wait varies, 0 to 1.
        length: tokens of the last text field of a reply; some whole sentences by default.
        fast: no waits at all.
        fault: NAME=RATE, such as 429=0.1 or cut=0.05; may be given several times.
        api_key: refuse requests without this key.
    """
    import asyncio

    from dspy_live.cli.loop import run_loop
    from dspy_live.core.errors import ConfigurationError
    from dspy_live.simulator import Simulator

    if not 0 <= port <= 65_535:
        raise ConfigurationError(f"a port is a number from 0 to 65535; got {port}")
    try:
        simulator = Simulator(
            seed,
            ttft=0.0 if fast else ttft,
            tokens_per_second=None if fast else tps,
            jitter=0.0 if fast else jitter,
            length=length,
            faults=_faults(fault),
            api_key=api_key,
        )
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from exc

    async def serve() -> None:
        url = await simulator.start(host, port)
        print(f"simulated LM on {url}  (Ctrl-C ends it)")
        print(f"  dspy-live run 'question -> answer' 'Why?' --lm openai/simulated --api-base {url} --api-key any")
        print(flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await simulator.stop()

    try:
        run_loop(serve())
    except OSError as exc:
        raise ConfigurationError(f"can't listen on {host} port {port}: {exc.strerror or exc}") from exc
    return 0


def _faults(given: tuple[str, ...]) -> Faults:
    from dspy_live.core.errors import ConfigurationError
    from dspy_live.simulator import Faults

    rates: dict[Any, float] = {}
    for item in given:
        name, _, rate = item.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError:
            raise ConfigurationError(f"--fault takes NAME=RATE, such as 429=0.1; got {item!r}") from None
    return Faults(rates)
