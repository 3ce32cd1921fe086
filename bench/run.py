"""dspy-live's server beside DSPy's own path behind FastAPI, on the same program and the same LM, one after the other.

    python bench/run.py [--scenarios requests,burst] [--systems live,peer] [--runs 3] [--seconds 5] [--out FILE]

Linux, two cores: the system under test has the first core for itself, the LM and the load share the second. Printed are
medians of the runs, and how many times better dspy-live is. A run in which the load itself was short of its core is
marked with ``!`` and says nothing.

    requests    32 connections, one reply each, LM without delay
    waiting     500 connections, LM takes 500 ms
    burst       32 streams, 100 chunks at once
    paced-N     N streams of a chunk every 20 ms
    leave       streams that are left after 5 tokens: how long until the LM's connection closes
    idle-N      N streams of a chunk a second: memory
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LM_PORT, PORT = 9210, 8210
SYSTEMS = {
    "live": ["-m", "dspy_live", "serve", f"{HERE / 'live_program.py'}:program", "--port", str(PORT), "--no-ledger"],
    "peer": ["-m", "uvicorn", "--app-dir", str(HERE), "peer_app:app", "--port", str(PORT), "--loop", "uvloop",
             "--no-access-log", "--log-level", "warning", "--backlog", "4096"],
}  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """The LM's and the load's command lines; ``unit`` is what CPU time is divided by."""

    lm: list[str]
    load: list[str]
    unit: str
    shows: tuple[str, ...]


def scenario(name: str, seconds: float) -> Scenario:
    """Return the scenario of that name. Raises ``ValueError`` for an unknown one."""
    kind, _, number = name.partition("-")
    streams = ["--mark", "event: token"]
    if name == "requests":
        return Scenario([], ["--connections", "32"], "requests", ("rate", "p50_ms", "p99_ms", "cpu_us"))
    if name == "waiting":
        return Scenario(["--delay", "0.5"], ["--connections", "500"], "requests", ("rate", "p99_ms", "cpu_us"))
    if name == "burst":
        return Scenario([], ["--connections", "32", *streams], "chunks", ("rate", "p99_ms", "cpu_us"))
    if kind == "paced" and number.isdigit():
        chunks = str(max(20, int(seconds / 0.02)))
        load = ["--connections", number, "--once", "--ramp", "2", *streams]
        lm = ["--chunks", chunks, "--interval", "0.02"]
        return Scenario(lm, load, "chunks", ("done", "first_p50_ms", "first_p99_ms", "cpu_us"))
    if name == "leave":
        load = ["--connections", "20", "--once", "--ramp", "1", "--leave", "5", *streams]
        return Scenario(
            ["--chunks", "1000", "--interval", "0.01"], load, "chunks", ("done", "closed_p50_ms", "closed_max_ms")
        )
    if kind == "idle" and number.isdigit():
        load = ["--connections", number, "--once", "--ramp", "2", *streams]
        return Scenario(
            ["--chunks", str(max(3, int(seconds))), "--interval", "1"], load, "chunks", ("done", "memory_mb")
        )
    raise ValueError(f"no scenario {name!r}")


@contextmanager
def process(words: list[str], core: int, port: int, environ: dict[str, str] | None = None) -> Iterator[int]:
    """Run Python on one core until the block ends; gives its process id once its port answers."""
    cores = sorted(os.sched_getaffinity(0))
    chosen = {cores[min(core, len(cores) - 1)]}
    started = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )
    try:
        for _ in range(600):
            if started.poll() is not None:
                raise RuntimeError(f"{' '.join(words[:3])} ended by itself")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            try:
                connection.connect()
                break
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        yield started.pid
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def stats_of_lm() -> dict[str, Any]:
    """Ask the LM what it has sent."""
    connection = http.client.HTTPConnection("127.0.0.1", LM_PORT, timeout=20)
    connection.request("GET", "/stats")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def warm_up(path: str) -> None:
    """Let the system under test import and make what it makes once."""
    for n in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        connection.request("POST", path, json.dumps({"question": f"warm {n}"}), {"content-type": "application/json"})
        reply = connection.getresponse()
        if n < 3 and reply.status != 200:
            raise RuntimeError(f"{path} answers {reply.status}: {reply.read()[:300]!r}")
        connection.close() if "stream" in path else reply.read()
        connection.close()


def measure(system: str, name: str, seconds: float) -> dict[str, Any]:
    """Run one scenario against one system and return its figures."""
    plan = scenario(name, seconds)
    path = "/predict/stream" if "--mark" in plan.load else "/predict"
    environ = {"BENCH_LM": f"http://127.0.0.1:{LM_PORT}/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    lm = [str(HERE / "fake_lm.py"), "--port", str(LM_PORT), *plan.lm]
    with process(lm, 1, LM_PORT), process(SYSTEMS[system], 0, PORT, environ) as pid:
        warm_up(path)
        time.sleep(0.5)
        before, cpu, memory = stats_of_lm(), cpu_seconds(pid), memory_mb(pid)
        url = f"http://127.0.0.1:{PORT}{path}"
        words = [str(HERE / "load.py"), "--url", url, "--seconds", str(seconds), *plan.load]
        load = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
        )
        highest = memory
        while load.poll() is None:
            time.sleep(0.1)
            highest = max(highest, memory_mb(pid))
        assert load.stdout
        found: dict[str, Any] = json.loads(load.stdout.read())
        time.sleep(0.3)
        cpu, after = cpu_seconds(pid) - cpu, stats_of_lm()
    units = after[plan.unit] - before[plan.unit]
    closed = _closed(found.pop("left"), [at for at, _ in after["left"][len(before["left"]) :]])
    share = (found["cpu"] + after["cpu"] - before["cpu"]) / found["seconds"]
    return {
        **found,
        **closed,
        "system": system,
        "scenario": name,
        "cpu_us": round(cpu / units * 1e6, 1) if units else None,
        "memory_mb": round(highest - memory, 1),
        "load_share": round(share, 2),
    }


def _closed(left: list[float], seen: list[float]) -> dict[str, float]:
    if not left or len(seen) != len(left):
        return {}
    waits = [(after - before) * 1000 for before, after in zip(sorted(left), sorted(seen), strict=True)]
    return {"closed_p50_ms": round(statistics.median(waits), 1), "closed_max_ms": round(max(waits), 1)}


def table(results: list[dict[str, Any]], seconds: float) -> str:
    """Return the medians as a Markdown table, with dspy-live's advantage where both were run."""
    lines = ["| scenario | figure | dspy-live | DSPy and FastAPI | ratio |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(r["scenario"] for r in results):
        for figure in scenario(name, seconds).shows:
            cells = {}
            for system in SYSTEMS:
                values = [
                    r[figure]
                    for r in results
                    if (r["scenario"], r["system"]) == (name, system) and r.get(figure) is not None
                ]
                cells[system] = statistics.median(values) if values else None
            live, peer = cells["live"], cells["peer"]
            more = figure in ("rate", "done")
            ratio = "" if not live or not peer else f"{(live / peer if more else peer / live):.1f}"
            flaws = [r for r in results if r["scenario"] == name and (r["load_share"] > 0.95 or r["failed"])]
            mark = "!" if flaws else ""
            lines.append(f"| {name}{mark} | {figure} | {_cell(live)} | {_cell(peer)} | {ratio} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="requests,waiting,burst,paced-100,paced-500,paced-1000,leave,idle-1000")
    parser.add_argument("--systems", default="live,peer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, help="append every run to this file, as JSON Lines")
    args = parser.parse_args()
    if sys.platform != "linux":
        parser.error("the benchmark reads /proc and pins processes to cores: it runs on Linux")
    names = args.scenarios.split(",")
    for name in names:
        scenario(name, args.seconds)
    results = []
    for name in names:
        for _ in range(args.runs):
            for system in args.systems.split(","):
                result = measure(system, name, args.seconds)
                results.append(result)
                print(json.dumps(result), file=sys.stderr, flush=True)
                if args.out:
                    with args.out.open("a") as file:
                        file.write(json.dumps(result) + "\n")
    print(table(results, args.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
