"""Run a command while a random process below it stands still for a moment, again and again, as on a crowded machine.

    python scripts/stop_at_random.py [--seed 1] [--every 2.5] [--longest 2.0] -- python -m pytest -n 3 tests/server

Every ``--every`` seconds, more or less, one process is stopped for 0.3 to ``--longest`` seconds; four times of five it
is one of Python's. The seed decides the times, but which process it hits depends on which there are. What fails then
asks the clock, or has a race. Linux only. Returns the command's exit code.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def below(root: int) -> list[tuple[int, str]]:
    """Return the processes below ``root`` that run or sleep, with their names."""
    children: dict[int, list[tuple[int, str, str]]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            head, _, rest = place.read_text().rpartition(")")  # a name may hold blanks and brackets
            its_number, _, name = head.partition(" (")
            state, parent = rest.split()[:2]
            children.setdefault(int(parent), []).append((int(its_number), state, name))
    found: list[tuple[int, str]] = []
    todo = [root]
    while todo:
        for number, state, name in children.get(todo.pop(), ()):
            todo.append(number)
            if state not in "TtZ":
                found.append((number, name))
    return found


def stand_still(root: int, chance: random.Random, longest: float) -> None:
    """Stop one process below ``root`` for a moment."""
    there = below(root)
    python = [process for process in there if "python" in process[1] or "pytest" in process[1]]
    if not there:
        return
    number, _ = chance.choice(python if python and chance.random() < 0.8 else there)
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGSTOP)
        try:
            time.sleep(chance.uniform(0.3, longest))
        finally:
            os.kill(number, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=2.5, help="seconds between two stops, on average")
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of the longest stop")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with subprocess.Popen(options.command) as process:
        while process.poll() is None:
            stand_still(os.getpid(), chance, options.longest)
            with suppress(subprocess.TimeoutExpired):
                process.wait(options.every * chance.uniform(0.5, 1.5))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
