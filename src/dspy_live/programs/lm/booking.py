"""Books each request where it is sent, inside of all layers: a retry's failed tries cost money too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Reasoning, Result, TextDelta, Token, Usage
from dspy_live.core.outlet import Outlet, outlet_of
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.core.usage import NOTHING, CacheUse, Expected, LMRecord, LMUsage
from dspy_live.programs.internals import CallResult
from dspy_live.programs.lm.errors import as_dspy_error
from dspy_live.programs.lm.reply_facts import is_cut, reply_facts
from dspy_live.programs.lm.results import text_of
from dspy_live.runtime.books.account import Account

NO_TEXT = 4_000
"""Characters of text that an image, a recording or a file in a prompt counts as: a guess, of a thousand tokens."""


class Booking:
    """A layer that asks the meters before each request to an LM and books its tokens and cost; the reply gets its cost.

    It pushes one ``Usage`` for each reply. A request that fails or is cancelled after it has begun to answer is booked
    with an estimate, any other failed one with nothing.

    Args:
        model: the LM's name, which has its price.
        account: where to book.
        looked_up: the call was looked up in the cache and not found: its first request is booked as a cache miss.
        server: host and port of the endpoint, as ``"api.openai.com:443"``; empty where they are not known.

    Raises :class:`~dspy_live.core.errors.BudgetExceeded` where a meter refuses the request.
    """

    kind: ClassVar[str] = "booking"

    def __init__(self, model: str, account: Account, *, looked_up: bool = False, server: str = "") -> None:
        self.model = model
        self.account = account
        self.server = server
        self._next_use: CacheUse = "miss" if looked_up else "off"

    def __repr__(self) -> str:
        return f"Booking({self.model!r})"

    def __call__(self, service: Service) -> Service:
        async def booked(call: Call, sink: Sink) -> Result:
            use, self._next_use = self._next_use, "off"
            account = self.account
            meters = account.in_force(call.meters)
            if meters:
                meters = await account.admit_async(meters, partial(self._expected, call))
            reply_meter = _ReplyMeter(sink)
            try:
                reply = await service(call, reply_meter)
                if not isinstance(reply, Completion):
                    raise TypeError(f"an LM's endpoint returns a Completion, not {reply!r}")
                usage = _usage_of(reply.response, call)
            except BaseException as exc:
                account.record(self._failed(call, use, reply_meter, exc), meters)
                raise
            cost = reply.cost if reply.cost is not None else account.price(self.model, usage)
            model, reasons = reply_facts(reply.response)
            record = lm_record(
                call, self.model, usage, cost, use, latency=reply_meter.elapsed(), ttft=reply_meter.first,
                streamed=call.stream, response_model=model, finish_reasons=reasons, server=self.server,
            )  # fmt: skip
            account.record(record, meters)
            sink.push(usage_event(call, self.model, usage, cost, truncated=is_cut(reasons)))
            return Completion(reply.response, cost)

        return booked

    def _failed(self, call: Call, use: CacheUse, reply_meter: _ReplyMeter, exc: BaseException) -> LMRecord:
        usage = _estimate(call, reply_meter.length) if reply_meter.first is not None else NOTHING
        cost = self.account.price(self.model, usage) if usage else None
        return lm_record(
            call, self.model, usage, cost, use, error=self._name_of(exc), latency=reply_meter.elapsed(),
            ttft=reply_meter.first, streamed=call.stream, server=self.server,
        )  # fmt: skip

    def _expected(self, call: Call) -> Expected:
        prompt = LMUsage.estimate(prompt_length(call.inputs.get("messages") or ()), 0).prompt_tokens
        most = call.inputs.get("max_tokens") or call.inputs.get("max_completion_tokens")
        return self.account.expect(self.model, prompt, most if isinstance(most, int) else None)

    def _name_of(self, error: BaseException) -> str:
        return type(as_dspy_error(error, self.model)).__name__


class _ReplyMeter:
    """A sink that measures when the reply's first word comes and how long its text is."""

    __slots__ = ("_now", "_sink", "_started", "first", "length", "room")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._now = asyncio.get_running_loop().time
        self._started = self._now()
        self.first: float | None = None
        self.length = 0
        self.room = sink.room

    def push(self, event: Event) -> bool:
        kind = type(event)
        if (kind is TextDelta or kind is Reasoning) and event.text:  # type: ignore[union-attr]
            self.length += len(event.text)  # type: ignore[union-attr]
            if self.first is None:
                self.first = self._now() - self._started
        return self._sink.push(event)

    def outlet(self, token: Token | None) -> Outlet | None:
        outlet = None if self.first is None else outlet_of(self._sink, token)
        if outlet is not None:
            outlet.passed.append(self._passed)
        return outlet

    def _passed(self, text: str) -> None:
        self.length += len(text)

    def elapsed(self) -> float:
        """Return the seconds since the request was sent."""
        return self._now() - self._started


def lm_record(call: Call, model: str, usage: LMUsage, cost: float | None, use: CacheUse, **more: Any) -> LMRecord:
    """Return the record of one request of ``call``, or of an answer from the cache."""
    origin = call.origin
    return LMRecord(
        model=model,
        run=origin.run,
        program=origin.program,
        predictor=origin.predictor,
        modules=origin.modules,
        lm_call=origin.lm_call,
        usage=usage,
        cost=cost,
        cache=use,
        key=call.key,
        **more,
    )


def usage_event(
    call: Call, model: str, usage: LMUsage, cost: float | None, *, cached: bool = False, truncated: bool = False
) -> Usage:
    """Return the event for one request of ``call``, or for an answer from the cache."""
    return Usage(
        model, call.origin.predictor, call.origin.lm_call, usage.prompt_tokens, usage.completion_tokens,
        usage.total_tokens, usage.cached_tokens, usage.reasoning_tokens, cost, cached, usage.estimated,
        truncated,
    )  # fmt: skip


def _usage_of(response: Any, call: Call) -> LMUsage:
    """The provider's own count, or an estimate where it does not count."""
    if isinstance(response, CallResult):
        return LMUsage.parse(response.usage) or _estimate(call, sum(len(text_of(o)) for o in response.outputs))
    reply = response or {}
    reported = LMUsage.parse(reply.get("usage"))
    if reported is not None:
        return reported
    messages = [choice.get("message") or {} for choice in reply.get("choices") or ()]
    return _estimate(call, sum(len(message.get("content") or "") for message in messages))


def _estimate(call: Call, length: int) -> LMUsage:
    return LMUsage.estimate(prompt_length(call.inputs.get("messages") or ()), length)


def prompt_length(messages: Iterable[Any]) -> int:
    """Return how many characters of text a prompt has; a part that is no text counts as :data:`NO_TEXT`."""
    return sum(_length(message.get("content")) for message in messages if isinstance(message, Mapping))


def _length(content: Any) -> int:
    if not isinstance(content, list):
        return len(str(content or ""))
    return sum(_part_length(part) for part in content)


def _part_length(part: Any) -> int:
    if isinstance(part, Mapping):
        return len(part["text"]) if isinstance(part.get("text"), str) else NO_TEXT
    return len(str(part))
