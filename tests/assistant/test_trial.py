"""Trials run in another process, with no keys, no network and no way to the user's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.until import until

from dspy_live.assistant.checked_examples import failures
from dspy_live.assistant.convert import convert
from dspy_live.assistant.proof import prove
from dspy_live.assistant.trial import Outcome, run_trial

NESTED = (Path(__file__).with_name("programs") / "nested.txt").read_text()

FORBIDDEN = """
import os, pathlib, socket, subprocess, sys, urllib.request

def tried(name, act):
    try:
        act()
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
    else:
        print(f"{name}: done")

tried("name", lambda: socket.getaddrinfo("example.org", 80))
tried("address", lambda: socket.create_connection(("192.0.2.1", 80), timeout=1))
tried("page", lambda: urllib.request.urlopen("http://127.0.0.1:9/"))
tried("write", lambda: pathlib.Path(os.path.realpath("program.txt")).with_name("made.txt").write_text("x"))
tried("beside", lambda: pathlib.Path("made.txt").write_text("x"))
tried("append", lambda: open("program.txt", "a"))
tried("remove", lambda: os.remove("program.txt"))
tried("shell", lambda: os.system("true"))
tried("process", lambda: subprocess.run(["true"]))
tried("own", lambda: pathlib.Path(os.environ["HOME"], "made.txt").write_text("x"))
tried("read", lambda: pathlib.Path("program.txt").read_text())
print("environment", sorted(name for name in os.environ if "KEY" in name or "PROXY" in name.upper()))
print("typed", input())
"""


def test_a_trial_has_no_network_no_processes_and_writes_only_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.txt").write_text("mine")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    outcome = run_trial(FORBIDDEN, folder=tmp_path)
    assert outcome.ok, outcome.error
    lines = dict(line.split(":", 1) for line in outcome.output.splitlines() if ": " in line)
    refused = {name for name, text in lines.items() if "PermissionError" in text or "no network" in text}
    assert refused == {"name", "address", "page", "write", "append", "remove", "shell", "process"}
    assert lines["own"].strip() == lines["read"].strip() == lines["beside"].strip() == "done"
    assert "environment []" in outcome.output
    assert "typed What is DSPy?" in outcome.output
    assert [path.name for path in tmp_path.iterdir()] == ["program.txt"]
    assert (tmp_path / "program.txt").read_text() == "mine"


def test_every_lm_is_the_simulated_one_and_is_counted() -> None:
    outcome = run_trial(
        "import dspy, dspy_live\n"
        "own = (dspy.LM('anthropic/claude-x', cache=False), dspy_live.LM('gemini/x', api_key='mine'))\n"
        "for lm in (None, *own, dspy_live.sim_lm(ttft=600)):\n"
        "    with dspy.context(**({'lm': lm} if lm else {})):\n"
        "        assert dspy.Predict('question -> answer')(question='Hm?').answer\n"
        "print(len(dspy.Embedder('openai/e')(['a', 'b'])), len(dspy.ColBERTv2(url='http://nowhere')('q', k=3)))\n"
    )
    assert outcome.ok, outcome.error
    assert outcome.lm_calls == 4
    assert outcome.output == "2 3\n"


def test_a_failure_has_the_users_lines_and_a_reason() -> None:
    outcome = run_trial("def f():\n    return 1 / 0\n\nprint('before')\nf()\n", file="mine.py")
    assert outcome.status == "failed"
    assert outcome.output == "before\n"
    assert outcome.reason == "ZeroDivisionError: division by zero"
    assert 'File "mine.py", line 2, in f\n    return 1 / 0' in outcome.error
    assert "sandbox.py" not in outcome.error


def test_a_server_is_not_started() -> None:
    """It would run until the time is up, and be told to have failed."""
    outcome = run_trial(
        "import asyncio, uvicorn\n"
        "uvicorn.run('no.such:app', reload=True)\n"
        "uvicorn.Server(uvicorn.Config('no.such:app')).run()\n"
        "asyncio.run(uvicorn.Server(uvicorn.Config('no.such:app')).serve())\n",
        timeout=50,
    )
    assert outcome.ok, outcome.error
    assert outcome.output == "[a trial starts no server]\n" * 3


def test_a_program_that_does_not_end_is_ended() -> None:
    outcome = run_trial("while True: pass", timeout=1.5)
    assert outcome.status == "timed out"
    assert "stopped after" in outcome.reason


_TRIES = """
from dspy_live.assistant.trial import run_trial
run_trial("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
"""


def test_a_trial_does_not_outlive_its_parent_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", _TRIES], env=environment, start_new_session=True) as parent:
        said: list[str] = []
        try:
            until(
                lambda: (
                    said.extend(pid for file in tmp_path.glob("*/out.txt") for pid in file.read_text().split()) or said
                )
            )
        finally:
            parent.kill()
    (pid,) = map(int, said)
    until(lambda: not (Path("/proc") / str(pid)).exists())
    until(lambda: list(tmp_path.iterdir()) == [])


def test_exit_status_and_much_output() -> None:
    outcome = run_trial("import sys\nprint('x' * 200_000)\nsys.exit(3)\n")
    assert outcome.status == "failed"
    assert len(outcome.output) < 70_000
    assert "characters left out" in outcome.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("user")
    (place / "nested.py").write_text(NESTED)
    return place


def test_async_gives_the_same_answers_with_the_same_calls(folder: Path) -> None:
    original = run_trial(NESTED, folder=folder, file="nested.py")
    converted = prove(convert("async", NESTED, file="nested.py"), folder)
    assert original.ok, original.error
    assert converted.ok, converted.outcome.error
    assert converted.outcome.output == original.output
    assert converted.outcome.lm_calls == original.lm_calls > 0


def test_all_conversions_of_one_file_run_together(folder: Path) -> None:
    text = NESTED
    for kind in ("serving", "usage", "caching", "logging", "streaming"):
        text = convert(kind, text, program="outer", file="nested.py").new
    outcome = run_trial(text, folder=folder, file="nested.py")
    assert outcome.ok, outcome.output + outcome.error
    assert "[reasoning] " in outcome.output
    assert f"tokens in {outcome.lm_calls} LM calls" in outcome.output
    assert "cache: " in outcome.output
    assert "finished" in outcome.error + outcome.output


@pytest.mark.parametrize("kind", ["fastapi", "tests"])
def test_a_new_file_runs(kind: str, folder: Path) -> None:
    proof = prove(convert(kind, NESTED, program="outer", file="nested.py"), folder)
    assert proof.ok, proof.outcome.output + proof.outcome.error
    assert "It ran against the simulated LM" in proof.verdict
    assert proof.outcome.lm_calls > 0


def test_one_of_several_programs_is_served_and_tried() -> None:
    text = 'import dspy\n\na = dspy.Predict("question -> x")\nb = dspy.Predict("number: int -> y: int")\n'
    proof = prove(convert("fastapi", text, program="b"))
    assert proof.ok, proof.outcome.error


def test_a_file_that_runs_nothing_is_run_once_with_made_up_inputs() -> None:
    text = """import dspy

class QA(dspy.Module):
    def __init__(self):
        self.p = dspy.Predict("question -> answer")

    def forward(self, question: str):
        return self.p(question=question)
"""
    proof = prove(convert("async", text))
    assert proof.ok, proof.outcome.error
    assert 'It ran QA()(question="What is DSPy?") against the simulated LM: 1 LM call' in proof.verdict
    needs_more = text.replace("return self.p", "assert question.startswith('#')\n        return self.p")
    assert "It was loaded and asked no LM" in prove(convert("async", needs_more)).verdict


def test_examples_are_run_once_and_failures_are_told_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def trial(code: str, **_: object) -> Outcome:
        tried.append(code)
        return Outcome("ran", "", "", 0.1, 0) if code == good else Outcome("failed", "", "ValueError: not here", 0.1, 0)

    monkeypatch.setattr("dspy_live.assistant.checked_examples.run_trial", trial)
    memory = tmp_path / "deep" / "examples.json"
    good, bad = "print(1)", "raise ValueError('not here')"
    assert failures([good, bad], memory) == {bad: "ValueError: not here"}
    assert memory.read_text().count('"') == 2
    assert failures([good], memory) == {}
    assert tried.count(good) == 1
    memory.write_text("{broken")
    assert failures([good], memory) == {}
    assert tried.count(good) == 2
