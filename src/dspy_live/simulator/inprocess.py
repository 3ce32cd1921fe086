"""The simulated LM without a socket: what commands use where no LM is configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from dspy_live.simulator.brain import Brain
from dspy_live.simulator.completion import DONE
from dspy_live.simulator.options import Options
from dspy_live.simulator.plan import Plan


class InProcessLM:
    """Answers chat-completions requests in the process, paced like a real LM; knows no faults.

    Args:
        seed: another seed gives other answers.
        ttft: seconds before the first token.
        tokens_per_second: pace after it; ``None`` does not wait.
        jitter: share by which each wait varies, 0 to 1.
        length: tokens of a reply's last text field; ``None`` is some whole sentences, by the seed.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        ttft: float = 0.0,
        tokens_per_second: float | None = None,
        jitter: float = 0.0,
        length: int | None = None,
    ) -> None:
        options = {"ttft": ttft, "tps": tokens_per_second, "jitter": jitter, "length": length}
        self._brain = Brain(seed, Options().but(options))

    def complete_now(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The ``chat.completion`` object, without any wait."""
        return self._brain.complete(body, self._brain.options_for({}, body).but({"fault": None})).whole()

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The same after the time that a real LM would take. Cancelling it costs nothing."""
        options = self._brain.options_for({}, body)
        made = self._brain.complete(body, options.but({"fault": None})).whole()
        tokens = made["usage"]["completion_tokens"]
        await asyncio.sleep(options.ttft + (tokens / options.tps if options.tps else 0.0))
        return made

    async def frames(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The reply as server-sent events, paced: the bytes that an OpenAI-compatible server would send.

        Usage comes where the request has ``stream_options.include_usage``; ``data: [DONE]`` is the last.
        Leaving the iteration ends it.
        """
        options = self._brain.options_for({}, body).but({"fault": None})
        completion = self._brain.complete(body, options)
        loop = asyncio.get_running_loop()
        due = loop.time()
        for action in Plan(completion, options, self._brain.rng()).paced():
            due += action.wait
            if due > (now := loop.time()):
                await asyncio.sleep(due - now)
            elif action.tokens and options.tps is None:
                await asyncio.sleep(0)
            yield action.data or b""
        if (body.get("stream_options") or {}).get("include_usage"):
            yield completion.usage_frame().data
        yield DONE

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The text of the first completion, token by token, paced. Leaving the iteration ends it."""
        options = self._brain.options_for({}, body)
        made = self._brain.complete({**body, "n": 1}, options.but({"fault": None}))
        loop = asyncio.get_running_loop()
        due = loop.time() + options.ttft
        for token in made.texts():
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield token
            due += 1.0 / options.tps if options.tps else 0.0
