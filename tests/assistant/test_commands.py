"""``dspy-live convert`` and ``dspy-live explain``, as the command line runs them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from dspy_live.assistant.consent import remember
from dspy_live.cli import main
from dspy_live.simulator import Simulator

PROGRAM = 'import dspy\n\nqa = dspy.Predict("question -> answer")\nprint(qa(question="Hm?").answer)\n'


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSPY_LIVE_HOME", str(tmp_path / "home"))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


class TestConvert:
    """Its diff, its trial run, its writing."""

    def test_no_code_is_shown_that_was_not_run(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody has agreed to a run, and nobody is there to ask."""
        assert main(["convert", "async", "program.py", "--write"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "not run, so not shown, nor written: --run runs your file's code" in printed.err
        assert program.read_text() == PROGRAM

    def test_a_folder_whose_code_may_run_needs_no_flag(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        remember(program.parent, True)
        assert main(["convert", "async", "program.py"]) == 0
        printed = capsys.readouterr()
        assert "+    print((await qa.acall(question=" in printed.out
        assert "It ran against the simulated LM: 1 LM call" in printed.err

    def test_it_shows_a_diff_and_writes_nothing(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["convert", "async", "program.py", "--no-run"]) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith("--- a/program.py\n+++ b/program.py\n")
        assert "+    print((await qa.acall(question=" in printed.out
        assert "not run: --run tries it" in printed.err
        assert program.read_text() == PROGRAM

    def test_it_writes_what_ran(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        program.chmod(0o640)
        assert main(["convert", "async", "program.py", "--run", "--write"]) == 0
        printed = capsys.readouterr()
        assert "It ran against the simulated LM: 1 LM call" in printed.err
        assert "written: " in printed.err
        assert "asyncio.run(main())" in program.read_text()
        assert stat.S_IMODE(program.stat().st_mode) == 0o640
        assert [path.name for path in program.parent.glob(".program*")] == []

    def test_the_mark_at_a_files_beginning_stays(self, program: Path) -> None:
        program.write_bytes(b"\xef\xbb\xbf" + PROGRAM.replace("\n", "\r\n").encode())
        assert main(["convert", "async", "program.py", "--no-run", "--write"]) == 0
        written = program.read_bytes()
        assert written.startswith(b"\xef\xbb\xbfimport asyncio\r\n\r\nimport dspy\r\n")
        assert b"asyncio.run(main())" in written
        assert written.count(b"\n") == written.count(b"\r\n")
        assert main(["convert", "tests", "program.py", "--no-run", "--write"]) == 0
        assert (program.parent / "test_program.py").read_bytes().startswith(b'"""Tests')

    def test_what_does_not_run_is_not_written(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        broken = PROGRAM.replace(".answer", ".nothing")
        program.write_text(broken)
        assert main(["convert", "async", "program.py", "--run", "--write"]) == 1
        assert "The original does not run here either" in capsys.readouterr().err
        assert program.read_text() == broken

    def test_a_new_file_is_not_written_over_another(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["convert", "fastapi", "program.py", "--no-run", "--write"]) == 0
        assert "from program import qa" in (program.parent / "program_api.py").read_text()
        assert main(["convert", "fastapi", "program.py", "--no-run", "--write"]) == 2
        assert "is there already" in capsys.readouterr().err

    def test_nothing_to_do_says_so(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(["convert", "async", "program.py", "--no-run", "--write"])
        capsys.readouterr()
        assert main(["convert", "async", "program.py", "--no-run", "--write"]) == 0
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Nothing had to change" in printed.err

    @pytest.mark.parametrize(
        ("words", "text", "said"),
        [
            (["async", "progam.py"], PROGRAM, "there is no file progam.py; did you mean program.py?"),
            (["async", "agents.py"], PROGRAM, "there is no file agents.py\n"),
            (["async", "."], PROGRAM, "is a folder"),
            (["asinc", "program.py"], PROGRAM, 'Did you mean "async"?'),
            (["async", "program.py"], "def f(:\n", "not valid Python: line 1"),
            (["async", "program.py"], "print(1)\n", "does not import dspy"),
            (["serving", "program.py"], PROGRAM + 'b = dspy.Predict("q -> a")\n', "For example: --program qa"),
            (["serving", "program.py", "--program", "c"], PROGRAM, "no program named 'c'. It has: qa"),
        ],
    )
    def test_bad_input_is_one_line(
        self, program: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str, said: str
    ) -> None:
        program.write_text(text)
        assert main(["convert", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1

    def test_text_that_is_no_text(self, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
        program.write_bytes(b"\xff\xfe\x00")
        assert main(["convert", "async", "program.py"]) == 2
        assert "is not UTF-8 text" in capsys.readouterr().err


@pytest.mark.usefixtures("program")
class TestExplain:
    """Guides and answers."""

    def test_without_a_topic_it_lists_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
        assert any(line.startswith("streaming ") for line in lines)
        assert all("  " in line for line in lines), "the longest name ran into its text"
        assert not any(line.endswith(":") for line in lines), "a list that follows is not shown here"

    def test_a_topic_is_its_page(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "rust"]) == 0
        assert capsys.readouterr().out.startswith("# Rust\n")

    def test_a_question_is_answered_from_a_page(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "how", "do", "credits", "on", "the", "websocket", "work?"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("## WebSocket: Credit\n")
        assert "From the guide 'websocket'" in printed

    def test_an_example_is_run_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "streaming", "--example"]) == 0
        printed = capsys.readouterr().out
        assert "dspy_live.streamify(" in printed
        assert "# It ran against the simulated LM just now (1 LM call," in printed

    def test_another_section_is_named_only_where_it_may_be_meant(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "what", "does", "drop_oldest", "mean?"]) == 0
        assert "See also" not in capsys.readouterr().out
        assert main(["explain", "limit", "concurrent", "requests"]) == 0
        assert capsys.readouterr().out.startswith("## Retries and limits: Concurrency limit\n")
        assert main(["explain", "how", "do", "I", "cancel", "a", "run?"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(
            ("## Timeouts and cancellation: Cancelling\n", "## Serving over HTTP: Stopping a run\n")
        )
        assert re.search(r"^See also .*‘(serving: Stopping a run|timeouts: Cancelling)’", printed, re.MULTILINE)

    def test_two_words_may_be_a_topic_or_a_question(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "front", "ends"]) == 0
        assert capsys.readouterr().out.startswith("# Front ends\n")
        assert main(["explain", "spent", "today"]) == 0
        assert capsys.readouterr().out.startswith("## Usage and budgets: The ledger\n")
        assert main(["explain", "langfuse"]) == 0
        assert capsys.readouterr().out.startswith("## Observability: ")

    def test_a_configured_lm_answers_and_the_sections_are_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Simulator().running() as url:
            monkeypatch.setenv("DSPY_LIVE_LM", "openai/simulated")
            monkeypatch.setenv("DSPY_LIVE_API_BASE", url)
            monkeypatch.setenv("DSPY_LIVE_API_KEY", "none")
            assert main(["explain", "How", "do", "credits", "on", "the", "websocket", "work?"]) == 0
        printed = capsys.readouterr().out
        assert "Written by openai/simulated from ‘websocket: Credit’, " in printed
        assert "## WebSocket" not in printed

    def test_what_is_not_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "streeming"]) == 2
        assert "did you mean 'streaming'" in capsys.readouterr().err
        assert main(["explain", "zebras", "yodelling", "xylophones"]) == 2
        assert "no page covers this; there are: assistant, async" in capsys.readouterr().err
        assert main(["explain", "zebras", "with", "asynk"]) == 2
        assert "no page covers this; did you mean 'async'" in capsys.readouterr().err
        assert main(["explain", "How", "can", "I", "chunk", "PDF", "files", "for", "retrieval?"]) == 2
        assert re.search(r"no page covers this; nearest are\n  [a-z-]+: .+\n  [a-z-]+: .+\n", capsys.readouterr().err)


def test_the_guides_are_where_the_package_is() -> None:
    from dspy_live.assistant.guides import folder

    assert os.path.isfile(folder() / "async.md")  # noqa: PTH113
