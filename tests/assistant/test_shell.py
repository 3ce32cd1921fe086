"""The shell: every command, plain words, bad input, a pipe, and a terminal."""

# ruff: noqa: E501  (programs as one-line strings read better in one line)

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.until import BOUND

from dspy_live.assistant.trial import Outcome
from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.shell.run import split_inputs
from dspy_live.cli.shell.session import COMMANDS, Session
from dspy_live.simulator import Simulator

PROGRAM = 'import dspy\n\nqa = dspy.Predict("question -> answer")\n\nif __name__ == "__main__":\n    print(qa(question="Hm?").answer)\n'


class Shell:
    """A session whose output is read back."""

    def __init__(self, flags: ProgramFlags, agree: bool | None) -> None:
        self.out = io.StringIO()
        self.asked: list[str] = []
        self.session = Session(self.out, flags, self._ask(agree))

    def _ask(self, agree: bool | None) -> Callable[[str], bool | None]:
        def ask(question: str) -> bool | None:
            self.asked.append(question)
            return agree

        return ask

    def __call__(self, line: str) -> str:
        """Type one line and return what it said."""
        before = len(self.out.getvalue())
        self.session.take(line)
        return self.out.getvalue()[before:]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSPY_LIVE_SIM", "ttft=0 tps=none jitter=0 length=6")
    monkeypatch.setenv("DSPY_LIVE_HOME", str(tmp_path / "home"))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def shell(file: Path) -> Shell:
    return Shell(ProgramFlags(sim=True), agree=False)


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials succeed at once: test_trial.py has the real ones."""

    def ran(source: str, **_: object) -> Outcome:
        return Outcome("ran", "printed\n", "", 0.1, 1)

    monkeypatch.setattr("dspy_live.assistant.trial.run_trial", ran)
    monkeypatch.setattr("dspy_live.assistant.checked_examples.run_trial", ran)


class TestCommands:
    """What each of them does."""

    def test_help_lists_every_command(self, shell: Shell) -> None:
        printed = shell("/help")
        assert all(name in printed for name in COMMANDS)
        assert all(getattr(shell.session, f"do_{name[1:]}", None) for name in COMMANDS)

    @pytest.mark.usefixtures("no_trials")
    def test_topics(self, shell: Shell) -> None:
        assert "backpressure" in shell("/explain")
        assert shell("/explain rust").startswith("# Rust")
        assert shell("/rust").startswith("# Rust")
        assert shell("/explain ws").startswith("# WebSocket")

    def test_an_example_is_shown_after_it_ran(self, shell: Shell) -> None:
        printed = shell("/async example")
        assert "dspy_live.asyncify(" in printed
        assert "It ran against the simulated LM just now (3 LM calls" in printed

    def test_load_convert_write(self, shell: Shell, file: Path) -> None:
        assert f"{file}: qa" in shell(f"/load {file}")
        printed = shell("/convert async")
        assert len(shell.asked) == 1
        assert f"May code from {file.parent} run here, with the simulated LM" in shell.asked[0]
        assert "Not run, so not shown" in printed
        assert "acall" not in printed
        assert "nothing was converted" in shell("/write")
        printed = shell("/convert async --no-run")
        assert "Not run" in printed
        assert "+    print((await qa.acall(" in printed
        assert len(shell.asked) == 1
        assert file.read_text() == PROGRAM
        assert "written: " in shell("/write")
        assert "asyncio.run(" in file.read_text()
        assert "nothing was converted" in shell("/write")

    def test_a_conversion_that_ran_says_so(self, shell: Shell, file: Path) -> None:
        shell(f"/load {file}")
        printed = shell("/convert usage --run --write")
        assert "It ran against the simulated LM: 1 LM call" in printed
        assert "1 LM calls" in printed
        assert "UsageTracker" in file.read_text()

    def test_run_and_stream(self, shell: Shell, file: Path) -> None:
        shell(f"/load {file}")
        ran = shell("/run What is it?")
        assert ran.startswith("[the simulated LM")
        assert len(ran.splitlines()) == 2
        assert shell("/stream question=What is it?").split("\n", 1)[1] == ran.split("\n", 1)[1]

    def test_usage_counts_them(self, shell: Shell, file: Path) -> None:
        shell(f"/load {file}")
        before = dict(line.split()[:2] for line in shell("/usage").splitlines())
        shell("/run What is it?")
        after = dict(line.split()[:2] for line in shell("/usage").splitlines())
        assert int(after["api_calls"]) == int(before["api_calls"]) + 1

    def test_cache(self, shell: Shell) -> None:
        assert "entries" in shell("/cache")
        assert "there is no /cache everything" in shell("/cache everything")

    def test_show(self, shell: Shell, file: Path) -> None:
        shell(f"/load {file}")
        assert shell("/show") == PROGRAM
        shell("/convert async --no-run")
        assert "acall" in shell("/show new")

    @pytest.mark.parametrize("word", ["/exit", "exit", "quit", "q"])
    def test_exit(self, shell: Shell, word: str) -> None:
        shell(word)
        assert shell.session.over


def test_the_answer_is_kept_for_the_folder_and_those_in_it(file: Path, no_trials: None) -> None:
    first = Shell(ProgramFlags(sim=True), agree=True)
    first(f"/load {file}")
    first("/convert usage")
    first("/convert async")
    assert len(first.asked) == 1
    inner = file.parent / "inner" / "program.py"
    inner.parent.mkdir()
    inner.write_text(PROGRAM)
    later = Shell(ProgramFlags(sim=True), agree=False)
    later(f"/load {inner}")
    assert "acall" in later("/convert async")
    assert later.asked == []


def test_where_nobody_is_there_to_answer_nothing_is_remembered(file: Path) -> None:
    shell = Shell(ProgramFlags(sim=True), agree=None)
    shell(f"/load {file}")
    assert "Not run, so not shown" in shell("/convert async")
    assert "Not run, so not shown" in shell("/convert async")
    assert len(shell.asked) == 2


def test_a_conversion_that_was_interrupted_is_not_written(file: Path) -> None:
    """Ctrl-C at the question: nothing of it was printed, so there is nothing to write."""
    shell = Shell(ProgramFlags(sim=True), agree=False)

    def interrupted(_: str) -> bool:
        raise KeyboardInterrupt

    shell(f"/load {file}")
    shell.session.ask = interrupted
    assert shell("/convert async").endswith("stopped\n")
    assert "nothing was converted yet" in shell("/write")
    assert file.read_text() == PROGRAM


@pytest.mark.usefixtures("no_trials")
class TestWords:
    """Questions and requests without a command."""

    def test_a_question(self, shell: Shell) -> None:
        printed = shell("How do credits on the WebSocket work?")
        assert printed.startswith("## WebSocket: Credit")
        assert "`/explain websocket` shows all of it" in printed
        assert shell("explain websocket").startswith("# WebSocket\n"), "the command without its slash is the page too"

    def test_example_after_a_topic_is_its_example(self, shell: Shell) -> None:
        for line in ("/explain streaming example", "/explain streaming  Examples", "/streaming examples"):
            assert shell(line).startswith("import asyncio\n")

    def test_show_me_examples(self, shell: Shell) -> None:
        printed = shell("Show me streaming examples")
        assert "dspy_live.streamify(" in printed
        assert "It ran against the simulated LM" in printed

    @pytest.mark.parametrize(
        ("request_", "made"),
        [
            ("Create an async version of my program", "await qa.acall("),
            ("Build a streaming response system", "dspy_live.streamify("),
            ("Add usage tracking to my program", "dspy_live.UsageTracker("),
        ],
    )
    def test_a_request_converts_what_is_loaded(self, file: Path, request_: str, made: str) -> None:
        asked = Shell(ProgramFlags(sim=True), agree=True)
        asked(f"/load {file}")
        printed = asked(request_)
        assert "It ran against the simulated LM: 1 LM call" in printed
        assert made in printed

    def test_a_request_with_nothing_loaded_offers_the_way(self, shell: Shell) -> None:
        printed = shell("Build a streaming response system")
        assert "No program is loaded: /load FILE" in printed
        assert "It ran against the simulated LM" in printed

    def test_an_lm_answers_over_the_passages(self, file: Path) -> None:
        with Simulator().running() as url:
            shell = Shell(ProgramFlags(lm="openai/simulated", api_base=url, api_key="none"), agree=False)
            printed = shell("How do credits on the WebSocket work?")
        assert "Written by openai/simulated from ‘websocket: Credit’, " in printed
        assert len(printed.split("\n\n")[0]) > 20

    def test_an_lm_that_is_down_leaves_the_guides(self, file: Path) -> None:
        flags = ProgramFlags(lm="openai/simulated", api_base="http://127.0.0.1:9/v1", api_key="none")
        printed = Shell(flags, agree=False)("How do the credits of a WebSocket work?")
        assert "did not answer" in printed
        assert "## WebSocket: Credit" in printed


class TestBadInput:
    """It is said, and the shell goes on."""

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("/asnyc", "did you mean '/async'?"),
            ("/zzz", "there are: /async, /cache"),
            ("/explain streeming", "did you mean 'streaming'"),
            ("/load", "which file?"),
            ("/load nowhere.py", "there is no file nowhere.py"),
            ('/load "unclosed', "No closing quotation"),
            ("/convert", "which conversion? /convert async | streaming"),
            ("/convert async", "no program is loaded: /load FILE"),
            ("/run hello", "no program is loaded: /load FILE"),
            ("/serve x", "no program is loaded"),
            ("zebras eating xylophones", "no page covers this"),
            ("what is it", "Ask about dspy-live"),
        ],
    )
    def test_each_says_what_to_do(self, shell: Shell, line: str, said: str) -> None:
        assert said in shell(line)
        assert not shell.session.over

    def test_nothing_and_comments(self, shell: Shell) -> None:
        assert shell("") == shell("   ") == shell("# a remark") == ""

    def test_a_file_that_does_not_parse_or_has_no_program(self, shell: Shell, file: Path) -> None:
        file.write_text("def f(:\n")
        assert "not valid Python: line 1" in shell(f"/load {file}")
        file.write_text("print(1)\n")
        assert "no program" in shell(f"/load {file}")

    def test_several_programs(self, shell: Shell, file: Path) -> None:
        file.write_text(PROGRAM + 'rag = dspy.Predict("q -> a")\n')
        assert f"name it: /load {file} qa" in shell(f"/load {file}")
        assert "For example: /convert serving qa" in shell("/convert serving")
        assert "create_app(rag)" in shell("/convert serving rag --no-run")

    def test_a_program_that_fails_or_exits(self, shell: Shell, file: Path) -> None:
        file.write_text(
            "import dspy\n\nclass A(dspy.Module):\n    def forward(self, q):\n        raise SystemExit(3)\n"
        )
        shell(f"/load {file}")
        assert "the program raised SystemExit" in shell("/run x")
        assert not shell.session.over

    def test_missing_inputs_name_the_field(self, shell: Shell, file: Path) -> None:
        shell(f"/load {file}")
        assert "question" in shell("/run")
        assert "port is a number" in shell("/serve x")


@pytest.mark.parametrize(
    ("words", "text", "named"),
    [
        ("", None, {}),
        ("What is 1=1?", "What is 1=1?", {}),
        ("question=What is it?", None, {"question": "What is it?"}),
        ("a='x y' b=3", None, {"a": "x y", "b": "3"}),
    ],
)
def test_inputs_of_run(words: str, text: str | None, named: dict[str, str]) -> None:
    assert split_inputs(words) == (text, named)


def test_in_a_pipe(file: Path) -> None:
    lines = f"/rust\n/load {file}\n/run question=A \\\nB?\n/nonsense\n/exit\n/help\n"
    command = [sys.executable, "-m", "dspy_live", "shell", "--sim"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Rust\n")
    assert "there is no command /nonsense" in done.stdout
    assert "[the simulated LM (--sim)]" in done.stdout
    assert COMMANDS["/help"] not in done.stdout, "nothing is read after /exit"
    assert "\x1b" not in done.stdout


def test_on_a_terminal(file: Path, tmp_path: Path) -> None:
    """Completion, Ctrl-C at the prompt and in a run, history, Ctrl-D."""
    file.write_text(PROGRAM.replace('dspy.Predict("question -> answer")', "Slow()").replace(
        "import dspy\n", "import dspy, asyncio\n\nclass Slow(dspy.Module):\n    async def aforward(self, question):\n        print('begun', flush=True)\n        await asyncio.sleep(60)\n"
    ))  # fmt: skip
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "dspy_live", "shell", "--sim"]
    child = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored where the tests run
    )  # fmt: skip
    os.close(slave)
    screen = Screen(master)
    try:
        screen.until("live>")
        screen.type("/expl\t")
        screen.until("/explain")
        screen.type("\x03")
        screen.type(f"/load {file}\r")
        screen.until(": qa")
        screen.type("/run hello\r")
        screen.until("begun")
        os.kill(child.pid, signal.SIGINT)
        screen.until("stopped")
        screen.type("/rust\r")
        screen.until("Tokio services")
        screen.until("live>")
        screen.type("\x04")
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(master)
    history = tmp_path / "home" / "shell_history"
    assert "/run hello" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


class Screen:
    """The other side of a terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str, seconds: float = BOUND) -> None:
        """Read until ``text`` appears after what was found before."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} did not appear in {self.seen[-2000:]!r}"
            self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")
        self.seen = self.seen[self.seen.index(text) + len(text) :]
