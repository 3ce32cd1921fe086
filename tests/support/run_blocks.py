"""Run pieces of Python, each in a fork of one process that has imported dspy already.

Reads a JSON list of ``[name, code]`` from stdin and prints a JSON object: name to the error's text, or to ``null``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import dspy  # noqa: F401 - imported once, before the forks

import dspy_live

SECONDS = 60
"""A block takes a second or two; one that hangs is named before all of them have taken too long."""


def run(code: str, folder: str) -> str | None:
    """Return what a piece printed and raised when it failed, ``None`` when it ran."""
    said = Path(folder, "said.txt")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            out = os.open(said, os.O_CREAT | os.O_WRONLY)
            os.dup2(out, 1)
            os.dup2(out, 2)
            signal.alarm(SECONDS)
            _execute(code, folder)
            status = 0
        except SystemExit as exc:
            status = 0 if exc.code in (None, 0) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return None
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return f"took more than {SECONDS} s\n{said.read_text()}"
    return said.read_text() or f"ended with status {status}"


def _execute(code: str, folder: str) -> None:
    os.chdir(folder)
    path = Path(folder, "block.py")
    path.write_text(code)
    sys.path.insert(0, folder)
    main = sys.modules["__main__"]
    main.__dict__.update({"__file__": str(path), "__name__": "__main__"})
    exec(compile(code, str(path), "exec"), main.__dict__)


def main() -> None:
    """Run what stdin says."""
    for name in dspy_live.__all__:
        getattr(dspy_live, name)
    failures = {}
    for name, code in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            failures[name] = run(code, folder)
    print(json.dumps(failures))


if __name__ == "__main__":
    main()
