"""Run a piece of Python for trial: another process, a time limit, a clean environment, only the simulated LM."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dspy_live.assistant.packages import package_of
from dspy_live.simulator import Simulator

LIMIT = 64_000
"""Characters of output that are kept: the first half and the last."""

TYPED = "What is DSPy?\n1\nyes\n" + "1\n" * 20 + "finish\nexit\nquit\nq\n"
"""The standard input of a program that asks its user: a question, a number, a yes, and the usual words for leaving."""

_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "TERM")
"""The environment variables that a trial gets: no keys, no proxies, no home."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a trial.

    Args:
        status: ``"ran"``, ``"failed"`` (it raised, or was ended with another status than 0), ``"timed out"``.
        output: what it printed.
        error: what it printed on stderr: the traceback of a failure.
        seconds: how long it took, the start of Python included.
        lm_calls: how often the simulated LM was asked.
    """

    status: Literal["ran", "failed", "timed out"]
    output: str
    error: str
    seconds: float
    lm_calls: int

    @property
    def ok(self) -> bool:
        """True when it ran to its end."""
        return self.status == "ran"

    @property
    def reason(self) -> str:
        """The last line of the traceback, or why it was ended; empty when it ran."""
        if self.ok:
            return ""
        if self.status == "timed out":
            return f"it was stopped after {self.seconds:.0f} seconds"
        raised = [
            line for line in self.error.splitlines() if re.match(r"\w[\w.]*(Error|Exception|Exit|Interrupt)\b", line)
        ]
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        return (raised or lines or ["it ended without a word"])[-1]


def run_trial(
    source: str,
    *,
    folder: Path | None = None,
    file: str = "program.py",
    files: Mapping[str, str] | None = None,
    neighbour: str = "",
    timeout: float = 60.0,
) -> Outcome:
    """Run a source as a script and return how it ended.

    The process has no network but a simulated LM, which stands in for every ``dspy.LM``, embedder and retriever; it may
    write only into a folder that is deleted afterwards, and starts no other programs. That keeps accidents
    out; it is no prison for hostile code, so run only what its owner has agreed to run.

    Args:
        source: the Python to run, as ``__main__``.
        folder: the user's folder, for imports and for files that are read. In a package the source is run as a module
            of it, so that its relative imports work. What the script writes beside
            them goes into the trial's own folder, whose entries are links to the user's.
        file: the name under which it appears in a traceback.
        files: other modules that it imports, by file name: a conversion's new file, say.
        neighbour: the source of a file of the same folder that shows which package they belong to; by default its own.
        timeout: seconds after which it is killed.
    """
    with tempfile.TemporaryDirectory(prefix="dspy-live-trial-") as place, _simulator() as simulator:
        home = Path(place)
        for name, text in (files or {}).items():
            (home / Path(name).name).write_text(text, "utf-8")
        user = folder.resolve() if folder is not None else None
        root, package = package_of(user, neighbour or source) if user is not None else (home, "")
        job = {
            "source": source,
            "file": file,
            "imports": [str(root), str(user or home)],
            "package": package,
            "work": str(_work(home, user)),
            "home": place,
            "url": simulator.url,
        }
        (home / "job.json").write_text(json.dumps(job), "utf-8")
        begun = time.monotonic()
        status, output, error = _run(home, timeout)
        seconds = time.monotonic() - begun
        return Outcome(status, _shortened(output), _shortened(error), seconds, simulator.stats.requests)


def _work(home: Path, user: Path | None) -> Path:
    """Make the working folder: links to the user's files, so that they are read and new ones are not written there."""
    work = home / "work"
    work.mkdir()
    for entry in user.iterdir() if user is not None else ():
        with contextlib.suppress(OSError):
            (work / entry.name).symlink_to(entry)
    return work


@contextlib.contextmanager
def _simulator() -> Iterator[Simulator]:
    """The simulated LM. A script that is killed leaves its connection open: asyncio's warnings of that are no news."""
    log = logging.getLogger("asyncio")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        simulator = Simulator()
        with simulator.running():
            yield simulator
    finally:
        log.setLevel(before)


def _run(home: Path, timeout: float) -> tuple[Literal["ran", "failed", "timed out"], str, str]:
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(home),
        "DSPY_CACHEDIR": str(home / "cache"),
        "DSPY_LIVE_HOME": str(home),
    }
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "true", "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    command = [sys.executable, "-I", "-B", "-X", "utf8", "-m", "dspy_live.assistant.sandbox", str(home / "job.json")]
    (home / "in.txt").write_text(TYPED, "utf-8")
    with (
        _lifeline() as lifeline,
        (home / "out.txt").open("wb") as out,
        (home / "err.txt").open("wb") as err,
        (home / "in.txt").open("rb") as typed,
    ):
        child = subprocess.Popen(
            [*command, *map(str, lifeline)],
            env=environment,
            stdin=typed,
            stdout=out,
            stderr=err,
            cwd=home,
            start_new_session=True,
            pass_fds=lifeline,
        )
        try:
            code: int | None = child.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(child)
    output, error = ((home / name).read_text("utf-8", errors="replace") for name in ("out.txt", "err.txt"))
    return ("timed out" if code is None else "ran" if code == 0 else "failed"), output, error


@contextlib.contextmanager
def _lifeline() -> Iterator[tuple[int, ...]]:
    """A pipe that tells the child when this process ends, in whatever way: it closes."""
    if os.name != "posix":
        yield ()
        return
    read, write = os.pipe()
    try:
        yield (read,)
    finally:
        os.close(read)
        os.close(write)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it has started: it leads a session of its own."""
    try:
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except (ProcessLookupError, PermissionError):
        pass
    child.wait()


def _shortened(text: str) -> str:
    if len(text) <= LIMIT:
        return text
    return text[: LIMIT // 2] + f"\n… {len(text) - LIMIT} characters left out …\n" + text[-LIMIT // 2 :]
