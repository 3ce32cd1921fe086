"""How dspy-live's cost grows with the number of streams and with the length of a reply: per token it should not.

    python bench/scaling.py [--out docs/images/scaling.json] [--plot docs/images/scaling.png] [--quick]

Linux. All figures are CPU time of the server process, as the scheduler counts it. LM and load have another core. On a
machine that does something else besides, ``sudo chrt -r 1`` before the command gives it the cores when it wants them.
It takes 6 minutes; ``--quick`` takes half a minute, for a look.

    streams   10 to 5,000 are open, with 2,000 tokens a second in all: CPU to begin one, CPU per token, memory of each
    tokens    replies of 10 to 100,000 tokens, one at a time, 10 tokens every 2 ms: CPU per reply and token, and memory
    requests  replies that do not stream, 32 at once
    mixed     50, 100 and 200 clients that ask again and again for 50 tokens, one every 20 ms: the simulation is held
              against that
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run import memory_mb, process, stats_of_lm, warm_up
from scaling_plot import draw, table
from systems import HERE, LM_PORT, SYSTEMS

LIVE = SYSTEMS["live"]
RATE = 2000.0
"""Tokens a second of all streams together."""
STARTS = 500.0
"""Streams that begin in a second."""
STREAMS = (10, 50, 200, 1000, 2000, 5000)
TOKENS = (10, 100, 1000, 10_000, 100_000)
CLIENTS = (50, 100, 200)
IMAGES = HERE.parent / "docs" / "images"
Point = dict[str, Any]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int(thread.joinpath("schedstat").read_text().split()[0]) for thread in threads) / 1e9


@contextmanager
def server(lm: list[str], home: str) -> Iterator[int]:
    """Run the LM and the server, warmed up; gives the server's process id."""
    environ = {"BENCH_LM": f"http://127.0.0.1:{LM_PORT}/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    environ |= {"DSPY_LIVE_HOME": home, "DSPY_CACHEDIR": home}
    fake = [str(HERE / "fake_lm.py"), "--port", str(LM_PORT), *lm]
    with (
        Path(home, "log").open("wb") as log,
        process(fake, 1, LM_PORT),
        process([*LIVE.words], 0, LIVE.port, environ, log) as pid,
    ):
        warm_up(LIVE, LIVE.predict)
        time.sleep(0.5)
        yield pid


@contextmanager
def load(path: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``bench/load.py`` on the core that the server does not have."""
    url = f"http://127.0.0.1:{LIVE.port}{path}"
    asking = subprocess.Popen(
        [sys.executable, str(HERE / "load.py"), "--url", url, *words],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
    )
    try:
        yield asking
    finally:
        asking.kill()
        asking.wait()
        assert asking.stdout
        asking.stdout.close()


def said_by(asking: subprocess.Popen[str]) -> str:
    """Return what the load printed."""
    assert asking.stdout
    return asking.stdout.read()


def of_streams(streams: int, seconds: float, home: str) -> Point:
    """Open so many streams, and look for so many seconds at what they cost while nothing begins and nothing ends."""
    interval, opening = streams / RATE, streams / STARTS
    chunks = max(3, int((opening + 3 * seconds + 10) / interval))
    words = ["--mark", LIVE.mark, "--connections", str(streams), "--once", "--ramp", str(opening)]
    with server(["--chunks", str(chunks), "--interval", str(interval)], home) as pid:
        before, cpu, memory = stats_of_lm(), cpu_seconds(pid), memory_mb(pid)
        with load(LIVE.stream, *words) as asking:
            while (open_now := stats_of_lm())["requests"] - before["requests"] < streams:
                if asking.poll() is not None:
                    raise RuntimeError(f"the load ended: {said_by(asking)}")
                time.sleep(0.05)
            began = cpu_seconds(pid) - cpu
            time.sleep(1.0)
            first, cpu = stats_of_lm(), cpu_seconds(pid)
            time.sleep(seconds)
            last, used, held = stats_of_lm(), cpu_seconds(pid) - cpu, memory_mb(pid) - memory
            if asking.poll() is not None:
                raise RuntimeError(f"the load ended: {said_by(asking)}")
    each = used / (last["chunks"] - first["chunks"])
    beginning = began - each * (open_now["chunks"] - before["chunks"])
    return {
        "streams": streams,
        "begin_us": round(beginning / streams * 1e6, 1),
        "token_us": round(each * 1e6, 2),
        "memory_kb": round(held * 1000 / streams, 1),
        "tokens_per_s": round((last["chunks"] - first["chunks"]) / seconds),
    }


def of_replies(path: str, words: list[str], lm: list[str], seconds: float, home: str) -> Point:
    """Ask again and again for so many seconds, and return what a reply costs."""
    with server(lm, home) as pid:
        cpu, memory = cpu_seconds(pid), memory_mb(pid)
        highest = memory
        with load(path, *words, "--seconds", str(seconds)) as asking:
            while asking.poll() is None:
                time.sleep(0.1)
                highest = max(highest, memory_mb(pid))
            found = json.loads(said_by(asking))
        time.sleep(0.3)
        if found["failed"] or not found["done"]:
            raise RuntimeError(f"{found['failed']} requests failed: {found['why']}")
        cost = (cpu_seconds(pid) - cpu) / found["done"]
    return {
        "done": found["done"],
        "p50_ms": found["p50_ms"],
        "reply_us": round(cost * 1e6, 1),
        "memory_kb": round((highest - memory) * 1000),
    }


def of_tokens(tokens: int, seconds: float, home: str) -> Point:
    """Measure replies of so many tokens, one after the other."""
    lm = ["--chunks", str(tokens), "--interval", "0.002", "--at-once", "10"]
    return {"tokens": tokens, **of_replies(LIVE.stream, ["--mark", LIVE.mark, "--connections", "1"], lm, seconds, home)}


def of_clients(clients: int, seconds: float, home: str) -> Point:
    """Measure clients that ask again and again, each with a pace of its own."""
    words = ["--mark", LIVE.mark, "--connections", str(clients), "--ramp", "1"]
    lm = ["--chunks", "50", "--interval", "0.02"]
    return {"clients": clients, "tokens": 50, **of_replies(LIVE.stream, words, lm, seconds, home)}


def shuffled(places: Sequence[int], most: int) -> list[int]:
    """Return those up to ``most``, in some order."""
    chosen = [place for place in places if place <= most]
    return random.sample(chosen, len(chosen))


def measure(rounds: int, seconds: float, most_streams: int, most_tokens: int) -> dict[str, Any]:
    """Measure everything, in rounds; return the points and what they were measured on."""
    machine = {"python": platform.python_version(), "kernel": platform.release(), "load": os.getloadavg()[0]}
    found: dict[str, Any] = {"machine": machine, "streams": [], "tokens": [], "requests": [], "mixed": []}

    def keep(kind: str, point: Point) -> None:
        found[kind].append(point)
        print(json.dumps(point), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="dspy-live-bench-") as home:
        for _ in range(rounds):
            # In another order each time: else a machine that gets busier looks like a cost that grows.
            for streams in shuffled(STREAMS, most_streams):
                keep("streams", of_streams(streams, seconds, home))
            for tokens in shuffled(TOKENS, most_tokens):
                keep("tokens", of_tokens(tokens, seconds, home))
            for clients in CLIENTS:
                keep("mixed", of_clients(clients, seconds, home))
            keep("requests", of_replies(LIVE.predict, ["--connections", "32"], ["--chunks", "100"], seconds, home))
    return found


def main() -> None:
    """Read the command line, measure, write the results and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument(
        "--quick", action="store_true", help="a round of a second each, up to 200 streams, 1,000 tokens"
    )
    parser.add_argument("--out", type=Path, default=IMAGES / "scaling.json")
    parser.add_argument("--plot", type=Path, default=IMAGES / "scaling.png")
    parser.add_argument("--only-plot", action="store_true", help="draw the results that --out has")
    args = parser.parse_args()
    if sys.platform != "linux":
        parser.error("the benchmark reads /proc and pins processes to cores: it runs on Linux")
    if not args.only_plot:
        bounds = (1, 1.0, 200, 1000) if args.quick else (args.rounds, args.seconds, STREAMS[-1], TOKENS[-1])
        args.out.write_text(json.dumps(measure(*bounds), indent=1) + "\n")
    found = json.loads(args.out.read_text())
    draw(found, args.plot)
    print(table(found))


if __name__ == "__main__":
    main()
