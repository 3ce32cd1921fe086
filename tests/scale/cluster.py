"""Ray in an environment of its own: a cluster that lives as long as a block, and commands on it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 240.0
"""Seconds after which what has not begun on a busy machine will not."""

# Ray gives a node 30 s to start; a busy machine may need that more than once, as dspy-live's own start knows.
_CLUSTER = """
import json, sys
import ray
for left in (2, 1, 0):
    try:
        ray.init(address="local", num_cpus=6, include_dashboard=False, object_store_memory=200_000_000)
        break
    except Exception:
        ray.shutdown()
        if not left:
            raise
print(json.dumps(ray.get_runtime_context().gcs_address), flush=True)
sys.stdin.read()
ray.shutdown()
"""


@functools.cache
def python() -> str:
    """Return the Python of the environment with Ray; it is made when it is first asked for."""
    command = [ROOT / "scripts/environment.sh", "ray"]
    made = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run a cluster; gives the environment of commands that are to use it. It ends with the block."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environ = {
        **os.environ,
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DSPY_LIVE_HOME": f"{folder}/home",
    }
    process = subprocess.Popen(
        [python(), "-c", _CLUSTER],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield {**environ, "RAY_ADDRESS": json.loads(_line(process.stdout))}
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


class Serving:
    """``dspy-live serve … --on ray`` with the words given. As a context manager it has ended with the block."""

    def __init__(self, environ: dict[str, str], words: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at the end of the block
        self.process = subprocess.Popen(
            [python(), "-m", "dspy_live", "serve", *words, "--on", "ray"],
            cwd=HERE,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Serving:
        line = _line(self.process.stdout)
        if "dspy-live serves" not in line:
            log = self.log()
            self.__exit__()
            pytest.fail(f"the server did not begin: {line}\n{log}")
        self.url = line.split()[2].rstrip("/")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._log.close()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def log(self) -> str:
        """Return what it has written to stderr."""
        self._log.seek(0)
        return self._log.read()


def _line(pipe: IO[str] | None) -> str:
    """Return the next line of a pipe, or what there is after the longest wait."""
    assert pipe is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(pipe.readline()), daemon=True)
    reader.start()
    reader.join(PATIENCE)
    return lines[0] if lines else ""
