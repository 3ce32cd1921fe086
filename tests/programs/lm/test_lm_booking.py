"""Each request to an LM is booked where it is sent: what it used, its first word, how it ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dspy.utils.exceptions import LMServerError, LMTimeoutError, LMTransportError

from dspy_live import LM
from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import BudgetExceeded
from dspy_live.core.events import Completion, Reasoning, TextDelta, Usage
from dspy_live.core.service import Service, compose
from dspy_live.core.sink import DISCARD
from dspy_live.core.usage import LMRecord
from dspy_live.layers import Budget, Retry
from dspy_live.programs.lm.booking import NO_TEXT, Booking, prompt_length
from dspy_live.programs.lm.layers import endpoint_layers, lm_layers
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.books.prices import Price
from dspy_live.runtime.http.transport import ConnectionBroken
from dspy_live.runtime.runtime import Runtime
from dspy_live.testing import Recorder, ScriptedService, Wait, collect, run_virtual

MODEL = "openai/own-model"
ORIGIN = Origin("r1", "Rag", "rag.answer", ("self", "rag"), 3)
CALL = Call({"messages": [{"role": "user", "content": "x" * 40}]}, model=MODEL, key="team", origin=ORIGIN)
REPLY = {
    "choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


class Books:
    """An account whose model has a price, and the records that it is told."""

    def __init__(self) -> None:
        self.account = Account()
        self.account.prices.set({MODEL: Price(1_000_000.0, 2_000_000.0)})
        self.records: list[LMRecord] = []
        self.account.observe(self)  # type: ignore[arg-type]

    def lm_call_ended(self, record: LMRecord) -> None:
        self.records.append(record)

    def around(self, endpoint: Service, **options: Any) -> Service:
        return Booking(MODEL, self.account, **options)(endpoint)


def test_a_reply_is_booked_under_its_origin_and_gets_its_cost() -> None:
    books = Books()
    script = [Wait(2), TextDelta(""), Wait(2), Reasoning("hm", "", 0), TextDelta("hello"), Wait(1), Completion(REPLY)]
    *events, result = run_virtual(collect(books.around(ScriptedService(script)), CALL))
    assert result == Completion(REPLY, 14.0)
    assert events[-1] == Usage(MODEL, "rag.answer", 3, 10, 2, 12, cost=14.0)
    (record,) = books.records
    assert (record.model, record.run, record.program, record.key) == (MODEL, "r1", "Rag", "team")
    assert (record.predictor, record.modules, record.lm_call) == ("rag.answer", ("self", "rag"), 3)
    assert (record.usage.total_tokens, record.cost, record.cache, record.error) == (12, 14.0, "off", None)
    assert (record.ttft, record.latency) == (4.0, 5.0)


def test_the_cost_that_an_endpoint_reports_is_taken() -> None:
    books = Books()
    *_, usage, result = asyncio.run(collect(books.around(ScriptedService([Completion(REPLY, 0.5)])), CALL))
    assert (usage.cost, result.cost, books.records[0].cost) == (0.5, 0.5, 0.5)


def test_a_reply_without_usage_is_estimated() -> None:
    books = Books()
    reply = {"choices": [{"message": {"content": "a" * 20}}]}
    *_, usage, _ = asyncio.run(collect(books.around(ScriptedService([Completion(reply)])), CALL))
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (10, 5, True)


@pytest.mark.parametrize(
    ("spoken", "tokens", "cost"), [([TextDelta("a" * 20)], 15, 20.0), ([TextDelta("")], 0, None), ([], 0, None)]
)
def test_a_request_that_fails_has_used_its_prompt_once_it_has_begun_to_speak(
    spoken: list[Any], tokens: int, cost: float | None
) -> None:
    books = Books()
    broken = ConnectionBroken("lm:80", "the peer closed the connection", received=True)
    endpoint = ScriptedService([*spoken, broken])
    with pytest.raises(ConnectionBroken):
        asyncio.run(collect(books.around(endpoint), CALL))
    (record,) = books.records
    assert (record.usage.total_tokens, record.cost) == (tokens, cost)
    assert record.usage.estimated == bool(tokens)
    assert record.error == "LMTransportError"
    assert (record.ttft is not None) == bool(tokens)


def test_a_request_that_is_cancelled_is_booked_as_that() -> None:
    books = Books()

    async def main() -> None:
        endpoint = ScriptedService()
        task = asyncio.create_task(collect(books.around(endpoint), CALL))
        attempt = await endpoint.attempt()
        attempt.send(TextDelta("hel"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [(r.error, r.usage.estimated) for r in books.records] == [("CancelledError", True)]


def test_an_endpoint_that_returns_something_else_is_told_so() -> None:
    books = Books()

    async def endpoint(call: Call, sink: Any) -> Any:
        return "hello"

    with pytest.raises(TypeError, match="returns a Completion, not 'hello'"):
        asyncio.run(collect(books.around(endpoint), CALL))
    assert [r.error for r in books.records] == ["TypeError"]


def test_a_meter_that_refuses_is_asked_before_the_request() -> None:
    books, budget = Books(), Budget(max_calls=2)
    endpoint = ScriptedService([Completion(REPLY)])
    service, call = books.around(endpoint), CALL.but(meters=(budget,))

    async def main() -> None:
        await service(call, DISCARD)
        with budget:  # in force here as well: it counts once
            await service(call, DISCARD)
        with pytest.raises(BudgetExceeded):
            await service(call, DISCARD)

    asyncio.run(main())
    assert len(endpoint.calls) == len(books.records) == budget.spent["calls"] == 2


def test_only_the_first_request_of_a_call_that_was_looked_up_is_a_miss() -> None:
    books = Books()
    lm = LM(MODEL, num_retries=2, api_key="k")
    endpoint = ScriptedService(LMServerError("broken", model=MODEL), [Completion(REPLY)])
    layers = lm_layers(lm, Runtime(account=books.account), looked_up=True)

    async def main() -> None:
        assert await compose(endpoint, layers)(CALL, DISCARD)

    run_virtual(main())
    assert [(r.cache, r.error) for r in books.records] == [("miss", "LMServerError"), ("off", None)]


def test_a_reply_that_dspy_can_not_read_is_asked_for_again() -> None:
    books = Books()
    lm = LM(MODEL, num_retries=2, api_key="k")
    cut = ConnectionBroken("lm:80", "cut", received=True)
    endpoint = ScriptedService([cut], [Completion(REPLY)])

    async def main() -> Any:
        return await compose(endpoint, lm_layers(lm, Runtime(account=books.account)))(CALL, DISCARD)

    result = run_virtual(main())
    assert (result.response.outputs, result.cost) == (["hello"], 14.0)
    endpoint = ScriptedService([cut])
    with pytest.raises(LMTransportError, match="cut") as caught:
        run_virtual(main())
    assert len(endpoint.calls) == 3
    assert isinstance(caught.value.__cause__, ConnectionBroken)


def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    books = Books()
    lm = LM(MODEL, num_retries=5, api_key="k")
    failure = LMServerError("broken", model=MODEL)
    failure.retry_after = 30.0
    endpoint = ScriptedService(failure)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        service = compose(endpoint, lm_layers(lm, Runtime(account=books.account)))
        with pytest.raises(LMServerError):
            await service(CALL.but(deadline=loop.time() + 10), DISCARD)
        return loop.time()

    assert run_virtual(main()) < 1
    assert len(endpoint.calls) == 1


def test_a_request_that_is_too_slow_is_booked_as_that_and_asked_again() -> None:
    books = Books()
    lm = LM(MODEL, num_retries=1, api_key="k", first_token_timeout=5.0, idle_timeout=2.0)
    endpoint = ScriptedService([Wait(9)], [TextDelta("hel"), Wait(9)])

    async def main() -> None:
        service = compose(endpoint, lm_layers(lm, Runtime(account=books.account)))
        with pytest.raises(LMTimeoutError, match=r"stopped for longer than 2 s; raise idle_timeout="):
            await service(CALL, Recorder())

    run_virtual(main())
    assert [(r.error, bool(r.usage)) for r in books.records] == [("LMTimeoutError", False), ("LMTimeoutError", True)]


@pytest.mark.parametrize(("stream", "asked"), [("auto", True), ("always", True), ("never", False)])
def test_an_lm_that_never_streams_is_not_made_to_by_its_timeouts(stream: Any, asked: bool) -> None:
    endpoint = ScriptedService([Completion(REPLY)])
    lm = LM(MODEL, api_key="k", stream=stream, idle_timeout=2.0)

    async def main() -> None:
        await compose(endpoint, endpoint_layers(lm, Account()))(CALL.but(stream=False), DISCARD)

    asyncio.run(main())
    assert endpoint.calls[0].stream is asked


def test_another_lm_as_a_service_books_under_its_own_name_and_the_same_origin() -> None:
    books = Books()
    endpoint = ScriptedService([Completion(REPLY)])
    other = LM("openai/other", endpoint=endpoint, api_key="theirs")
    runtime = Runtime(account=books.account)

    class FakeRun:
        pass

    run: Any = FakeRun()
    run.runtime = runtime

    async def main() -> None:
        import dspy

        with dspy.context(dspy_live_run=run):
            assert current_run() is run
            call = CALL.but(inputs={**CALL.inputs, "model": MODEL, "api_key": "ours", "temperature": 0.5})
            await other.service()(call, DISCARD)

    asyncio.run(main())
    (record,) = books.records
    assert (record.model, record.predictor, record.lm_call, record.key) == ("openai/other", "rag.answer", 3, "team")
    sent = endpoint.calls[0]
    assert (sent.model, sent.inputs["model"], sent.inputs["api_key"]) == ("openai/other", "openai/other", "theirs")
    assert sent.inputs["temperature"] == 0.5


def test_a_retry_of_the_users_own_stands_for_num_retries() -> None:
    endpoint = ScriptedService(LMServerError("broken", model=MODEL))
    lm = LM(MODEL, num_retries=9, api_key="k")

    async def main() -> None:
        with pytest.raises(LMServerError):
            await compose(endpoint, lm_layers(lm, Runtime(lm_layers=[Retry(2)], account=Account())))(CALL, DISCARD)

    run_virtual(main())
    assert len(endpoint.calls) == 2


def test_the_length_of_a_prompt() -> None:
    parts = [{"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "x" * 9}}, "five."]
    assert prompt_length([{"content": "abc"}, {"content": None}, {"content": parts}, "no message"]) == 12 + NO_TEXT
