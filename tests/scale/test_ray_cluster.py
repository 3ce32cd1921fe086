"""``--on ray`` on a cluster that stands already, which ``RAY_ADDRESS`` names: four processors, a small store."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.scale.cluster import HERE, PATIENCE, Serving, batch, cluster, json_lines, python
from tests.scale.talk import ENDLESS, ask, events, pids, stream
from tests.support.databases import running_redis
from tests.support.until import until

from dspy_live.simulator.server import Simulator

pytestmark = [pytest.mark.timeout(600), pytest.mark.ray]
CALLS = 15
"""The budget of spending.py."""
ONGOING = """
import json, ray
ray.init(address="auto", namespace="serve", logging_level="ERROR")
names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
replicas = [ray.get_actor(name, namespace="serve") for name in names if name.startswith("SERVE_REPLICA::")]
print(json.dumps(ray.get([replica.get_num_ongoing_requests.remote() for replica in replicas])))
"""


@pytest.fixture(scope="module")
def on_cluster(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    with cluster(environ) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server is started; a test may break the program there."""
    made = tmp_path_factory.mktemp("served")
    shutil.copy(HERE / "programs.py", made)
    text = '[store]\nurl_env = "STORE_HERE"\n\n[programs.qa]\ntarget = "programs.py:program"\n'
    (made / "serve.toml").write_text(text)
    return made


@pytest.fixture(scope="module")
def server(on_cluster: dict[str, str], folder: Path) -> Iterator[Serving]:
    words = ["--config", "serve.toml", "--port", "0", "--replicas", "1:2", "--runs-per-replica", "4", "--no-ledger"]
    with running_redis() as redis:
        environ = {**on_cluster, "STORE_HERE": f"redis://127.0.0.1:{redis.port}"}
        with Serving(environ, words, folder) as serving:
            yield serving


def test_the_configuration_file_is_that_of_one_process(server: Serving) -> None:
    assert '"qa"' in httpx.get(f"{server.url}/programs", timeout=PATIENCE).text
    asked = httpx.post(f"{server.url}/programs/qa/predict", json={"question": "Why?"}, timeout=PATIENCE)
    assert asked.json()["answer"]
    metrics = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text
    assert [line for line in metrics.splitlines() if line.startswith("dspy_live_requests_total{") and '"qa"' in line]


def test_more_runs_make_more_replicas(server: Serving, lm: Simulator) -> None:
    """One replica and eight runs, four for each: Ray starts the second."""
    first = pids(server)
    with ThreadPoolExecutor(8) as pool:
        leaving = False

        def hold(_: int) -> None:
            with stream(server, ENDLESS) as reply:
                for _ in events(reply):
                    if leaving:
                        return

        held = [pool.submit(hold, number) for number in range(8)]
        until(lambda: pids(server) - first, PATIENCE)  # Ray asks the one that has less to do
        leaving = True
        for one in held:
            one.result(PATIENCE)
    until(lambda: lm.stats.active == 0, PATIENCE)


def test_rays_own_counts_are_zero_when_all_have_left(server: Serving, lm: Simulator) -> None:
    """ray-project/ray#44644, #61551: requests that were cancelled stayed counted, for routing and for autoscaling."""

    def leave(number: int) -> None:
        with stream(server, ENDLESS) as reply:
            if number % 2:
                next(events(reply))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(leave, range(60)))
    until(lambda: lm.stats.active == 0, PATIENCE)
    asked = subprocess.run(
        [python(), "-c", ONGOING], env=server.on_cluster, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert asked.returncode == 0, asked.stderr
    counts = json.loads(asked.stdout.splitlines()[-1])
    assert counts == [0, 0]


def test_a_run_of_a_killed_replica_is_told_to_its_end_by_another(server: Serving, lm: Simulator) -> None:
    """With a ``[store]``; the stream of its events may be cut, and its client asks for the rest."""
    made = httpx.post(f"{server.url}/runs", json={"question": ENDLESS}, timeout=PATIENCE)
    path = f"{server.url}/runs/{made.json()['run']['id']}/events"
    with httpx.stream("GET", path, timeout=PATIENCE) as reply:
        begun = events(reply)
        first = [next(begun) for _ in range(5)]
    while lm.stats.active:
        assert ask(server, "die").status_code == 502
    with httpx.stream("GET", path, timeout=PATIENCE) as reply:
        told = list(events(reply))
    assert told[:1] == first[:1] == ["started"]
    assert set(told[1:-2]) <= {"token"}  # what the replica had told the store before it was killed
    assert told[-2:] == ["error", "done"]


def test_renewed_replicas_lose_no_request_and_broken_ones_take_no_place(server: Serving, folder: Path) -> None:
    old = pids(server)
    source = (folder / "programs.py").read_text()
    (folder / "programs.py").write_text("raise RuntimeError('a mistake')\n")
    server.process.send_signal(signal.SIGHUP)
    told = "the old replicas go on: the replicas did not start: programs.py can't be imported: RuntimeError: a mistake"
    until(lambda: told in server.log(), PATIENCE)
    assert pids(server) <= old
    (folder / "programs.py").write_text(source)
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


def test_the_end_of_the_server_is_the_end_of_rays_proxy(server: Serving) -> None:
    """Ray Serve would hold the port for as long as the cluster stands, and give it to the next server."""
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, timeout=PATIENCE)


def test_a_budget_and_a_ledger_are_those_of_one_machine(
    on_cluster: dict[str, str], tmp_path: Path, lm: Simulator, redis_url: str, postgres_url: str
) -> None:
    """Parquet, in groups of ten rows. Fifteen calls are allowed to both workers together, and each run is a row."""
    code = (
        "import pyarrow, pyarrow.parquet as parquet\n"
        "table = pyarrow.table({'question': [f'How {n}?' for n in range(25)]})\n"
        "parquet.write_table(table, 'rows.parquet', row_group_size=10)\n"
    )
    subprocess.run([python(), "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
    asked = lm.stats.requests
    given = {**on_cluster, "DSPY_TEST_BUDGET": redis_url, "DSPY_LIVE_LEDGER": postgres_url}
    words = ["-o", "out.jsonl", "--concurrency", "1", "--on", "ray", "--workers", "2"]
    ran = batch(given, tmp_path, "rows.parquet", *words, program="spending.py:program")
    assert ran.returncode == 1, ran.stderr
    assert "dspy-live: 25 rows, 10 failed\n  10 BudgetExceeded" in ran.stderr
    assert lm.stats.requests - asked == CALLS
    made = json_lines(tmp_path / "out.jsonl")
    assert [line["input"] for line in made] == [{"question": f"How {n}?"} for n in range(25)]
    with psycopg.connect(postgres_url) as connection:
        (runs,) = connection.execute("select count(*) from runs").fetchone() or ()
    assert runs == 25


def test_a_file_larger_than_memory_goes_through(on_cluster: dict[str, str], tmp_path: Path) -> None:
    """Its text is twice what the cluster's store holds, and each row comes back in the output."""
    text = "x" * 1_000_000
    with (tmp_path / "rows.jsonl").open("w") as file:
        for number in range(160):
            file.write(json.dumps({"question": f"{number} {text}"}) + "\n")
    words = ["-o", "out.jsonl", "--concurrency", "1", "--on", "ray", "--workers", "2"]
    ran = batch(on_cluster, tmp_path, "rows.jsonl", *words, program="programs.py:weighing")
    assert ran.returncode == 0, ran.stderr
    sizes = []
    with (tmp_path / "out.jsonl").open() as lines:
        for number, line in enumerate(lines):
            made = json.loads(line)
            assert made["input"]["question"].startswith(f"{number} ")
            sizes.append(int(made["output"]["answer"]))
    assert len(sizes) == 160
    assert max(sizes) - min(sizes) < 100, "a worker holds a range of four rows, and not what it has had before"


def test_what_would_fail_every_row_is_told_in_a_line(on_cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question\nWhy?\n")
    ran = batch(on_cluster, tmp_path, "rows.csv", "-o", "out.jsonl", "--on", "ray")
    assert ran.returncode == 2
    assert "--on ray reads JSON Lines and .parquet files" in ran.stderr
