"""A user's own file, checked as users check it: strictly, with the package as installed and no settings of ours.

Pyright is in an environment of its own (``scripts/environments/pyright.in``): it brings a Node of 200 MB along.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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

    with dspy_live.UsageTracker() as usage:
        answers = await dspy_live.abatch(Rag(), [{"question": "Why?"}], concurrency=8, on_error="raise")
    print(answers[0].answer, usage.get_stats()["by_model"]["openai/gpt-4o-mini"]["total_tokens"])
    assert_type(dspy_live.batch(count, ["a", "b"]), list[int | dspy_live.BatchError])


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


@functools.cache
def pyright() -> str:
    command = [str(ROOT / "scripts/environment.sh"), "pyright"]
    made = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return str(Path(made.stdout.strip()).with_name("pyright"))


# DSPy has no types of its own, which strict pyright says of every use of it: those two rules, and no other.
STRICT = "# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false\n"
FILES = {
    "standard.py": PROGRAM,
    "strict.py": STRICT + PROGRAM,
    "mistaken.py": PROGRAM + "\ndspy_live.asyncify(count).layer\n",
    "public_api.py": "# pyright: strict, reportUnnecessaryTypeIgnoreComment=true\n"
    + Path(__file__).with_name("public_api.py").read_text(),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What pyright says of each of these files, as ``line: message``; it begins once for all."""
    folder = tmp_path_factory.mktemp("pyright")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "pyrightconfig.json").write_text("{}")
    command = [pyright(), "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)]
    checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    report = json.loads(checked.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES), checked.stderr
    found: dict[str, list[str]] = {name: [] for name in FILES}
    for one in report["generalDiagnostics"]:
        found[Path(one["file"]).name].append(f"{one['range']['start']['line'] + 1}: {one['message']}")
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["standard.py", "strict.py"])
def test_pyright_finds_nothing_in_a_users_file(findings: dict[str, list[str]], name: str) -> None:
    assert findings[name] == []


@pytest.mark.timeout(300)
def test_pyright_sees_a_mistake(findings: dict[str, list[str]]) -> None:
    (found,) = findings["mistaken.py"]
    assert '"layer"' in found


@pytest.mark.timeout(300)
def test_pyright_makes_of_the_public_names_what_mypy_does(findings: dict[str, list[str]]) -> None:
    """``make types`` runs mypy over the same file; an ``ignore`` that only one of the two needs fails here or there."""
    assert findings["public_api.py"] == []
