"""Ray Serve's Python proxy and its HAProxy mode in front of one replica, beside one process without Ray.

    python bench/ray_proxies.py [--seconds 10] [--only one ray haproxy]

For each: requests, streams of 100 tokens on 40 connections, and streams one after the other. What counts is processor
time, by kind of process, for a request and for a token. Rates and times to a first token depend on what else the
machine does. Each line ends with the share of the processors that others took meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import systems

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TICK = os.sysconf("SC_CLK_TCK")
KINDS = {
    "ray::ServeReplica": "replica",
    "ray::ProxyActor": "proxy",
    "haproxy": "proxy",
    "ray::HAProxyManager": "manager",
}
PYTHON = subprocess.check_output([ROOT / "scripts/environment.sh", "ray"], text=True).strip()


def processes(group: int) -> Iterator[tuple[str, float]]:
    """Yield the kind and the processor seconds of each process of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            name = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if int(fields[3]) != group:
            continue
        kind = next((kind for begin, kind in KINDS.items() if Path(name.split(":dspy")[0]).name.startswith(begin)), "")
        if not kind and int(folder.name) == group:
            kind = "command"
        yield kind or "others", (int(fields[11]) + int(fields[12])) / TICK


def used(group: int) -> dict[str, float]:
    """Return the processor seconds of a session so far, by kind."""
    sums: dict[str, float] = {}
    for kind, seconds in processes(group):
        sums[kind] = sums.get(kind, 0.0) + seconds
    return sums


def busy() -> float:
    """Return the processor seconds that the machine has spent."""
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(values) - values[3] - values[4]) / TICK


@contextmanager
def serving(mode: str, lm: int) -> Iterator[tuple[str, int]]:
    """Serve the benchmarks' program; gives the URL and the session of all its processes."""
    environ = {**os.environ, "BENCH_LM": f"http://127.0.0.1:{lm}/v1", "RAY_USAGE_STATS_ENABLED": "0"}
    words = [PYTHON, "-m", "dspy_live", "serve", f"{HERE}/live_program.py:program", "--port", "0", "--no-ledger"]
    words += ["--no-access-log", *([] if mode == "one" else ["--on", "ray"])]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environ["RAY_TMPDIR"] = folder
        if mode == "haproxy":
            environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
            for name in ("CONFIG_FILE_LOC", "SOCKET_PATH", "METRICS_SOCKET_PATH"):
                environ[f"RAY_SERVE_HAPROXY_{name}"] = f"{folder}/{name.lower()}"
        process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "dspy-live serves" in line, line
            yield line.split()[2].rstrip("/"), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


def load(url: str, seconds: float, connections: int, mark: str = "") -> dict[str, float]:
    """Load, and return what ``bench/load.py`` tells."""
    words = ["--url", url, "--seconds", str(seconds), "--connections", str(connections)]
    told = subprocess.check_output([sys.executable, HERE / "load.py", *words, *(["--mark", mark] if mark else [])])
    found: dict[str, float] = json.loads(told)
    assert found["done"], found
    assert not found["failed"], found
    return found


def measured(title: str, group: int, url: str, seconds: float, connections: int, mark: str = "") -> None:
    """Load, and print the processor time of each kind of process for a request, or for a token."""
    load(url, 1, connections, mark)  # warm
    before, whole, began = used(group), busy(), time.monotonic()
    found = load(url, seconds, connections, mark)
    after, elapsed = used(group), time.monotonic() - began
    ours = sum(after.values()) - sum(before.values()) + found["cpu"]
    units = found["marks"] if mark else found["done"]
    cost = {kind: (after[kind] - before.get(kind, 0.0)) / units * 1e6 for kind in after}
    told = "  ".join(f"{kind} {value:6.0f} µs" for kind, value in sorted(cost.items()) if value >= 0.5)
    others = (busy() - whole - ours) / elapsed / (os.cpu_count() or 1)
    print(
        f"{title:32s} {units:7.0f}  {found['rate']:7.1f}/s  first {found.get('first_p50_ms') or 0:7.1f} ms"
        f"  per {'token' if mark else 'request'}: {told}  others {others:.0%}",
        flush=True,
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=("one", "ray", "haproxy"), default=("one", "ray", "haproxy"))
    args = parser.parse_args()
    port = systems.free_port()
    words = [sys.executable, HERE / "fake_lm.py", "--port", str(port), "--interval", "0.02", "--chunks", "100"]
    lm = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        for mode in args.only:
            with serving(mode, port) as (url, group):
                urllib.request.urlopen(f"{url}/health/ready", timeout=60).close()
                measured(f"{mode}: requests", group, f"{url}/predict", args.seconds, 16)
                measured(f"{mode}: 40 streams", group, f"{url}/predict/stream", args.seconds, 40, "event: token")
                measured(f"{mode}: one stream", group, f"{url}/predict/stream", args.seconds, 1, "event: token")
    finally:
        lm.kill()
        lm.wait()


if __name__ == "__main__":
    main()
