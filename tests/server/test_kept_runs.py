"""A run that is over can be read again for a while, however long a reader may stay away from one under way."""

from __future__ import annotations

import asyncio

import pytest
from tests.server.support import Live, Tape, http, in_process, qa, serving, sse, until
from tests.server.test_runs import WORDS, joined, read, start, words

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMFailed
from dspy_live.core.events import Predicted, Started, Token
from dspy_live.server import create_app
from dspy_live.server.runs.kept_runs import OVERHEAD
from dspy_live.testing import virtual_time


def ended(live: Live, run: str) -> bool:
    return http.get(f"{live.url}/runs/{run}").json()["status"] != "running"


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    await asyncio.Event().wait()


@virtual_time
async def test_a_finished_run_is_kept_although_nobody_may_stay_away_from_one() -> None:
    """A finished run was forgotten after the grace of an unread one: with 0 seconds its answer was lost."""
    async with in_process(create_app(qa(words), grace=0.0, keep_runs=3600)) as client:
        begun = await client.post("/runs", json={"question": "x"})
        run, where = begun.json()["run"]["id"], begun.headers["location"]
        assert joined(sse((await client.get(where)).text)) == WORDS
        await asyncio.sleep(3599)
        assert joined(sse((await client.get(where)).text)) == WORDS
        told = (await client.get(f"/runs/{run}")).json()
        await asyncio.sleep(3)
        assert (await client.get(where)).status_code == 204
    assert (told["status"], told["outputs"]) == ("succeeded", {"answer": WORDS})
    assert told["run"]["id"] == run
    assert "usage" in told["run"]


def test_what_nobody_has_read_yet_outlasts_a_retention_of_nothing() -> None:
    with serving(qa(), grace=3600, keep_runs=0) as live:
        run = start(live)
        until(lambda: len(live.app.runs) == 0)
        assert joined(read(live, run)).endswith("You asked: x")
        until(lambda: live.app.resumables.is_over(run, ""))


def test_a_run_under_way_tells_that_it_is() -> None:
    with serving(qa(endless)) as live:
        run = start(live)
        assert http.get(f"{live.url}/runs/{run}").json()["status"] == "running"
        with http.stream("POST", live.url + "/predict/stream", json={"question": "x"}) as other:
            told = http.get(f"{live.url}/runs/{other.headers['x-run-id']}").json()
    assert told["status"] == "running"


def test_a_failure_and_a_stop_can_be_read_again() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        if call.inputs["question"] == "x":
            await asyncio.Event().wait()
        raise LMFailed("the LM is down")

    with serving(qa(script)) as live:
        run = start(live)
        assert http.post(f"{live.url}/runs/{run}/stop").status_code == 202
        until(lambda: ended(live, run))
        stopped = http.get(f"{live.url}/runs/{run}").json()
        run = http.post(live.url + "/runs", json={"question": "down"}).json()["run"]["id"]
        until(lambda: ended(live, run))
        failed = http.get(f"{live.url}/runs/{run}").json()
    assert (stopped["status"], stopped["error"]["type"]) == ("cancelled", "cancelled")
    assert (failed["status"], failed["error"]["type"]) == ("failed", "lm_failed")


def test_the_oldest_runs_are_forgotten_where_all_take_too_much() -> None:
    async def large(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.push(Token("x" * 10_000, "answer", "predict", 1), Predicted({"answer": "x"}))

    with serving(qa(large), keep_runs=3600) as live:
        live.app.resumables.most_bytes = 3 * (10_000 + OVERHEAD) + 5_000
        runs = [start(live) for _ in range(8)]
        until(lambda: len(live.app.runs) == 0)
        status = [http.get(f"{live.url}/runs/{run}").status_code for run in runs]
    assert status == [410] * 5 + [200] * 3


def test_another_keys_run_is_not_told_of() -> None:
    with serving(qa(), api_keys=["ada-key", "bob-key"]) as live:
        ada, bob = ({"X-API-Key": key} for key in ("ada-key", "bob-key"))
        run = http.post(live.url + "/runs", json={"question": "x"}, headers=ada).json()["run"]["id"]
        assert http.get(f"{live.url}/runs/{run}", headers=bob).status_code == 404
        assert http.get(f"{live.url}/runs/{run}", headers=ada).status_code == 200
        assert http.post(f"{live.url}/runs/{run}/stop", headers=bob).status_code == 404


def test_a_retention_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="keep_runs"):
        create_app(qa(), keep_runs=-1)
