"""``--on ray`` with a real Ray: one cluster and one server for all, replicas that are processes, an LM that counts.

The tests run in this order: the last one ends the server.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.scale.cluster import PATIENCE, Serving, batch, json_lines
from tests.scale.talk import ENDLESS, SLOW, ask, events, pids, read, stats, stream
from tests.support.until import until
from websockets.sync.client import connect

from dspy_live.simulator.server import Simulator

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's other systems are not ours: docs/scale.md names Linux"),
]


@pytest.fixture(scope="module")
def server(environ: dict[str, str]) -> Iterator[Serving]:
    words = ["programs.py:program", "--port", "0", "--replicas", "2", "--no-ledger", "--drain", "30"]
    with Serving(environ, words) as serving:
        yield serving


@pytest.fixture(autouse=True)
def quiet(lm: Simulator) -> Iterator[None]:
    """No run of one test goes on into the next."""
    yield
    until(lambda: lm.stats.active == 0, PATIENCE)


@pytest.fixture(autouse=True)
def told(server: Serving, request: pytest.FixtureRequest) -> Iterator[None]:
    """What Ray has logged is told with a test that fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(server.tail())


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
    before, looks = stats(server)["succeeded"], [pids(server)]
    # While a replica stands still, Ray asks the others.
    until(lambda: len(looks[-1]) > 1 or looks.append(pids(server)), PATIENCE)
    for _ in range(6):
        assert stats(server)["succeeded"] == before + 16 * len(looks)


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


def test_a_killed_replica_takes_only_its_own_runs_with_it(server: Serving, lm: Simulator) -> None:
    """Nothing is lost that had not begun; what had begun ends with an error, and with none of its own wire."""
    for _ in range(5):  # Ray may have given all runs to one replica, while the other one stood still
        ends = ends_beside_a_killed_replica(server, lm)
        assert ends <= {"goes on", "error"}
        if len(ends) == 2:
            return
    pytest.fail("a killed replica takes all runs with it, or none")


def ends_beside_a_killed_replica(server: Serving, lm: Simulator) -> set[str]:
    """Kill a replica while eight runs are under way and twelve come; return how the eight have ended."""
    enough = threading.Event()
    with ThreadPoolExecutor(24) as pool:
        running = [pool.submit(read, server, ENDLESS, enough) for _ in range(8)]
        until(lambda: lm.stats.active == 8, PATIENCE)
        killed = ask(server, "die")
        assert (killed.status_code, killed.json()["error"]["type"]) == (502, "stream_broken")
        after = [pool.submit(ask, server, "Why?") for _ in range(12)]
        assert [one.result(PATIENCE).status_code for one in after] == [200] * 12
        enough.set()
        ends = {one.result(PATIENCE) for one in running}
    until(lambda: len(pids(server)) == 2, PATIENCE)
    until(lambda: lm.stats.active == 0, PATIENCE)
    return ends


def test_a_batch_is_that_of_one_machine_although_a_worker_dies(
    server: Serving, environ: dict[str, str], tmp_path: Path, lm: Simulator
) -> None:
    """It goes on with the checkpoint of one machine. The rows of the dead worker are asked again, by another one."""
    mark = tmp_path / "died"
    rows = [{"question": f"How {n}?", "extra": n} for n in range(40)]
    rows[21]["question"] = f"die {mark}"
    text = [json.dumps(row) for row in rows]
    text[7] = "no JSON"
    (tmp_path / "rows.jsonl").write_text("\n".join(text) + "\n\n")
    words = ["--concurrency", "2", "--checkpoint", "kept.jsonl"]
    mark.touch()
    one = batch(environ, tmp_path, "rows.jsonl", "-o", "one.jsonl", *words)
    assert "dspy-live: 40 rows, 1 failed\n  1 InvalidInput, first in row 7" in one.stderr
    kept = (tmp_path / "kept.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "kept.jsonl").write_text("".join(kept[:11]))
    mark.unlink()

    asked = lm.stats.requests
    on_ray = ["--on", "ray", "--workers", "2"]
    many = batch(server.on_cluster, tmp_path, "rows.jsonl", "-o", "many.jsonl", *words, *on_ray)
    assert many.returncode == 1, many.stderr
    assert mark.exists()
    assert "dspy-live: 40 rows, 1 failed\n  1 InvalidInput, first in row 7" in many.stderr
    assert json_lines(tmp_path / "many.jsonl") == json_lines(tmp_path / "one.jsonl")
    assert 29 <= lm.stats.requests - asked <= 29 + 8  # and what the dead worker's range of eight rows had asked


def test_a_stream_that_has_begun_is_finished_at_the_end(server: Serving, lm: Simulator) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(read, server, SLOW)
        until(lambda: lm.stats.active == 1, PATIENCE)
        server.process.terminate()
        assert running.result(PATIENCE) == "prediction"
    assert server.process.wait(PATIENCE) == 0
