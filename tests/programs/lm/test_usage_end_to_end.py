"""What the tracker says is what the LM's server served, to the token, whatever programs and faults do.

DSPy's own books show 0 under ``dspy.Parallel`` (#9201, #9360) and give everything to the outermost module (#10191).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.programs.conftest import MODEL, HeldSim, Sim
from tests.programs.programs import Gather, InParallel, NativeRag, Rag, Swallows
from tests.support.until import async_until

import dspy_live
from dspy_live import abatch, asyncify, cache, streamify
from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded
from dspy_live.core.events import Usage
from dspy_live.core.observer import RunRecord
from dspy_live.core.service import Layer
from dspy_live.core.sink import DISCARD
from dspy_live.core.usage import LMRecord
from dspy_live.layers.budget import Budget, per_key
from dspy_live.layers.retry import Retry
from dspy_live.observe.ledger import open_ledger
from dspy_live.observe.metrics import Metrics
from dspy_live.observe.tracker import UsageTracker
from dspy_live.programs.lm import layers
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.runtime import Runtime
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.testing import collect

OTHER = "openai/gpt-4.1-nano"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_BACKOFF", Backoff(base=0.001, cap=0.002))


def served(sim: Sim) -> dict[str, int]:
    """Requests, and tokens whose usage was written to the client, by the server's own count."""
    counts = [s.as_dict() for s in sim.server.stats.models.values()]
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "unreported_replies")
    return {"api_calls": sim.server.stats.requests, **{n: sum(c[n] for c in counts) for n in names}}


class Built(dspy.Module):  # type: ignore[misc]
    """A program after a plan: ``"p"`` is a predictor, a list is a sequence, a tuple (kind, parts) is all at once."""

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.plan = plan
        if plan in ("p", "q"):
            self.step = dspy.Predict("question -> answer") if plan == "p" else dspy.ChainOfThought("question -> answer")
        else:
            parts = plan if isinstance(plan, list) else plan[1]
            self.parts = [Built(part) for part in parts]

    def forward(self, question: str) -> Any:
        if self.plan in ("p", "q"):
            return self.step(question=question)
        if isinstance(self.plan, list):
            return [part(question=f"{question} {n}") for n, part in enumerate(self.parts)][-1]
        pairs = [(part, {"question": f"{question} {n}"}) for n, part in enumerate(self.parts)]
        return dspy.Parallel(num_threads=2, max_errors=100)(pairs)[-1]

    async def aforward(self, question: str) -> Any:
        if self.plan in ("p", "q"):
            return await self.step.acall(question=question)
        if isinstance(self.plan, list):
            return [await part.acall(question=f"{question} {n}") for n, part in enumerate(self.parts)][-1]
        # All are waited for: one that is cut while its usage is on the way is estimated, and would not be equal.
        asked = [part.acall(question=f"{question} {n}") for n, part in enumerate(self.parts)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        if failures := [r for r in results if isinstance(r, BaseException)]:
            raise failures[0]
        return results[-1]


_PLANS = st.recursive(
    st.sampled_from(["p", "q"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.tuples(st.just("all"), st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=4,
)
_FAULTS = st.lists(
    st.sampled_from(
        [
            None,
            None,
            None,
            "429",
            "500",
            "503",
            "cut_start",
            "cut",
            "no_usage",
            "wrong_format",
            "missing_field",
            "empty",
        ]
    ),
    max_size=6,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plans=st.lists(_PLANS, min_size=1, max_size=3),
    faults=_FAULTS,
    how=st.sampled_from(["native", "thread", "inline", "stream"]),
    models=st.sampled_from([(MODEL,), (MODEL, OTHER)]),
)
@example(
    plans=[["p", "q"], ("all", ["p", "p"])], faults=["wrong_format", "cut", "429"], how="stream", models=(MODEL, OTHER)
)
def test_the_tracker_says_what_the_server_says(
    sim: Sim, plans: list[Any], faults: list[Any], how: str, models: tuple[str, ...]
) -> None:
    sim.server.set_options(retry_after=0)
    sim.server.set_faults(schedule=faults)
    sim.server.reset()
    lms = [sim.lm(model, num_retries=1) for model in models]
    execution: Any = "native" if how == "stream" else how
    if how == "inline":  # dspy.Parallel's threads wait for nobody there, but make it run long
        plans = [plan for plan in plans if "all" not in str(plan)] or ["p"]

    async def one(number: int) -> dict[str, Any]:
        program = Built(plans[number])
        program.set_lm(lms[number % len(lms)])
        with UsageTracker() as scope, contextlib.suppress(Exception):
            if how == "stream":
                async for _ in streamify(program)(question=f"q{number}"):
                    pass
            else:
                await asyncify(program, execution=execution)(question=f"q{number}")
        return scope.get_stats()

    async def everything() -> list[dict[str, Any]]:
        return await asyncio.gather(*(one(n) for n in range(len(plans))))

    whole = UsageTracker()
    whole.reset()
    parts = asyncio.run(everything())
    stats, truth = whole.get_stats(), served(sim)
    # On a kept connection that dies without an answer, the transport sends a request again by itself.
    unseen = sim.server.stats.faults["cut_start"]
    assert truth["api_calls"] - unseen <= stats["api_calls"] <= truth["api_calls"]
    assert stats["total_tokens"] - stats["estimated_tokens"] == truth["total_tokens"]
    assert bool(stats["estimated_calls"]) <= bool(truth["unreported_replies"])
    for name in ("api_calls", "total_tokens", "prompt_tokens", "completion_tokens", "errors", "estimated_tokens"):
        assert sum(part[name] for part in parts) == stats[name], name
        assert sum(part[name] for part in stats["by_model"].values()) == stats[name], name
        assert sum(part[name] for part in stats["by_predictor"].values()) == stats[name], name
    assert stats["unpriced_calls"] == 0
    assert stats["total_cost"] == pytest.approx(sum(part["total_cost"] for part in parts))


def priced(tokens_in: int, tokens_out: int) -> float:
    """What gpt-4o-mini costs by DSPy's table."""
    return (tokens_in * 0.15 + tokens_out * 0.6) / 1_000_000


@pytest.mark.parametrize("program", [Rag, NativeRag, Gather, InParallel])
async def test_each_module_has_its_share_and_the_cost_is_right(program: type[dspy.Module], sim: Sim) -> None:
    with dspy.context(lm=sim.lm()), UsageTracker() as usage:
        await asyncify(program())(question="Why?")
    stats, truth = usage.get_stats(), served(sim)
    assert stats["api_calls"] == truth["api_calls"] > 1
    assert stats["total_tokens"] == truth["total_tokens"]
    assert stats["total_cost"] == pytest.approx(priced(truth["prompt_tokens"], truth["completion_tokens"]))
    assert stats["by_module"]["self"]["total_tokens"] == truth["total_tokens"]
    if issubclass(program, Rag):
        assert set(stats["by_predictor"]) == {"answer.predict", "sum"}
        inner = stats["by_predictor"]["answer.predict"]
        assert stats["by_module"]["answer"]["total_tokens"] == inner["total_tokens"] > 0


def test_plain_dspy_code_without_our_runtime_is_counted_too(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()), UsageTracker() as usage:
        Rag()(question="Why?")
        InParallel()(question="Why?")
        sim.lm()("a call of no program")
    stats = usage.get_stats()
    assert stats["api_calls"] == served(sim)["api_calls"] == 7
    assert stats["total_tokens"] == served(sim)["total_tokens"]
    rag, parallel, direct = (stats["by_program"][name] for name in ("Rag", "InParallel", "(direct)"))
    assert {path: part["api_calls"] for path, part in rag["by_predictor"].items()} == {"answer.predict": 1, "sum": 1}
    assert {path: part["api_calls"] for path, part in parallel["by_predictor"].items()} == {"ask": 4}
    assert direct["api_calls"] == 1
    assert stats["by_module"]["answer"]["api_calls"] == 1


def test_programs_that_have_gone_are_not_kept_for_their_names(sim: Sim) -> None:
    import gc
    import weakref

    from dspy_live.programs.fields import origin

    kept = []
    with dspy.context(lm=sim.lm(), trace=None):  # DSPy keeps them in its trace
        for _ in range(origin._MAX_NAMES + 4):
            program = dspy.Predict("question -> answer")
            program(question="Why?")
            kept.append(weakref.ref(program))
    del program
    gc.collect()
    # One more: the I/O loop was started in the context of the first call.
    assert sum(ref() is not None for ref in kept) <= origin._MAX_NAMES + 1


async def test_a_stream_that_is_left_is_estimated_and_said_to_be(endless: Sim) -> None:
    with UsageTracker() as usage:
        stream = streamify(dspy.Predict("question -> answer"))
        with dspy.context(lm=endless.lm()):
            async with contextlib.aclosing(stream(question="Why?")) as items:
                for _ in range(10):
                    await anext(items)
    stats = usage.get_stats()
    assert (stats["api_calls"], stats["estimated_calls"]) == (1, 1)
    assert stats["total_tokens"] == stats["estimated_tokens"] > 10
    assert stats["errors"] == 1


async def test_an_image_in_a_stream_that_is_left_is_not_estimated_by_its_bytes(endless: Sim) -> None:
    """A picture of a megabyte was 333,000 tokens, and most of a dollar, before."""
    image = dspy.Image("data:image/png;base64," + "A" * 1_400_000)
    with UsageTracker() as usage:
        stream = streamify(dspy.Predict("image: dspy.Image, question -> answer"))
        with dspy.context(lm=endless.lm()):
            async with contextlib.aclosing(stream(image=image, question="What?")) as items:
                await anext(items)
    assert 1000 < usage.get_stats()["estimated_tokens"] < 2000


async def test_answers_from_the_cache_cost_nothing(sim: Sim) -> None:
    program = asyncify(dspy.Predict("question -> answer"))
    nonce = f"Why? {random.random()}"
    with dspy.context(lm=sim.lm(cache=True)), UsageTracker() as usage:
        for _ in range(3):
            await program(question=nonce)
        await asyncio.to_thread(dspy.Predict("question -> answer"), question=nonce)
        await program(question=nonce, config={"rollout_id": 7, "temperature": 1.0})
    stats = usage.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["api_calls"]) == (3, 2, 2)
    assert stats["total_tokens"] == served(sim)["total_tokens"]


class Own(dspy.BaseLM):  # type: ignore[misc]
    """A user's own LM: it answers by itself and says what that took."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__("own/model")
        self.fails = fails
        self.asked = 0

    def forward(self, prompt: Any = None, messages: Any = None, **_: Any) -> Any:
        from types import SimpleNamespace as Reply

        self.asked += 1
        if self.fails:
            raise ConnectionError("gone")
        text = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
        message = Reply(content=text, tool_calls=None)
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return Reply(choices=[Reply(message=message, finish_reason="stop")], usage=usage, model="own/model")

    async def aforward(self, prompt: Any = None, messages: Any = None, **more: Any) -> Any:
        return self.forward(prompt, messages, **more)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_lm_of_the_users_own_class_is_counted_inside_of_a_run(streaming: bool) -> None:
    lm = Own()
    dspy_live.set_prices({"own/*": {"input": 1_000_000, "output": 0}})
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm), UsageTracker() as usage:
        if streaming:
            async for _ in streamify(program)(question="Why?"):
                pass
        else:
            await asyncify(program, execution="thread")(question="Why?")
    stats = usage.get_stats()
    assert (lm.asked, stats["api_calls"], stats["total_tokens"], stats["total_cost"]) == (1, 1, 10, 7.0)
    assert stats["by_model"]["own/model"]["completion_tokens"] == 3
    assert stats["cache_hits"] == 0
    with dspy.context(lm=lm), Budget(max_tokens=10), pytest.raises(BudgetExceeded):
        await asyncify(Swallows(), execution="thread")(question="Why?")
    assert lm.asked == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_lm_of_the_users_own_class_that_fails_is_counted_as_that() -> None:
    lm = Own(fails=True)
    with dspy.context(lm=lm), UsageTracker() as usage, pytest.raises(Exception, match="gone"):
        await asyncify(dspy.Predict("question -> answer"), execution="thread")(question="Why?")
    stats = usage.get_stats()
    assert stats["api_calls"] == stats["errors"] == lm.asked


@pytest.mark.parametrize("engine_name", ["auto", "litellm"])
@pytest.mark.filterwarnings("ignore")  # of litellm's own import
async def test_entries_that_stock_dspy_has_cached_are_found(engine_name: str, sim: Sim) -> None:
    nonce = f"Why? {random.random()}"
    with dspy.context(lm=sim.plain(cache=True, engine=engine_name)):
        stock = await asyncio.to_thread(dspy.Predict("question -> answer"), question=nonce)
    asked = sim.server.stats.requests
    with dspy.context(lm=sim.lm(cache=True)), UsageTracker() as usage:
        ours = await asyncify(dspy.Predict("question -> answer"))(question=nonce)
    assert ours.answer == stock.answer
    assert sim.server.stats.requests == asked
    assert usage.get_stats()["cache_hits"] == 1


async def test_a_damaged_entry_is_asked_again(sim: Sim) -> None:
    class Damaged:
        name = "damaged"
        kept: Any = None

        async def get(self, key: str) -> Any:
            return {"_dspy_format": "dspy-lm15-result-v1", "outputs": ["half"]}

        async def put(self, key: str, value: Any) -> None:
            self.kept = value

    store: Any = Damaged()
    cache.use(store)
    try:
        with dspy.context(lm=sim.lm(cache=True)), UsageTracker() as usage:
            prediction = await asyncify(dspy.Predict("question -> answer"))(question=f"Why? {random.random()}")
    finally:
        cache.use(None)
    assert prediction.answer
    assert (usage.get_stats()["cache_misses"], usage.get_stats()["api_calls"]) == (1, 1)
    assert store.kept["outputs"]


async def test_rollout_id_asks_again_through_every_door(sim: Sim) -> None:
    program = dspy.Predict("question -> answer")
    nonce = f"Why? {random.random()}"
    fresh = {"config": {"rollout_id": 1, "temperature": 1.0}}

    async def streamed(**more: Any) -> None:
        async for _ in streamify(program)(question=nonce, **more):
            pass

    async def served_over_http(**more: Any) -> None:
        await ProgramService(program)(Call({"question": nonce}, config=more.get("config", {})), DISCARD)

    async def in_a_batch(**more: Any) -> None:
        await abatch(program, [{"question": nonce, **more}])

    async def awaited(**more: Any) -> None:
        await asyncify(program)(question=nonce, **more)

    with dspy.context(lm=sim.lm(cache=True)):
        await awaited()
        for number, door in enumerate((awaited, streamed, served_over_http, in_a_batch), 1):
            before = sim.server.stats.requests
            await door()
            assert sim.server.stats.requests == before, f"{door.__name__} finds the answer"
            fresh["config"]["rollout_id"] = number
            await door(**fresh)
            assert sim.server.stats.requests == before + 1, f"{door.__name__} asks again"
            await door(**fresh)
            assert sim.server.stats.requests == before + 1, f"{door.__name__} finds the new answer"


async def test_a_retry_is_an_exchange_of_its_own(sim: Sim) -> None:
    sim.server.set_options(retry_after=0)
    sim.server.set_faults(schedule=["500", "429"])
    with dspy.context(lm=sim.lm(num_retries=2, cache=True)), UsageTracker() as usage:
        await asyncify(dspy.Predict("question -> answer"))(question=f"Why? {random.random()}")
    stats = usage.get_stats()
    assert (stats["api_calls"], stats["errors"], stats["cache_misses"]) == (3, 2, 1)
    assert stats["total_tokens"] == served(sim)["total_tokens"]


@pytest.mark.parametrize("execution", ["thread", "inline"])
async def test_a_budget_stops_a_program_that_swallows_everything(execution: Any, sim: Sim) -> None:
    program = Swallows()
    with dspy.context(lm=sim.lm()), Budget(max_calls=5), pytest.raises(BudgetExceeded, match="5 calls of 5 calls"):
        await asyncify(program, execution=execution)(question="Why?")
    assert sim.server.stats.requests == 5


@pytest.mark.parametrize("execution", ["thread", "inline"])
@pytest.mark.parametrize("place", ["outside", "inside", "both"])
async def test_a_budget_around_an_lm_counts_and_stops(place: str, execution: Any, sim: Sim) -> None:
    """As a layer around the LM it counted nothing and stopped nobody."""
    budget = Budget(max_calls=5)
    around: list[Layer] = [Retry(3), budget] if place == "inside" else [budget, Retry(3)]
    runtime = Runtime(layers=[budget] if place == "both" else [], lm_layers=around)
    program = asyncify(Swallows(), execution=execution, runtime=runtime)
    with dspy.context(lm=sim.lm()), pytest.raises(BudgetExceeded, match="5 calls of 5 calls"):
        await program(question="Why?")
    assert sim.server.stats.requests == budget.spent["calls"] == 5


async def test_a_budget_around_an_lm_by_key(sim: Sim) -> None:
    seen: set[str] = set()
    runtime = Runtime(lm_layers=[per_key(lambda key: Budget(max_calls=1, name=f"key {key}"))])
    service = ProgramService(dspy.Predict("question -> answer"), runtime=runtime).layered()
    with dspy.context(lm=sim.lm()):
        for key in ("a", "b", "a"):
            with pytest.raises(BudgetExceeded, match="key a") if key in seen else contextlib.nullcontext():
                await service(Call({"question": "Why?"}, key=key), DISCARD)
            seen.add(key)
    assert sim.server.stats.requests == 2


async def test_a_budget_around_a_program_by_key(sim: Sim) -> None:
    runtime = Runtime(layers=[per_key(lambda key: Budget(max_calls=3, name=f"key {key}"))], account=Account())
    with dspy.context(lm=sim.lm()):
        service = ProgramService(NativeRag(), runtime=runtime).layered()

        async def ask(key: str) -> list[Any]:
            return await collect(service, Call({"question": "Why?"}, key=key))

        await ask("a")
        with pytest.raises(BudgetExceeded, match="key a"):
            await ask("a")
        usages = [event for event in await ask("b") if isinstance(event, Usage)]
    assert len(usages) == 2
    assert sim.server.stats.requests == 5


class Records:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def run_started(self, call: Call) -> None:
        self.heard.append(("started", call.program))

    def lm_call_ended(self, record: LMRecord) -> None:
        self.heard.append(("lm", record))

    def run_ended(self, record: RunRecord) -> None:
        self.heard.append(("ended", record))


@pytest.fixture
def observer() -> Iterator[Records]:
    records = Records()
    stop = process_account().observe(records)
    yield records
    stop()


async def test_observers_hear_each_thing_once_and_in_order(sim: Sim, observer: Records) -> None:
    with dspy.context(lm=sim.lm()):
        async for _ in streamify(NativeRag())(question="Why?"):
            pass
    kinds = [kind for kind, _ in observer.heard]
    assert kinds[0] == "started"
    assert kinds[-1] == "ended"
    assert sorted(kinds) == ["ended", "lm", "lm", "started"]
    ended = observer.heard[-1][1]
    assert (ended.call.program, ended.error) == ("NativeRag", None)
    assert 0 < ended.ttft <= ended.duration
    records = [what for kind, what in observer.heard if kind == "lm"]
    assert [r.predictor for r in records] == ["answer.predict", "sum"]
    assert all(r.ttft is not None and r.ttft <= r.latency and r.program == "NativeRag" for r in records)


async def test_ledger_metrics_and_tracker_say_the_same(sim: Sim, tmp_path: Any) -> None:
    account = Account()
    ledger = open_ledger(tmp_path / "l.db", contents=True).attach(account)
    metrics = Metrics(account)
    with dspy.context(lm=sim.lm()):
        program = asyncify(NativeRag(), runtime=Runtime(account=account))
        await asyncio.gather(*(program(question=f"Why {n}?") for n in range(5)))
    ledger.flush()
    totals, stats, truth = ledger.totals(), UsageTracker(account).get_stats(), served(sim)
    for name in ("api_calls", "prompt_tokens", "completion_tokens", "total_tokens"):
        assert totals[name] == stats[name] == truth[name]
    assert totals["total_cost"] == pytest.approx(stats["total_cost"])
    assert totals["runs"] == 5
    text = metrics.render().decode()
    assert 'dspy_live_requests_total{outcome="ok",program="NativeRag"} 5.0' in text
    line = (
        f'dspy_live_tokens_total{{kind="prompt",model="{MODEL}",program="NativeRag"}} {float(truth["prompt_tokens"])}'
    )
    assert line in text
    run = ledger.runs(limit=1)[0]
    assert "Why" in run["inputs"]
    assert "summary" in run["outputs"]
    metrics.close()
    ledger.close()


async def test_a_line_of_the_programs_own_logger_names_its_run(sim: Sim, tmp_path: Any) -> None:
    import io
    import json
    import logging

    from dspy_live.observe.logs import reset_logging, setup_logging

    class Talks(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            logging.getLogger("talks").warning("asking %s", question)
            return self.ask(question=question)

    level = logging.getLogger().level
    setup_logging(file=tmp_path / "log", prompts="hide", stream=io.StringIO())
    try:
        with dspy.context(lm=sim.lm()):
            for execution in ("thread", "inline"):
                how: Any = execution
                await asyncify(Talks(), execution=how)(question="my secret question")
    finally:
        reset_logging()
        logging.getLogger().setLevel(level)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["asking [hidden]"] * 2
    assert all(len(line["run"]) == 32 and line["program"] == "Talks" for line in lines)
    assert "secret" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("on", [True, False])
async def test_identical_calls_at_once_make_one_request(
    on: bool, held: HeldSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them found nothing in the cache and asked: 20 requests for one reply."""
    monkeypatch.setattr(cache, "single_flight", on)
    ask = asyncify(dspy.Predict("question -> answer"))
    budget = Budget(max_calls=20)
    with dspy.context(lm=held.lm(cache=True)), UsageTracker() as usage, budget:
        calls = asyncio.gather(*(ask(question=f"Who is asked once, with {on}?") for _ in range(20)))
        await async_until(lambda: len(held.server.held) >= (1 if on else 2))
        held.server.release()
        answers = await calls
    assert len({answer.answer for answer in answers}) == 1
    requests, stats = held.server.arrived, usage.get_stats()
    assert requests == 1 if on else requests > 1
    assert stats["api_calls"] == budget.spent["calls"] == requests
    assert stats["cache_hits"] == 20 - requests


async def test_calls_that_are_not_cached_do_not_wait_for_each_other(sim: Sim) -> None:
    ask = asyncify(dspy.Predict("question -> answer"))
    with dspy.context(lm=sim.lm(cache=False)):
        await asyncio.gather(*(ask(question="Who is asked each time?") for _ in range(5)))
    assert sim.server.stats.requests == 5
