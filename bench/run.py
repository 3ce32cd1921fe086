"""dspy-live's server beside others, on the same program and the same LM: one scenario after the other, interleaved.

    python bench/run.py [--scenarios requests,burst] [--systems live,native] [--runs 3] [--seconds 4] [--out FILE]
    BENCH_LM_PORT=9210 python bench/run.py --url http://127.0.0.1:8000 …      your own server, whose LM is at that port

Linux, two cores: the system under test has the first core for itself, the LM and the load share the second. Printed are
medians and ranges of the runs, and how many times better dspy-live is than each of the others. A scenario in which the
load itself was short of its core, or a request failed, is marked with ``!``. All of it takes a quarter of an hour.

Systems: live (``dspy-live serve`` with metrics and ledger, as a user starts it), native (DSPy's asynchronous path
behind FastAPI at its best), tutorial (as DSPy's deployment tutorial serves it), relay (bytes handed on, the least that
any server costs). Where it is asked for: python (live, with its compiled part left alone).

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
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from report import plot, table
from systems import HERE, LM_PORT, SYSTEMS, System, system_at


@dataclass(frozen=True)
class Scenario:
    """The LM's and the load's command lines; ``unit`` is what CPU time is divided by."""

    lm: list[str]
    load: list[str]
    unit: str
    shows: tuple[str, ...]
    streams: bool = False


def scenario(name: str, seconds: float) -> Scenario:
    """Return the scenario of that name. Raises ``ValueError`` for an unknown one."""
    kind, _, number = name.partition("-")
    if name == "requests":
        return Scenario([], ["--connections", "32"], "requests", ("rate", "p50_ms", "p99_ms", "cpu_us"))
    if name == "waiting":
        return Scenario(["--delay", "0.5"], ["--connections", "500"], "requests", ("rate", "p99_ms", "cpu_us"))
    if name == "burst":
        return Scenario([], ["--connections", "32"], "chunks", ("rate", "p99_ms", "cpu_us"), True)
    if kind == "paced" and number.isdigit():
        chunks = str(max(20, int(seconds / 0.02)))
        load = ["--connections", number, "--once", "--ramp", "2"]
        lm = ["--chunks", chunks, "--interval", "0.02"]
        return Scenario(lm, load, "chunks", ("cpu_us", "done", "first_p50_ms", "first_p99_ms"), True)
    if name == "leave":
        load = ["--connections", "20", "--once", "--ramp", "1", "--leave", "5"]
        lm = ["--chunks", "1000", "--interval", "0.01"]
        return Scenario(lm, load, "chunks", ("closed_p50_ms", "closed_max_ms", "done"), True)
    if kind == "idle" and number.isdigit():
        load = ["--connections", number, "--once", "--ramp", "2"]
        lm = ["--chunks", str(max(3, int(seconds))), "--interval", "1"]
        return Scenario(lm, load, "chunks", ("memory_mb", "done"), True)
    raise ValueError(f"no scenario {name!r}")


@contextmanager
def process(
    words: list[str], core: int, port: int, environ: dict[str, str] | None = None, log: IO[bytes] | None = None
) -> Iterator[int]:
    """Run Python on one core until the block ends; gives its process id once its port answers.

    ``log`` takes what it writes to its standard error.
    """
    cores = sorted(os.sched_getaffinity(0))
    chosen = {cores[min(core, len(cores) - 1)]}
    started = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
        stderr=log,
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


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process, user and system; 0 for one that is not ours."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int | None) -> float:
    """Return the resident memory of a process; 0 for one that is not ours."""
    if pid is None:
        return 0.0
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def stats_of_lm() -> dict[str, Any]:
    """Ask the LM what it has sent."""
    connection = http.client.HTTPConnection("127.0.0.1", LM_PORT, timeout=20)
    connection.request("GET", "/stats")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def warm_up(system: System, path: str) -> None:
    """Let the system under test import and make what it makes once."""
    for n in range(20):
        connection = http.client.HTTPConnection(system.host, system.port, timeout=30)
        asked: dict[str, Any] = {"question": f"warm {n}"}
        if system.chat:
            asked = {"messages": [{"role": "user", "content": f"warm {n}"}]}
        connection.request("POST", path, json.dumps(asked), {"content-type": "application/json"})
        reply = connection.getresponse()
        if n < 3 and reply.status != 200:
            raise RuntimeError(f"{path} answers {reply.status}: {reply.read()[:300]!r}")
        connection.close() if "stream" in path else reply.read()
        connection.close()


def measure(name: str, system: System, of: str, seconds: float, home: str) -> dict[str, Any]:
    """Run one scenario against one system and return its figures; ``home`` is where dspy-live keeps its ledger."""
    plan = scenario(of, seconds)
    path = system.stream if plan.streams else system.predict
    environ = {"BENCH_LM": f"http://127.0.0.1:{LM_PORT}/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    environ |= {"DSPY_LIVE_HOME": home, "DSPY_CACHEDIR": home, **dict(system.environ)}
    lm = [str(HERE / "fake_lm.py"), "--port", str(LM_PORT), *plan.lm]
    started = process([*system.words], 0, system.port, environ) if system.words else nullcontext(None)
    with process(lm, 1, LM_PORT), started as pid:
        warm_up(system, path)
        time.sleep(0.5)
        before, cpu, memory = stats_of_lm(), cpu_seconds(pid), memory_mb(pid)
        words = [str(HERE / "load.py"), "--url", f"http://{system.host}:{system.port}{path}", *plan.load]
        words += ["--seconds", str(seconds), *(["--mark", system.mark] if plan.streams else [])]
        words += ["--chat"] if system.chat else []
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
    own = {"cpu_us": round(cpu / units * 1e6, 1) if units else None, "memory_mb": round(highest - memory, 1)}
    return {
        **found,
        **closed,
        **(own if pid is not None else {}),
        "system": name,
        "scenario": of,
        "load_share": round(share, 2),
    }


def _closed(left: list[float], seen: list[float]) -> dict[str, float]:
    if not left or len(seen) != len(left):
        return {}
    waits = [(after - before) * 1000 for before, after in zip(sorted(left), sorted(seen), strict=True)]
    return {"closed_p50_ms": round(statistics.median(waits), 1), "closed_max_ms": round(max(waits), 1)}


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="requests,waiting,burst,paced-100,paced-500,paced-1000,leave,idle-1000")
    parser.add_argument("--systems", default="live,native,tutorial,relay")
    parser.add_argument("--url", help="your own server, as one more system")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, help="append every run to this file, as JSON Lines")
    parser.add_argument("--plot", type=Path, help="draw the figures into this PNG")
    args = parser.parse_args()
    if sys.platform != "linux":
        parser.error("the benchmark reads /proc and pins processes to cores: it runs on Linux")
    try:
        shows = {name: scenario(name, args.seconds).shows for name in args.scenarios.split(",")}
        systems = {name: SYSTEMS[name] for name in args.systems.split(",") if name}
        if args.url:
            systems["yours"] = system_at(args.url)
    except KeyError as exc:
        parser.error(f"no system {exc}; there are {', '.join(SYSTEMS)}")
    except ValueError as exc:
        parser.error(str(exc))
    results = []
    with tempfile.TemporaryDirectory(prefix="dspy-live-bench-") as home:
        for name in shows:
            for _ in range(args.runs):
                for key, system in systems.items():
                    result = measure(key, system, name, args.seconds, home)
                    results.append(result)
                    print(json.dumps(result), file=sys.stderr, flush=True)
                    if args.out:
                        with args.out.open("a") as file:
                            file.write(json.dumps(result) + "\n")
    titles = {name: system.title for name, system in systems.items()}
    print(table(results, shows, titles))
    if args.plot:
        plot(results, shows, titles, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
