"""Several real processes that run the same code at the same time, for what they share."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

_BEGINNING = """
import json, sys

def tell(value):
    print(json.dumps(value), flush=True)

def wait_for_a_word():
    sys.stdin.readline()
"""


class Processes:
    """Python processes of the same ``code``. It has ``sys.argv``, ``tell(value)`` and ``wait_for_a_word()``.

    As a context manager, none outlives the block.
    """

    def __init__(self, code: str, arguments: Sequence[Sequence[Any]]) -> None:
        program = _BEGINNING + textwrap.dedent(code)
        self.all = [
            subprocess.Popen(
                [sys.executable, "-c", program, *map(str, of_one)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for of_one in arguments
        ]

    def hear(self) -> list[Any]:
        """Wait for the next value that each tells."""
        return [self.hear_one(process) for process in self.all]

    def hear_one(self, process: subprocess.Popen[str]) -> Any:
        """Wait for the next value that one tells."""
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"a process ended with {process.wait(30)} and told nothing"
        return json.loads(line)

    def go(self) -> None:
        """Give each the word that it waits for."""
        for process in self.all:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.all:
            process.kill()
            process.communicate()
