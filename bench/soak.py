"""Soak and chaos: hundreds of runs at once, an LM with faults of every kind, clients that leave at random.

    python bench/soak.py [--seconds 300] [--clients 500] [--faults 0.3] [--report docs/soak.md]
    python bench/soak.py --load parallel [--seconds 300] [--clients 60] [--faults 0.3] [--execution auto]

Three processes on 127.0.0.1: the simulated LM, the server under soak, and the clients here. It fails
unless every run ended exactly once, no limit was exceeded, nothing is left over at the end, and memory
rises by less than 1 % a minute after the warm-up. Bounded in time; it stops by itself.

``--load parallel`` has no server: asyncify and streamify in one process, over a program that calls stock
``dspy.Parallel`` (``bench/soak_parallel.py``). It fails for a crash of that process, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from soak_clients import BEHAVIOURS, PROGRAMS, Clients
from systems import free_port

from dspy_live.runtime.execution.background import new_event_loop
from dspy_live.runtime.http.transport import HttpPool, Timeouts, TransportError
from dspy_live.simulator import Faults

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"lm": 200, "runs": 600}


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    log = (ROOT / ".cache").joinpath(f"soak-{Path(command[0]).stem}.log")
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as out:
        started = subprocess.Popen([sys.executable, *command], stdout=out, stderr=out, cwd=ROOT)
        try:
            yield started
        finally:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(15)
            started.kill()


async def get(pool: HttpPool, url: str) -> dict[str, Any]:
    async with pool.exchange("GET", url, {}, b"", Timeouts(120, 120, 120)) as exchange:
        await exchange.headers_received()
        found: dict[str, Any] = json.loads(await exchange.read())
        return found


async def post(pool: HttpPool, url: str, value: Any) -> None:
    body = json.dumps(value).encode()
    async with pool.exchange("POST", url, {"Content-Type": "application/json"}, body) as exchange:
        await exchange.read()


async def soak(server: str, lm: str, options: argparse.Namespace) -> dict[str, Any]:
    clients = Clients(server, options.seed)
    pool, lm_root = clients.pool, lm.removesuffix("/v1")
    for _ in range(600):
        with suppress(TransportError):
            await get(pool, f"{server}/health/live")
            await get(pool, f"{lm_root}/stats")
            break
        await asyncio.sleep(0.1)
    await post(pool, f"{lm_root}/options", {"stall": 0.3})
    await get_ready(clients)
    before = await get(pool, f"{server}/soak")
    await post(pool, f"{lm_root}/faults", {"rates": dict(Faults.every(options.faults).rates)})
    began = time.monotonic()
    until = began + options.seconds
    tasks = [asyncio.ensure_future(clients.client(until)) for _ in range(options.clients)]
    samples: list[tuple[float, float]] = []
    while time.monotonic() < until:
        await asyncio.sleep(min(5.0, options.seconds / 20))
        inside = await get(pool, f"{server}/soak")
        samples.append((time.monotonic() - began, inside["rss_mb"]))
        print(
            f"{samples[-1][0]:6.1f} s  {inside['rss_mb']:6.1f} MB  {inside['counts'].get('ended', 0)} runs", flush=True
        )
    await asyncio.wait_for(asyncio.gather(*tasks), 120)
    # The clients' kept connections are theirs, not something that the server has left over.
    await pool.aclose()
    pool = HttpPool(asyncio.get_running_loop())
    after = await settled(pool, server, before)
    stats = await get(pool, f"{lm_root}/stats")
    await pool.aclose()
    return {
        "seconds": options.seconds,
        "clients": options.clients,
        "before": before,
        "after": after,
        "samples": samples,
        "outcomes": dict(clients.outcomes),
        "lm": stats,
    }


async def get_ready(clients: Clients) -> None:
    """One answer of each kind first, so that all is imported before anything is counted."""
    for program in PROGRAMS:
        for behaviour in BEHAVIOURS:
            await clients.ask(behaviour, program)
    clients.outcomes.clear()


async def settled(pool: HttpPool, server: str, before: dict[str, Any]) -> dict[str, Any]:
    """The server's inside once all has ended, 20 s after the last client at the latest."""
    for _ in range(100):
        inside = await get(pool, f"{server}/soak")
        if not left_over(before, inside) and inside["counts"]["started"] == inside["counts"]["ended"]:
            break
        await asyncio.sleep(0.2)
    return inside


def left_over(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What there is more of than before, beyond what may come and go."""
    spare = {"slots": 0, "lm_slots": 0, "leaving": 0, "parked": 0, "tasks": 3}
    more = [name for name, few in spare.items() if after[name] > before[name] + few]
    return [f"{after[name]} {name} are left; there were {before[name]}" for name in more]


def judged(found: dict[str, Any]) -> list[str]:
    """What is wrong; empty when all is well."""
    before, after, lm = found["before"], found["after"], found["lm"]
    counts, wrong = after["counts"], []
    if counts["started"] != counts["ended"] or counts.get("started twice") or counts.get("ended twice"):
        wrong.append(f"runs: {counts['started']} started, {counts['ended']} ended")
    wrong += [f"{n} times: {what}" for what, n in found["outcomes"].items() if what.split(": ")[1][:2].isupper()]
    if lm["peak_active"] > LIMITS["lm"]:
        wrong.append(f"the LM had {lm['peak_active']} requests at once; the limit is {LIMITS['lm']}")
    wrong += left_over(before, after)
    # Idle worker threads and kept connections to the LM stay for a while, by design: at most these.
    if after["threads"] > before["threads"] + 256 or after["files"] > before["files"] + LIMITS["lm"] + 20:
        wrong.append(f"{after['threads']} threads and {after['files']} open files are left")
    rise = rise_per_minute(found["samples"])
    if found["seconds"] >= 120 and rise > 1.0:
        wrong.append(f"memory rises by {rise:.2f} % a minute")
    return wrong


def rise_per_minute(samples: list[tuple[float, float]]) -> float:
    """Slope of the memory after the first third, by least squares, in percent of its mean per minute."""
    kept = samples[len(samples) // 3 :]
    if len(kept) < 3:
        return 0.0
    mean_t = sum(t for t, _ in kept) / len(kept)
    mean_m = sum(m for _, m in kept) / len(kept)
    slope = sum((t - mean_t) * (m - mean_m) for t, m in kept) / sum((t - mean_t) ** 2 for t, _ in kept)
    return 6000 * slope / mean_m


def soak_parallel(lm: str, options: argparse.Namespace) -> int:
    """Run the load of one process, and say what is wrong with what it found."""
    wait_for(lm)
    command = [sys.executable, "bench/soak_parallel.py", lm, "--seconds", str(options.seconds)]
    command += ["--workers", str(options.clients), "--seed", str(options.seed), "--execution", options.execution]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as load:
        assert load.stdout is not None
        for line in load.stdout:
            last = line
            if not line.startswith("{"):
                print(line, end="", flush=True)
    if load.returncode:
        print(f"WRONG: the process ended with {load.returncode} (negative: the signal that killed it)")
        return 1
    found = json.loads(last)
    for name, count in sorted({**found["after"]["counts"], **found["outcomes"]}.items()):
        print(f"{count:8d}  {name}")
    wrong = judged_parallel(found, options.seconds)
    print({name: (found["before"][name], found["after"][name]) for name in found["before"] if name != "counts"})
    print(f"memory after the warm-up: {rise_per_minute(found['samples']):+.2f} % a minute")
    for line in wrong:
        print(f"WRONG: {line}")
    print("soak: all is well" if not wrong else f"soak: {len(wrong)} things are wrong")
    return 1 if wrong else 0


def wait_for(lm: str) -> None:
    """Return when the LM takes connections."""
    port = int(lm.rpartition(":")[2].partition("/")[0])
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"no LM at {lm}")


def judged_parallel(found: dict[str, Any], seconds: float) -> list[str]:
    """What is wrong; empty when all is well."""
    before, after = found["before"], found["after"]
    counts, wrong = after["counts"], []
    if counts["started"] != counts["ended"] or counts.get("ended twice"):
        wrong.append(f"runs: {counts['started']} started, {counts['ended']} ended, {counts['ended twice']} twice")
    wrong += [f"{n} times: {what}" for what, n in found["outcomes"].items() if what.endswith(": NO RESULT")]
    wrong += [f"{after[name]} {name} are left" for name in ("slots", "leaving", "parked") if after[name]]
    if after["threads"] > before["threads"] + 256 or after["tasks"] > before["tasks"] + 3:
        wrong.append(f"{after['threads']} threads and {after['tasks']} tasks are left")
    rise = rise_per_minute(found["samples"])
    if seconds >= 300 and rise > 1.0:
        wrong.append(f"memory rises by {rise:.2f} % a minute")
    return wrong


def report(found: dict[str, Any], faults: float) -> str:
    """The page that goes into the documentation."""
    after, lm = found["after"], found["lm"]
    counts = after["counts"]
    warm = found["samples"][len(found["samples"]) // 3 :]
    lines = [
        "# Soak",
        "",
        *textwrap.wrap(
            f"`make soak` for {found['seconds']:.0f} s: {found['clients']} clients at once over real sockets, "
            f"{faults:.0%} of the LM's replies with a fault, clients that leave at random, at every door; programs "
            "that run natively, in threads and inline, an agent whose tools block, and one that calls dspy.Parallel; "
            f"Python {platform.python_version()}.",
            118,
        ),
        "",
        *textwrap.wrap(
            f"{counts['started']} runs began and {counts['ended']} ended, each once. They made "
            f"{counts['lm requests']} LM requests, at most {lm['peak_active']} at once (the limit was {LIMITS['lm']}). "
            "At the end no run, slot or LM request was left. After the warm-up, memory rose by "
            f"{rise_per_minute(found['samples']):.2f} % a minute, from {warm[0][1]:.0f} to {warm[-1][1]:.0f} MB.",
            118,
        ),
        "",
        "| the LM's faults | injected |",
        "|---|---|",
        *(f"| {name} | {n} |" for name, n in sorted(lm["faults"].items())),
        "",
        "| what came out of an LM request | |",
        "|---|---|",
        *(
            f"| {name[3:]} | {n} |"
            for name, n in sorted(counts.items())
            if name.startswith("lm ") and name != "lm requests"
        ),
        "",
        "| what a client did, and what it got | |",
        "|---|---|",
        *(f"| {name} | {n} |" for name, n in sorted(found["outcomes"].items())),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--load", choices=("server", "parallel"), default="server")
    parser.add_argument("--clients", type=int, help="at once; 500, or 60 for --load parallel")
    parser.add_argument("--execution", default="auto", help="for --load parallel")
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report")
    options = parser.parse_args()
    options.clients = options.clients or (60 if options.load == "parallel" else 500)
    port, lm_port = free_port(), free_port()
    lm = f"http://127.0.0.1:{lm_port}/v1"
    sim = ("-m", "dspy_live", "sim", "--port", str(lm_port), "--ttft", "0.05", "--tps", "300")
    if options.load == "parallel":
        faults = [f"--fault={name}={rate}" for name, rate in Faults.every(options.faults).rates.items()]
        with process(*sim, *faults):
            return soak_parallel(lm, options)
    with process(*sim), process("bench/soak_server.py", str(port), lm):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            found = runner.run(soak(f"http://127.0.0.1:{port}", lm, options))
    page = report(found, options.faults)
    print(page)
    if options.report:
        Path(options.report).write_text(page)
    wrong = judged(found)
    for line in wrong:
        print(f"WRONG: {line}")
    print("soak: all is well" if not wrong else f"soak: {len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
