"""A user's own file, checked as users check it: strictly, with the package as installed and no settings of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# DSPy has no types of its own, which strict mypy says of every file that imports it: those two lines, and no other.
PROGRAM = """
from __future__ import annotations

from typing import assert_type

import dspy  # type: ignore[import-untyped]

import dspy_live


class Rag(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.answer(question=question)


def count(text: str) -> int:
    return len(text)


async def main() -> None:
    dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini", temperature=0.5))
    prediction = await dspy_live.asyncify(Rag())(question="Why?")
    print(prediction.answer, dspy_live.asyncify(Rag()).layers)
    assert_type(await dspy_live.asyncify(count)("Why?"), int)

    streamer = dspy_live.streamify(Rag(), stream_listeners=[dspy_live.StreamListener("answer")])
    async for item in streamer(question="Why?"):
        if isinstance(item, dspy_live.StreamToken):
            print(item.upper(), item.signature_field_name)
        elif isinstance(item, dspy_live.Restart):
            print(item.reason)
        elif isinstance(item, dspy.Prediction):
            print(item.answer)
    for each in dspy_live.streamify(count, async_streaming=False)("Why?"):
        assert_type(each, dspy_live.StreamItem | int)


def show(item: dspy_live.StreamItem) -> None:
    print(item)
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text.lstrip())
    return path


def run_mypy(path: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--config-file=", "--cache-dir", "cache", "--python-executable", sys.executable]
    command = [sys.executable, "-m", "mypy", *options, path.name]
    environment = {k: v for k, v in os.environ.items() if k not in ("MYPYPATH", "MYPY_CONFIG_FILE_DIR")}
    return subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_mypy_knows_dspy_in_a_file_that_uses_this_package_too(tmp_path: Path) -> None:
    """One import of DSPy's vendored engine, which is marked as typed, hid ``dspy.Module`` from the user's own file."""
    checked = run_mypy(write(tmp_path, PROGRAM))
    assert (checked.stdout, checked.returncode) == ("Success: no issues found in 1 source file\n", 0), checked.stderr
