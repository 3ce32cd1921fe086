"""Commands are run as a user runs them: as a process of their own."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest import mock

import dspy
import pytest

from dspy_live.cli import main

PROGRAM = '''
import dspy

class Ask(dspy.Signature):
    """Answer."""
    question: str = dspy.InputField()
    times: int = dspy.InputField(default=1)
    answer: str = dspy.OutputField()
    score: float = dspy.OutputField()

class Failing(dspy.Module):
    def forward(self, question: str):
        raise ValueError("the index is gone")

program = dspy.Predict(Ask)
plain = dspy.Predict("question -> answer")
failing = Failing()
'''


def forget_modules(folder: Path) -> None:
    """Take the modules of a test's own files out of ``sys.modules``: the next test has files of the same names."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


class Commands:
    """Runs ``dspy-live`` in a folder of its own, with the simulated LM at full speed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "DSPY_LIVE_SIM": "ttft=0 tps=none jitter=0"}
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *words: str, descriptors: int | None = None, **environ: str) -> subprocess.Popen[str]:
        def prepare() -> None:
            # A shell that runs the tests in the background makes its children deaf to Ctrl-C, and nohup to a hang-up.
            for which in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                signal.signal(which, signal.SIG_DFL)
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

        process = subprocess.Popen(
            [sys.executable, "-m", "dspy_live", *words],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **environ)
        out, err = process.communicate(stdin, timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def main(self, *words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process: a second quicker where nothing but words and status matter."""
        out, err = io.StringIO(), io.StringIO()
        variables = mock.patch.dict(os.environ, {**self.environ, **environ})
        with variables, pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            before = dspy.settings.lm
            dspy.configure(lm=None)
            try:
                status = main(list(words))
            finally:
                dspy.configure(lm=before)
                forget_modules(self.folder)
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def close(self) -> None:
        for process in self.processes:
            # The whole session: a server that reloads has a child.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    commands.write("qa.py", PROGRAM)
    yield commands
    commands.close()
