"""Two servers as they are started, a file with a ``[store]``, a real Redis, and an LM that sees who leaves it."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.test_serve import address, ask, banner, stopped
from tests.server.support import sse
from tests.support.until import until

from dspy_live.simulator import Simulator

if TYPE_CHECKING:
    from .conftest import Commands

Where = tuple[str, int]

FILE = """
[server]
port = 0
lame_duck = 0
drain = 0
grace = 600
[lm]
model = "openai/simulated"
api_base = "{lm}"
api_key = "sk-test"
cache = false
[store]
url = "{store}"
name = "test"
[logging]
access = false
[programs.qa]
target = "which.py:program"
"""

PROGRAM = '''
import os
import dspy

class Which(dspy.Module):
    """Asks the LM; "who" is answered with the process's id."""

    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str):
        if question == "who":
            return dspy.Prediction(answer=str(os.getpid()))
        return await self.answer.acall(question=question)

program = Which()
'''


@pytest.fixture
def slow_lm() -> Iterator[tuple[Simulator, str]]:
    """An LM whose replies do not end within a test, and its address."""
    simulator = Simulator(seed=1, ttft=0.01, tokens_per_second=20, length=20_000)
    with simulator.running() as url:
        yield simulator, url if url.endswith("/v1") else f"{url}/v1"


class Site:
    """Servers of one configuration file."""

    def __init__(self, live: Commands, lm: str, store: str, number: int, *words: str) -> None:
        live.write("which.py", PROGRAM)
        live.write("dspy-live.toml", FILE.format(lm=lm, store=store))
        home = {"DSPY_LIVE_HOME": str(live.folder)}
        self.processes = [live.start("serve", *words, **home) for _ in range(number)]
        self.where = [address(banner(process)) for process in self.processes]


def start(where: Where, **headers: str) -> str:
    status, _, reply = ask(where, "/runs", {"question": "why"}, **headers)
    assert status == 201, reply
    run: str = reply["run"]["id"]
    return run


def read(where: Where, run: str, most: int | None = None, after: str = "") -> list[tuple[str, str, Any]]:
    """Read a run's events, all or the first ones; then leave."""
    with closing(http.client.HTTPConnection(*where, timeout=60)) as connection:
        connection.request("GET", f"/runs/{run}/events", headers={"Last-Event-ID": after} if after else {})
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        text = b""
        while (line := reply.readline()) and (most is None or text.count(b"\n\n") < most):
            text += line
    return sse(
        text.decode()
        .replace("event: error\ndata:", "event: error\nid: \ndata:")
        .replace("done\ndata", "done\nid: \ndata")
    )


def delete(where: Where, path: str) -> int:
    with closing(http.client.HTTPConnection(*where, timeout=60)) as connection:
        connection.request("DELETE", path)
        return connection.getresponse().status


def test_a_run_is_read_resumed_and_stopped_at_another_server_and_ends_in_an_error_when_its_own_is_killed(
    live: Commands, redis_url: str, slow_lm: tuple[Simulator, str]
) -> None:
    simulator, url = slow_lm
    site = Site(live, url, redis_url, 2)
    one, two = site.where
    run, lost, kept = start(one, **{"X-Client-Run-Id": "mine"}), start(one), start(two)
    until(lambda: simulator.stats.active == 3)
    events = read(two, run, 10)
    events += read(one, run, 10, events[-1][1])
    events += read(two, "mine", 10, events[-1][1])
    assert [ident for _, ident, _ in events] == [f"{run}:{n}" for n in range(1, 31)]
    assert delete(two, "/runs/mine") == 202
    until(lambda: simulator.stats.disconnects == 1)
    assert read(two, run, after=events[-1][1])[-2][2]["error"]["type"] == "cancelled"
    first = read(two, lost, 5)
    site.processes[0].kill()
    assert read(two, lost, after=first[-1][1])[-2][2]["error"]["type"] == "stream_broken"
    assert ask(two, f"/runs/{lost}")[2]["status"] == "failed"
    assert ask(two, f"/runs/{kept}")[2]["status"] == "running"
    assert stopped(site.processes[1], signal.SIGINT)[0] == 130


def test_a_worker_that_is_killed_leaves_its_runs_events_and_their_end(
    live: Commands, redis_url: str, slow_lm: tuple[Simulator, str]
) -> None:
    """Without a store, a run of a dead worker is 404; see tests/cli/test_workers.py."""
    site = Site(live, slow_lm[1], redis_url, 1, "--workers", "2")
    (where,) = site.where
    until(lambda: ask(where, "/health/ready")[2].get("workers_ready") == 2)
    of_worker: dict[int, list[str]] = {}
    until(lambda: start_in_one_worker(where, 4, of_worker) or len(of_worker) == 2)
    (killed, lost), (_, kept) = of_worker.items()
    begun = {run: read(where, run, 5) for run in (*lost, *kept)}
    os.kill(killed, signal.SIGKILL)
    until(lambda: ready(where) and all(status(where, run) == "failed" for run in lost))
    for run in lost:
        rest = read(where, run, after=begun[run][-1][1])
        assert rest[-2][2]["error"]["type"] == "stream_broken"
    for run in kept:
        assert [ident for _, ident, _ in read(where, run, 5)] == [ident for _, ident, _ in begun[run]]
        assert delete(where, f"/runs/{run}") == 202
    stopped(site.processes[0], signal.SIGINT)


def start_in_one_worker(where: Where, number: int, of_worker: dict[int, list[str]]) -> None:
    """Start runs in the worker that takes the next connection, which stays with it, unless that one has some."""
    with closing(http.client.HTTPConnection(*where, timeout=60)) as connection:

        def post(path: str, question: str) -> Any:
            connection.request("POST", path, json.dumps({"question": question}))
            return json.loads(connection.getresponse().read())

        pid = int(post("/predict", "who")["answer"])
        if pid not in of_worker:
            of_worker[pid] = [post("/runs", "why")["run"]["id"] for _ in range(number)]


def status(where: Where, run: str) -> str:
    try:
        code, _, reply = ask(where, f"/runs/{run}")
    except OSError:  # the worker's connection, as it dies
        return "not known"
    assert code == 200, reply
    told: str = reply["status"]
    return told


def ready(where: Where) -> bool:
    try:
        return bool(ask(where, "/health/ready")[2]["workers_ready"] == 2)
    except OSError:
        return False


def test_check_and_doctor_say_what_is_shared(live: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    live.write("which.py", PROGRAM)
    live.write("dspy-live.toml", FILE.format(lm="http://127.0.0.1:1", store="redis://127.0.0.1:1"))
    said = "runs of POST /runs, conversations, limits and quotas of keys"
    done = live.main("check")
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, f"  shared through [store]   {said}")
    monkeypatch.setenv("DSPY_LIVE_HOME", str(live.folder))
    assert f"through [store]: {said}" in live.main("doctor", "--no-network").stdout


MODULES = """
import sys
import dspy

class Modules(dspy.Module):
    async def aforward(self, question: str):
        return dspy.Prediction(answer=[name for name in sys.modules])

program = Modules()
"""
FOREIGN = ("redis", "psycopg", "ray")
OURS = ("dspy_live.server.runs.shared.", "dspy_live.server.workers.", "dspy_live.cli.workers.", "dspy_live.cli.on_ray.")


def test_a_server_without_a_store_imports_nothing_of_what_servers_share(live: Commands) -> None:
    live.write("modules.py", MODULES)
    environ = {"DSPY_LIVE_HOME": str(live.folder)}
    process = live.start("serve", "modules.py:program", "--sim", "--port", "0", "--lame-duck", "0", **environ)
    where = address(banner(process))
    start(where)
    modules = ask(where, "/predict", {"question": "x"})[2]["answer"]
    assert stopped(process, signal.SIGTERM)[0] == 0
    assert "dspy_live.server.runs.resumable" in modules
    assert [name for name in modules if name in FOREIGN or name.startswith(OURS)] == []
