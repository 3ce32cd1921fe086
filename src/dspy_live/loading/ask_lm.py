"""Is the LM there? Asked without a token where its endpoint can list its models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dspy

from dspy_live.core.errors import LMFailed
from dspy_live.programs.lm.endpoints import endpoint_for
from dspy_live.programs.lm.lm import LM, adopt
from dspy_live.programs.lm.openai_endpoint import OpenAIEndpoint
from dspy_live.programs.lm.seam.lm_call import chat_call
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.http.transport import pool_for_running_loop

_CHAT = "/chat/completions"


def asker_of(services: Iterable[ProgramService]) -> Callable[[], Awaitable[None]]:
    """Return a coroutine function that asks every LM of these programs, and raises where one is not there.

    An OpenAI-compatible endpoint is asked for its list of models, which costs nothing; what it answers does not matter
    unless it is a server's error or refuses the key. Any other LM is asked for one token, past the cache. An LM that
    answers in this process, and one that is no ``dspy.LM``, are not asked.
    """
    listed = list(services)

    async def ask() -> None:
        found = {id(lm): lm for service in listed for lm in _lms_of(service)}
        async with asyncio.TaskGroup() as group:
            for lm in found.values():
                group.create_task(ask_lm(lm))

    async def first_failure() -> None:
        try:
            await ask()
        except* Exception as group:
            raise group.exceptions[0] from None

    return first_failure


async def ask_lm(lm: Any) -> None:
    """Ask one LM whether it is there. Raises :class:`~dspy_live.core.errors.LMFailed`, or what the LM raises."""
    ours = adopt(lm)
    if not isinstance(ours, LM) or ours.live.endpoint is not None:
        return
    endpoint = endpoint_for(ours, chat_call(ours, {**ours.kwargs, "messages": [{"role": "user", "content": "hi"}]}))
    if not isinstance(endpoint, OpenAIEndpoint):
        await ours.copy(cache=False, num_retries=0).acall("hi", max_tokens=1)
        return
    url = urlsplit(endpoint.url)
    models = urlunsplit(url._replace(path=url.path.removesuffix(_CHAT) + "/models"))
    async with pool_for_running_loop().exchange("GET", models, endpoint.headers, b"", endpoint.timeouts) as exchange:
        await exchange.headers_received()
        if exchange.status >= 500 or exchange.status in (401, 403):
            raise LMFailed(f"the LM's endpoint answered {exchange.status}")


def _lms_of(service: ProgramService) -> list[Any]:
    program = service.program
    predictors = program.predictors() if isinstance(program, dspy.Module) else []
    default = service._settings.get("lm") or dspy.settings.lm  # what it was pinned to, or what is configured now
    return [lm for lm in {id(one): one for one in (*(p.lm for p in predictors), default)}.values() if lm is not None]
