"""``dspy-live serve --on ray``: a real Ray with its proxy, replicas that are processes, an LM that counts.

The environment took 11 s to make where its packages were on the machine. The tests share one cluster and one server.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.scale.cluster import PATIENCE, Serving
from tests.support.until import until
from websockets.sync.client import connect

from dspy_live.simulator.server import Simulator

pytestmark = [pytest.mark.timeout(600), pytest.mark.ray]
ENDLESS = "[sim tps=20 length=20000]"
SLOW = "[sim tps=20 length=60]"
SLOWER = "[sim tps=20 length=400]"


@pytest.fixture(scope="module")
def server(environ: dict[str, str]) -> Iterator[Serving]:
    words = ["programs.py:program", "--port", "0", "--replicas", "2:3", "--runs-per-replica", "4", "--no-ledger"]
    with Serving(environ, [*words, "--drain", "30"]) as serving:
        yield serving


@pytest.fixture(autouse=True)
def quiet(lm: Simulator) -> Iterator[None]:
    """No run of one test goes on into the next."""
    yield
    until(lambda: lm.stats.active == 0, PATIENCE)


def ask(server: Serving, question: str) -> httpx.Response:
    return httpx.post(f"{server.url}/predict", json={"question": question}, timeout=PATIENCE)


def pids(server: Serving) -> set[str]:
    """The replicas' processes, as far as sixteen questions find them."""
    with ThreadPoolExecutor(16) as pool:
        return {reply.json()["answer"] for reply in pool.map(lambda _: ask(server, "pid"), range(16))}


def events(reply: httpx.Response) -> Iterator[str]:
    """Yield the names of a stream's events."""
    for line in reply.iter_lines():
        if line.startswith("event: "):
            yield line.removeprefix("event: ")


def stream(server: Serving, question: str) -> Any:
    return httpx.stream("POST", f"{server.url}/predict/stream", json={"question": question}, timeout=PATIENCE)


def read(server: Serving, question: str) -> str:
    """Read a stream to its end, and return how it ended: ``prediction``, ``error``, or that it was cut."""
    names = []
    try:
        with stream(server, question) as reply:
            names += events(reply)
    except httpx.HTTPError:
        return "cut"
    return names[-2] if names[-1:] == ["done"] else "cut"


def test_the_routes_are_those_of_one_process(server: Serving) -> None:
    for path in ("/", "/docs", "/static/main.js", "/health/ready", "/programs", "/v1/models", "/metrics", "/stats"):
        reply = httpx.get(server.url + path, timeout=PATIENCE)
        assert reply.status_code == 200, (path, reply.text)
    assert ask(server, "Why?").json()["answer"]
    assert httpx.post(f"{server.url}/predict", json={}, timeout=PATIENCE).status_code == 422
    model = httpx.get(f"{server.url}/v1/models", timeout=PATIENCE).json()["data"][0]["id"]
    body = {"model": model, "messages": [{"role": "user", "content": "Why?"}]}
    said = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE).json()
    assert said["choices"][0]["message"]["content"], said


def test_statistics_are_those_of_all_replicas(server: Serving) -> None:
    """Each replica counts for itself; whichever one the proxy asks tells the sum."""
    before = httpx.get(f"{server.url}/stats", timeout=PATIENCE).json()["succeeded"]
    assert len(pids(server)) > 1
    for _ in range(6):
        assert httpx.get(f"{server.url}/stats", timeout=PATIENCE).json()["succeeded"] == before + 16


def test_tokens_arrive_one_by_one_and_a_leaving_client_ends_the_lm_call(server: Serving, lm: Simulator) -> None:
    """ray-project/ray#59681: streams were held back in batches. Here the answer has no end when its start arrives."""
    with stream(server, ENDLESS) as reply:
        tokens = (name for name in events(reply) if name == "token")
        for _ in range(5):
            next(tokens)
        assert lm.stats.active == 1
    until(lambda: lm.stats.active == 0, PATIENCE)


def test_websocket_streams_and_a_leaving_client_ends_the_lm_call(server: Serving, lm: Simulator) -> None:
    with connect(server.url.replace("http", "ws") + "/ws", open_timeout=PATIENCE, proxy=None) as socket:
        socket.send(ENDLESS)
        for _ in range(5):
            assert socket.recv(PATIENCE)
        assert lm.stats.active == 1
    until(lambda: lm.stats.active == 0, PATIENCE)


def test_replicas_are_not_stuck_by_clients_that_leave(server: Serving, lm: Simulator) -> None:
    """ray-project/ray#44644: requests that were cancelled as they began stayed counted, until no more were taken."""

    def leave(number: int) -> None:
        with stream(server, ENDLESS) as reply:
            if number % 2:
                next(events(reply))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(leave, range(40)))
    until(lambda: lm.stats.active == 0, PATIENCE)
    until(lambda: httpx.get(f"{server.url}/stats", timeout=PATIENCE).json()["active"] == 0, PATIENCE)
    assert ask(server, "Why?").status_code == 200


def test_a_run_of_one_replica_is_found_through_the_others(server: Serving, lm: Simulator) -> None:
    made = httpx.post(f"{server.url}/runs", json={"question": ENDLESS}, timeout=PATIENCE)
    run = made.json()["run"]["id"]
    for _ in range(6):
        assert httpx.get(f"{server.url}/runs/{run}", timeout=PATIENCE).status_code == 200
    assert httpx.delete(f"{server.url}/runs/{run}", timeout=PATIENCE).is_success
    until(lambda: lm.stats.active == 0, PATIENCE)


def test_more_runs_make_more_replicas(server: Serving, lm: Simulator) -> None:
    """Two replicas and twelve runs, four for each: Ray starts the third."""
    with ThreadPoolExecutor(12) as pool:
        leaving = False

        def hold(_: int) -> None:
            with stream(server, ENDLESS) as reply:
                for _ in events(reply):
                    if leaving:
                        return

        held = [pool.submit(hold, number) for number in range(12)]
        until(lambda: len(pids(server)) == 3, PATIENCE)
        leaving = True
        for one in held:
            one.result(PATIENCE)


def test_a_killed_replica_takes_only_its_own_runs_with_it(server: Serving, lm: Simulator) -> None:
    with ThreadPoolExecutor(16) as pool:
        running = [pool.submit(read, server, SLOWER) for _ in range(8)]
        until(lambda: lm.stats.active == 8, PATIENCE)
        assert ask(server, "die").status_code >= 500
        after = [pool.submit(ask, server, "Why?") for _ in range(12)]
        assert [one.result(PATIENCE).status_code for one in after] == [200] * 12
        ends = [one.result(PATIENCE) for one in running]
        assert set(ends) == {"prediction", "cut"}, ends
    until(lambda: len(pids(server)) >= 2, PATIENCE)


def test_renewed_replicas_lose_no_request(server: Serving) -> None:
    old = pids(server)
    with ThreadPoolExecutor(4) as pool:
        server.process.send_signal(signal.SIGHUP)
        codes: list[int] = []

        def go_on() -> None:
            while "new replicas" not in server.log():
                codes.append(ask(server, "Why?").status_code)

        for one in [pool.submit(go_on) for _ in range(4)]:
            one.result(PATIENCE)
    assert codes
    assert set(codes) == {200}
    until(lambda: not pids(server) & old, PATIENCE)
