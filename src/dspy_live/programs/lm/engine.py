"""The LM engine: one prepared call of DSPy's in, DSPy's own result out, the words to the reader on the way.

All of it is asynchronous, and none of it runs code of the user's, so that it may work on any loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, LiveError, Stop
from dspy_live.core.events import Completion, Reasoning, Restart, TextDelta, Usage
from dspy_live.core.service import Service, compose
from dspy_live.core.usage import CacheUse, LMRecord, LMUsage, Meter
from dspy_live.programs.cache import access as cache_access
from dspy_live.programs.internals import (
    CallResult,
    PreparedCall,
    _account_failed_call,
    _hint_responses_api,
    combine,
    is_retryable_lm_error,
)
from dspy_live.programs.lm import accounting
from dspy_live.programs.lm.booking import Booked, prompt_length
from dspy_live.programs.lm.endpoints import endpoint_for
from dspy_live.programs.lm.errors import as_dspy_error
from dspy_live.programs.lm.results import result_of
from dspy_live.runtime.runtime import Runtime, default_runtime
from dspy_live.sansio.limits.backoff import Backoff

if TYPE_CHECKING:
    from dspy_live.programs.fields.origin import Speaker
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.run.run import Run

_BACKOFF = Backoff(base=1.0, cap=60.0)


async def answer(lm: LM, call: PreparedCall, run: Run | None, speaker: Speaker) -> CallResult:
    """Answer one LM call: from the cache, else from the endpoint, retried as the LM says.

    Raises DSPy's own ``LMError``s, :class:`~dspy_live.core.errors.BudgetExceeded` and other errors of the layers.
    Cancellation closes the connection at once.
    """
    runtime = run.runtime if run is not None else default_runtime()
    accounting.install(runtime.account)
    if run is not None:
        run.scope.check()
        if speaker.speech is not None:
            speaker.speech.foreign = asyncio.get_running_loop() is not run.loop
        await run.caught_up()
    use: CacheUse = "off"
    if call.cache:
        cached = await cache_access.lookup(lm, call)
        if cached is not None:
            return _from_cache(lm, cached, runtime, run, speaker)
        use = "miss"
    exchange = _Exchange(lm, call, runtime, run, speaker, use)
    try:
        result = await exchange.complete()
    except BaseException as exc:
        _hint_responses_api(lm, exc)
        _account_failed_call(lm, (), exc)
        raise
    if call.cache:
        await cache_access.store(lm, call, result)
    return result


def _from_cache(lm: LM, result: CallResult, runtime: Runtime, run: Run | None, speaker: Speaker) -> CallResult:
    speech = speaker.speech
    if speech is not None:
        text, reasoning = first_output(result)
        if reasoning:
            speech.reasoning(reasoning)
        speech.text(text)
        speech.finish(text)
    _book(lm, runtime, run, speaker, LMUsage(), "hit")
    if run is not None:
        run.push(Usage(lm.model, speaker.predictor, speaker.lm_call, cost=0.0, cached=True))
    return result


class _Exchange:
    """The requests of one LM call, until one of them is answered."""

    def __init__(
        self, lm: LM, call: PreparedCall, runtime: Runtime, run: Run | None, speaker: Speaker, use: CacheUse
    ) -> None:
        self.lm = lm
        self.call = call
        self.runtime = runtime
        self.run = run
        self.speaker = speaker
        self.speech = speaker.speech
        self.use = use
        self.said_at: float | None = None
        self.said_length = 0
        self.cost: float | None = None

    async def complete(self) -> CallResult:
        """Return as many completions as were asked for.

        An endpoint that answers with fewer, as those do that don't know ``n``, is asked again for each of the others.
        """
        results = [await self._tried()]
        missing = self.call.n - len(results[0].outputs)
        if missing > 0 and results[0].outputs:
            self.call = _without_n(self.call)
            self.speech = None  # the first completion is the one that streams
            results += [await self._tried() for _ in range(missing)]
        return results[0] if len(results) == 1 else combine(results, model_type=self.lm.model_type)

    async def _tried(self) -> CallResult:
        retries = (
            0 if any(getattr(layer, "retries", False) for layer in self.runtime.lm_layers) else self.lm.num_retries
        )
        service = compose(Booked(endpoint_for(self.lm, self.call), self.lm), self.runtime.lm_layers)
        attempt = 0
        while True:
            try:
                return await self._attempt(service)
            except Exception as exc:
                if attempt >= retries or not is_retryable_lm_error(exc):
                    raise
                delay = _BACKOFF.delay(attempt, random.random(), getattr(exc, "retry_after", None))
                if self.run is not None and (left := self.run.scope.remaining()) is not None and left <= delay:
                    raise  # the wait alone would outlast the deadline: the failure says more than a timeout
            attempt += 1
            if self.speech is not None:
                self.speech.restart(f"the LM call is tried again ({attempt} of {retries})")
            await asyncio.sleep(delay)

    async def _attempt(self, service: Service) -> CallResult:
        try:
            response = await self._pump(service)
            result = result_of(self.lm, self.call, response)
        except BudgetExceeded as exc:  # of a layer
            raise self._refused(exc) from exc
        except LiveError:
            raise
        except Exception as exc:
            error = as_dspy_error(exc, self.lm)
            if error is exc:
                raise
            raise error from exc
        if result.cost is None:
            result.cost = self.cost
        if self.speech is not None:
            self.speech.finish(first_output(result)[0])
        return result

    async def _pump(self, service: Service) -> Any:
        attributes: dict[str, Any] = {"model": self.lm.model, "predictor": self.speaker.predictor, "books": self}
        run = self.run
        if run is not None:
            attributes["meters"] = run.meters
            if key := run.call.attributes.get("key"):
                attributes["key"] = key
        call = Call(
            self.call.legacy,
            deadline=run.scope.deadline if run is not None else None,
            stream=self._streams(),
            restartable=run is None or run.call.restartable,
            attributes=attributes,
        )
        async with service.open(call) as events:
            attach = getattr(events, "attach", None)
            if attach is not None:
                # Straight from the socket's callback to the parser: no task wakes for a token.
                return await attach(self)
            response = None
            while batch := await events.receive_many():
                for event in batch:
                    match event:
                        case TextDelta():
                            self.text(event.text)
                        case Reasoning():
                            self.reasoning(event.text)
                        case Restart() if self.speech is not None:
                            self.speech.restart(event.reason)
                        case Completion():
                            response = event.response
                if self.speech is not None and not self.speech.foreign:
                    await self.speech.room()
            return response

    def _streams(self) -> bool:
        live = self.lm.live
        if live.stream != "auto":
            return live.stream == "always"
        return self.speech is not None or live.first_token_timeout is not None or live.idle_timeout is not None

    # The sink that an endpoint writes to.

    def heard(self, length: int) -> None:
        """The endpoint has said so many characters more."""
        self.said_length += length
        if self.said_at is None:
            self.said_at = time.monotonic()

    def text(self, text: str) -> bool:
        self.said_length += len(text)
        if self.said_at is None:
            self.said_at = time.monotonic()
        return self.speech is None or self.speech.text(text)

    def reasoning(self, text: str) -> bool:
        self.heard(len(text))
        return self.speech is None or self.speech.reasoning(text)

    def on_room(self, callback: Any) -> None:
        if self.speech is not None:
            self.speech.on_room(callback)
        else:
            callback()

    def restart(self, reason: str) -> None:
        if self.speech is not None:
            self.speech.restart(reason)

    # The books: one record for each request that was sent, whichever layer sent it.

    def request_starts(self, lm: LM, meters: tuple[Meter, ...]) -> Ticket:
        """A request to ``lm`` is about to be sent. Raises :class:`Stop` where one of ``meters`` refuses it."""
        self.said_at, self.said_length = None, 0
        use, self.use = self.use, "off"
        try:
            return Ticket(self, lm, use, self.runtime.account.admit(meters))
        except BudgetExceeded as exc:
            raise self._refused(exc) from exc

    def _refused(self, exc: BudgetExceeded) -> BaseException:
        if self.run is None:
            return exc
        # A tool, BestOfN or dspy.Parallel that swallows Exception must not go on spending, nor gather() hide it.
        self.run.scope.cancel(exc)
        return Stop(exc)


def _without_n(call: PreparedCall) -> PreparedCall:
    return replace(call, legacy={k: v for k, v in call.legacy.items() if k != "n"}, n=1)


class Ticket:
    """One request, from before it is sent until it is booked."""

    __slots__ = ("_exchange", "_lm", "_meters", "_started", "_use", "booked")

    def __init__(self, exchange: _Exchange, lm: LM, use: CacheUse, meters: tuple[Meter, ...]) -> None:
        self._exchange = exchange
        self._lm = lm
        self._use = use
        self._meters = meters
        self._started = time.monotonic()
        self.booked = False

    def served(self, response: Any) -> None:
        """The reply is complete: book what it used, by the provider's own count where there is one."""
        exchange = self._exchange
        reported = response.usage if isinstance(response, CallResult) else (response or {}).get("usage")
        usage = LMUsage.parse(reported) or LMUsage.estimate(_prompt_length(exchange.call), _said(response))
        cost = exchange.runtime.account.price(self._lm.model, usage)
        exchange.cost = cost
        self._book(usage, cost, None)
        if exchange.run is not None:
            speaker = exchange.speaker
            exchange.run.push(
                Usage(
                    self._lm.model, speaker.predictor, speaker.lm_call, usage.prompt_tokens, usage.completion_tokens,
                    usage.total_tokens, usage.cached_tokens, usage.reasoning_tokens, cost, False, usage.estimated,
                )
            )  # fmt: skip

    def failed(self, error: BaseException | None) -> None:
        """The request has ended without a reply. One that had begun to speak has used its prompt at least."""
        exchange = self._exchange
        usage, cost = LMUsage(), None
        if exchange.said_at is not None:
            usage = LMUsage.estimate(_prompt_length(exchange.call), exchange.said_length)
            cost = exchange.runtime.account.price(self._lm.model, usage)
        name = type(as_dspy_error(error, self._lm)).__name__ if isinstance(error, Exception) else None
        self._book(usage, cost, name or type(error or asyncio.CancelledError()).__name__)

    def _book(self, usage: LMUsage, cost: float | None, error: str | None) -> None:
        self.booked = True
        exchange = self._exchange
        ttft = None if exchange.said_at is None else exchange.said_at - self._started
        _book(
            self._lm, exchange.runtime, exchange.run, exchange.speaker,
            usage, self._use, cost, error, self._started, ttft, self._meters,
        )  # fmt: skip


def _said(response: Any) -> int:
    """Characters of a reply whose provider does not count tokens."""
    if isinstance(response, CallResult):
        return sum(len(_text(output)) for output in response.outputs)
    messages = [choice.get("message") or {} for choice in (response or {}).get("choices") or ()]
    return sum(len(message.get("content") or "") for message in messages)


def _book(
    lm: LM,
    runtime: Runtime,
    run: Run | None,
    speaker: Speaker,
    usage: LMUsage,
    use: CacheUse,
    cost: float | None = 0.0,
    error: str | None = None,
    started: float | None = None,
    ttft: float | None = None,
    meters: Any = None,
) -> None:
    record = LMRecord(
        model=lm.model,
        run=run.call.id if run is not None else "",
        program=run.program if run is not None else speaker.program,
        predictor=speaker.predictor,
        modules=speaker.modules,
        lm_call=speaker.lm_call,
        usage=usage,
        cost=cost,
        cache=use,
        error=error,
        latency=0.0 if started is None else time.monotonic() - started,
        ttft=ttft,
        key=str(run.call.attributes.get("key", "")) if run is not None else "",
    )
    runtime.account.record(record, meters)


def first_output(result: CallResult) -> tuple[str, str]:
    """Return text and reasoning of the first completion; empty strings where there is none."""
    if not result.outputs:
        return "", ""
    output = result.outputs[0]
    return _text(output), (output.get("reasoning_content") or "") if isinstance(output, dict) else ""


def _text(output: Any) -> str:
    text = output.get("text") if isinstance(output, dict) else output
    return text if isinstance(text, str) else ""


def _prompt_length(call: PreparedCall) -> int:
    return prompt_length(call.legacy.get("messages") or ())
