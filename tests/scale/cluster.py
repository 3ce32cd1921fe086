"""Ray in an environment of its own: a server with a cluster of its own, a cluster that stands, commands on either."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 300.0
"""Seconds after which what has not begun on a busy machine will not."""
LOG_LINES = 40
# Ray gives a node 30 s to start; a busy machine may need that more than once, as dspy-live's own start knows.
_CLUSTER = """
import sys
import ray
for left in (2, 1, 0):
    try:
        ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=80_000_000)
        break
    except Exception:
        ray.shutdown()
        if not left:
            raise
print(ray.get_runtime_context().gcs_address, flush=True)
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


class Serving:
    """``dspy-live serve … --on ray`` with the words given: on a cluster of its own, unless ``RAY_ADDRESS`` is set.

    As a context manager it has ended with the block, and its cluster with it.

    Args:
        environ: its environment.
        words: the command's words.
        folder: where it is started.
    """

    def __init__(self, environ: Mapping[str, str], words: Sequence[str], folder: Path = HERE) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at the end of the block
        self._home = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self._environ = {**environ, "RAY_TMPDIR": environ.get("RAY_TMPDIR", self._home)}
        self.process = subprocess.Popen(
            [python(), "-m", "dspy_live", "serve", *words, "--on", "ray"],
            cwd=folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
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
            self.process.wait(PATIENCE)
        finally:
            end_session(self.process.pid)
            self._log.close()
            assert self.process.stdout is not None
            self.process.stdout.close()
            shutil.rmtree(self._home, ignore_errors=True)

    @functools.cached_property
    def on_cluster(self) -> dict[str, str]:
        """The environment of commands that run on the same cluster. To be asked for once the server has begun."""
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "RAY_ADDRESS=" in line)
        return {**self._environ, "RAY_ADDRESS": line.split("RAY_ADDRESS=")[1].split()[0]}

    def log(self) -> str:
        """Return what it has written to stderr."""
        self._log.seek(0)
        return self._log.read()

    def tail(self) -> str:
        """Return the last lines of its log and of Ray Serve's, for a test that has failed."""
        logs = sorted(Path(self._environ["RAY_TMPDIR"]).glob("ray/session_2*/logs/serve/*.log"))
        texts = [self.log(), *(path.read_text(errors="replace") for path in logs)]
        return "\n---\n".join("\n".join(text.splitlines()[-LOG_LINES:]) for text in texts)


@contextmanager
def cluster(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run a cluster of 4 CPUs and a small store; gives the environment of commands that are to use it."""
    home = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    own = {**environ, "RAY_TMPDIR": home}
    words = [python(), "-c", _CLUSTER]
    process = subprocess.Popen(
        words, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    try:
        address = _line(process.stdout).strip()
        assert address, "the cluster did not start"
        yield {**own, "RAY_ADDRESS": address}
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        end_session(process.pid)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(home, ignore_errors=True)


def end_session(leader: int) -> None:
    """Kill what is left of a session: workers of Ray have process groups of their own."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                os.kill(int(stat.parent.name), signal.SIGKILL)


def batch(
    environ: Mapping[str, str], folder: Path, source: str, *words: str, program: str = "programs.py:program"
) -> subprocess.CompletedProcess[str]:
    """Run ``dspy-live batch`` with a program of :mod:`tests.scale.programs`, to its end."""
    return subprocess.run(
        [python(), "-m", "dspy_live", "batch", source, "--program", str(HERE / program), "--quiet", *words],
        cwd=folder,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _line(pipe: IO[str] | None) -> str:
    """Return the next line of a pipe, or what there is after the longest wait."""
    assert pipe is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(pipe.readline()), daemon=True)
    reader.start()
    reader.join(PATIENCE)
    return lines[0] if lines else ""
