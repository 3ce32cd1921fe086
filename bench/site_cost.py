"""What each part of a site of several hosts costs per token: the server, nginx, HAProxy, Redis, PostgreSQL.

    sudo .venv/bin/python bench/site_cost.py [--streams 100] [--tokens 100]

The site is the one of ``tests/network``: network namespaces on this machine. Half of the streams are plain ones, the
other half runs of ``POST /runs``, which are told to Redis; each half goes through nginx and through HAProxy. CPU time
as the scheduler counts it, of all processes of a part, in µs.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.network.site import Site, running_site

from dspy_live.client import AsyncClient
from dspy_live.client.run import RemoteRun


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU time of a process, its threads and its children."""
    found, whole = [process.pid], 0.0
    while found:
        for thread in Path(f"/proc/{found.pop()}/task").iterdir():
            whole += int(thread.joinpath("schedstat").read_text().split()[0]) / 1e9
            found += [int(child) for child in thread.joinpath("children").read_text().split()]
    return whole


async def read(run: RemoteRun) -> None:
    """Read a run to its end."""
    async with run:
        while await run.receive_many():
            pass


async def ask(site: Site, streams: int, tokens: int, url: str, kept: bool) -> dict[str, float]:
    """Return the CPU of each part, in µs per token."""
    client, question = AsyncClient(url), f"[sim tps=20 length={tokens}] tell me"
    start = client.start if kept else client.stream
    before = {name: cpu_seconds(process) for name, process in site.processes.items()}
    await asyncio.gather(*(read(start(question=f"{question} {n}")) for n in range(streams)))
    time.sleep(1.5)  # until the ledger has its rows
    count = streams * tokens
    return {name: (cpu_seconds(process) - before[name]) / count * 1e6 for name, process in site.processes.items()}


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=100)
    args = parser.parse_args()
    with running_site() as site, site.client.inside():
        print(f"| through | streams | {' | '.join(site.processes)} |\n|{'---|' * (2 + len(site.processes))}")
        for name in ("nginx", "haproxy"):
            for kept in (False, True):
                url = getattr(site, name)
                asyncio.run(ask(site, 10, 10, url, kept))  # warms up
                cost = asyncio.run(ask(site, args.streams, args.tokens, url, kept))
                kind = "POST /runs" if kept else "plain"
                print(f"| {name} | {kind} | {' | '.join(f'{value:.1f}' for value in cost.values())} |", flush=True)


if __name__ == "__main__":
    main()
