"""``dspy-live batch`` as a user runs it: rows of every kind, files that can't be, disks that are full."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Commands
from tests.support.until import until

BATCH = ("batch", "--program", "qa.py:plain", "--sim", "--quiet")


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_bad_row_fails_alone_whatever_is_wrong_with_it(live: Commands) -> None:
    good = b'{"question":"a"}\r\n'
    bad = [
        b"not json\r\n",
        b"[1]\r\n",
        b'{"question":5}\r\n',
        b'{"nope":1}\r\n',
        b'{"question":"\xff"}\r\n',
        b'{"question":' + b"[" * 100_000 + b"\r\n",
        b'{"question":' + b"9" * 5000 + b"}\r\n",
    ]
    (live.folder / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\r\n" + b"".join(bad) + b'{"question":"end"}')
    done = live.run(*BATCH, "in.jsonl", "-o", "out.jsonl")
    assert done.returncode == 1
    assert "9 rows, 7 failed" in done.stderr
    out = rows((live.folder / "out.jsonl").read_text())
    assert ["error" in row for row in out] == [False, *[True] * 7, False]
    assert out[1]["input"] == "not json", "without the line's end"
    assert "no UTF-8" in out[5]["error"]["message"]
    assert "Traceback" not in done.stderr


def test_rows_come_from_stdin_and_go_to_stdout(live: Commands) -> None:
    done = live.run(*BATCH, "-", "-o", "-", stdin='{"question":"a"}\n{"question":"b"}\n')
    assert done.returncode == 0, done.stderr
    assert [row["input"]["question"] for row in rows(done.stdout)] == ["a", "b"]
    assert not list(live.folder.glob("*@*"))


def test_csv_with_windows_line_ends_and_a_bad_row(live: Commands) -> None:
    (live.folder / "in.csv").write_bytes(b'question\r\nhello\r\n"two\r\nlines"\r\n\xff\r\na,b\r\n')
    done = live.run(*BATCH, "in.csv", "-o", "-")
    out = rows(done.stdout)
    assert [row.get("error", {}).get("message", "") for row in out[:2]] == ["", ""]
    assert out[1]["input"]["question"] == "two\r\nlines"
    assert "no UTF-8" in out[2]["error"]["message"]
    assert "more columns" in out[3]["error"]["message"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("in.jsonl", "-o", "/dev/full"), 1, "can't write /dev/full: No space left on device"),
        (("in.jsonl", "-o", "out.jsonl", "--checkpoint", "/dev/full"), 1, "No space left on device: '/dev/full'"),
        (("in.jsonl", "-o", "/nowhere/out.jsonl"), 2, "can't write /nowhere/out.jsonl"),
        (("in.jsonl", "-o", "in.jsonl"), 2, "the output in.jsonl is the input"),
        (("in.jsonl", "-o", "x.jsonl", "--checkpoint", "./x.jsonl"), 2, "the checkpoint ./x.jsonl is the output"),
        (("in.jsonl", "-o", "x.jsonl", "--checkpoint", "in.jsonl"), 2, "the checkpoint in.jsonl is the input"),
        ((".", "-o", "x.jsonl"), 2, "can't read .: it is a folder"),
        (("none.jsonl", "-o", "x.jsonl"), 2, "there is no such file"),
        (("utf16.csv", "-o", "x.jsonl"), 2, "the first line of utf16.csv is no UTF-8; save the file as UTF-8"),
        (
            ("in.jsonl", "-o", "x.jsonl", "--concurrency", "0"),
            2,
            "concurrency must be a whole number, at least 1; got 0",
        ),
        (("in.jsonl", "-o", "x.jsonl", "--timeout", "-1"), 2, "positive number of seconds"),
    ],
)
def test_a_batch_that_can_not_start_fails_in_one_line(
    live: Commands, words: tuple[str, ...], status: int, said: str
) -> None:
    before = '{"question":"a"}\n'
    live.write("in.jsonl", before)
    (live.folder / "utf16.csv").write_text("question\nWhy?\n", encoding="utf-16")
    done = live.run(*BATCH, *words)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "0 rows" not in done.stderr or status == 1
    assert (live.folder / "in.jsonl").read_text() == before


GATED = '''
import asyncio
import os
import dspy

class Gated(dspy.Module):
    """Answers; from the question q20 on when the file is there that GATE names, if it names one."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str):
        gate = os.environ.get("GATE")
        while gate and int(question[1:]) >= 20 and not os.path.exists(gate):
            await asyncio.sleep(0.01)
        return await self.ask.acall(question=question)

program = Gated()
'''


def gated(live: Commands, *words: str) -> tuple[str, ...]:
    """Write a program that stands still after some rows, and return the words of a batch that runs it."""
    live.write("gated.py", GATED)
    return ("batch", "--program", "gated.py:program", "--sim", "--quiet", "in.jsonl", *words)


def test_ctrl_c_ends_it_cleanly_and_a_rerun_does_the_rest(live: Commands) -> None:
    count = 60
    many(live, count)
    words = gated(live, "-o", "out.jsonl", "--checkpoint", "done.jsonl", "--concurrency", "4")
    process = live.start(*words, GATE="never")
    until(lambda: lines_in(live.folder / "done.jsonl") > 8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    kept = rows((live.folder / "out.jsonl").read_text())
    assert 0 < len(kept) < count
    assert [row["index"] for row in kept] == list(range(len(kept))), "what is written is whole and in order"
    again = live.run(*words)
    assert again.returncode == 0, again.stderr
    out = rows((live.folder / "out.jsonl").read_text())
    assert [row["input"]["question"] for row in out] == [f"q{n}" for n in range(count)]
    assert out[: len(kept)] == kept


def many(live: Commands, count: int) -> None:
    live.write("in.jsonl", "".join(f'{{"question":"q{n}"}}\n' for n in range(count)))


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_batch_that_is_refused_leaves_its_output_as_it_was(live: Commands) -> None:
    """The output was emptied before the checkpoint was looked at."""
    live.write("in.jsonl", '{"question":"a"}\n')
    live.write("out.jsonl", "dear\n")
    live.write("done.jsonl", "no checkpoint\n")
    live.write("out.jsonl.part", "of an earlier run\n")
    refused = live.run(*BATCH, "in.jsonl", "-o", "out.jsonl", "--checkpoint", "done.jsonl")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1:] == ["dspy-live: done.jsonl is no checkpoint of a batch"]
    assert (live.folder / "out.jsonl").read_text() == "dear\n"
    assert (live.folder / "out.jsonl.part").read_text() == "of an earlier run\n"
    (live.folder / "out.jsonl.part").unlink()
    assert live.run(*BATCH, "in.jsonl", "-o", "new.jsonl", "--checkpoint", "done.jsonl").returncode == 2
    assert sorted(path.name for path in live.folder.glob("*.jsonl*")) == ["done.jsonl", "in.jsonl", "out.jsonl"]


def test_sigterm_keeps_the_rows_and_the_output_that_was_there(live: Commands) -> None:
    many(live, 1000)
    words = gated(live, "-o", "out.jsonl", "--concurrency", "4")
    live.write("out.jsonl", "dear\n")
    (live.folder / "out.jsonl").chmod(0o640)
    part = live.folder / "out.jsonl.part"
    process = live.start(*words, GATE="never")
    until(lambda: lines_in(part) > 4)
    second = live.run(*words)
    assert second.returncode == 2
    assert "another batch is writing it" in second.stderr
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    kept = rows(part.read_text())
    assert f"dspy-live: {len(kept)} rows, 0 failed; ended early: terminated" in err
    assert f"these rows are in {part}" in err
    assert "Traceback" not in err
    assert [row["index"] for row in kept] == list(range(len(kept)))
    assert (live.folder / "out.jsonl").read_text() == "dear\n"
    assert live.run(*words).returncode == 0
    assert lines_in(live.folder / "out.jsonl") == 1000
    assert (live.folder / "out.jsonl").stat().st_mode & 0o777 == 0o640
    assert not part.exists()


def test_an_output_that_is_a_link_stays_one(live: Commands) -> None:
    live.write("in.jsonl", '{"question":"a"}\n')
    live.write("far.jsonl", "")
    (live.folder / "out.jsonl").symlink_to("far.jsonl")
    assert live.run(*BATCH, "in.jsonl", "-o", "out.jsonl").returncode == 0
    assert (live.folder / "out.jsonl").is_symlink()
    assert lines_in(live.folder / "far.jsonl") == 1


def test_a_reader_that_leaves_ends_the_batch_quietly(live: Commands) -> None:
    many(live, 200)
    process = live.start(*gated(live, "-o", "-", "--concurrency", "2"), GATE="open")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["index"] == 0
    process.stdout.close()
    live.write("open", "")
    err = process.stderr.read()
    assert process.wait(30) == 0
    assert err.count("\n") == 2, "the simulated LM, and the summary"
    count = int(err.splitlines()[1].removeprefix("dspy-live: ").split()[0])
    assert 1 <= count < 200
    assert err.splitlines()[1].endswith(" rows, 0 failed; ended early: nobody reads the output any more")


SICK = """
import os
import dspy

class Sick(dspy.Module):
    async def aforward(self, question: str):
        if question in os.environ.get("SICK", "").split():
            raise OSError("no route to the index")
        if question == "odd":
            raise ValueError("odd " * 100)
        return dspy.Prediction(answer=question)

program = Sick()
"""


def test_the_summary_says_why_rows_failed_and_a_rerun_asks_again(live: Commands) -> None:
    live.write("sick.py", SICK)
    live.write("in.jsonl", "".join(f'{{"question":"{word}"}}\n' for word in ("a", "b", "c", "odd")) + "{}\n")
    words = ("batch", "--program", "sick.py:program", "--sim", "--quiet", "in.jsonl", "-o", "out.jsonl")
    kept = (*words, "--checkpoint", "done.jsonl")
    first = live.run(*kept, SICK="b c")
    assert first.returncode == 1
    said = first.stderr.splitlines()[-4:]
    assert said[0] == "dspy-live: 5 rows, 4 failed"
    assert said[1] == "  2 OSError, first in row 1: no route to the index"
    assert said[2].startswith("  1 ValueError, first in row 3: odd odd")
    assert len(said[2]) < 250
    assert said[3].startswith("  1 InvalidInput, first in row 4: ")
    again = live.run(*kept)
    assert "5 rows, 4 failed" in again.stderr
    assert "3 of them failed in an earlier run; --retry-failed asks for them again" in again.stderr
    retried = live.run(*kept, "--retry-failed")
    assert "5 rows, 2 failed" in retried.stderr
    assert [row.get("output", {}).get("answer") for row in rows((live.folder / "out.jsonl").read_text())] == [
        *("a", "b", "c"),
        *(None, None),
    ]
    alone = live.run(*words, "--retry-failed")
    assert alone.returncode == 2
    assert "name it, --checkpoint" in alone.stderr


def test_the_first_failure_can_end_the_batch(live: Commands) -> None:
    live.write("sick.py", SICK)
    live.write("in.jsonl", "".join(f'{{"question":"q{n}"}}\n' for n in range(100)))
    words = ("batch", "--program", "sick.py:program", "--sim", "--quiet", "in.jsonl", "-o", "out.jsonl")
    done = live.run(*words, "--on-error", "raise", SICK="q2")
    assert done.returncode == 1
    assert "3 rows, 1 failed; ended early: a row has failed\n  1 OSError, first in row 2" in done.stderr
    out = rows((live.folder / "out.jsonl").read_text())
    assert ["error" in row for row in out] == [False, False, True]
    assert live.run(*words, "--on-error", "stop").returncode == 2


def test_without_a_key_a_batch_is_one_error(live: Commands) -> None:
    many(live, 50)
    words = ("batch", "--program", "qa.py:plain", "--lm", "openai/gpt-4o-mini", "in.jsonl", "-o", "out.jsonl")
    done = live.run(*words, "--checkpoint", "done.jsonl", OPENAI_API_KEY="")
    assert done.returncode == 2
    assert "set OPENAI_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1
    assert lines_in(live.folder / "done.jsonl") == 1, "its head only"
    assert not list(live.folder.glob("out.jsonl*"))


def test_the_bar_knows_how_many_rows_there_are(live: Commands) -> None:
    """On a terminal, one that says it has no columns too: there nothing was drawn at all."""
    many(live, 30)
    main, terminal = pty.openpty()
    words = [sys.executable, "-m", "dspy_live", *BATCH[:-1], "in.jsonl", "-o", "out.jsonl", "--concurrency", "2"]
    environ = {**live.environ, "DSPY_LIVE_SIM": "ttft=0.05 tps=none jitter=0"}
    process = subprocess.Popen(words, cwd=live.folder, env=environ, stderr=terminal)
    os.close(terminal)
    drawn = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while data := os.read(main, 4096):
            drawn += data
    os.close(main)
    assert process.wait(30) == 0
    assert re.search(rb" \d+/30 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(item/s|s/item)", drawn), drawn


def test_a_failure_of_every_row_ends_the_batch_and_keeps_the_rows_so_far(live: Commands) -> None:
    told = "        if question == 'stop':\n            raise ConfigurationError('the index has no such name')\n"
    program = SICK.replace("import dspy\n", "import dspy\nfrom dspy_live.core.errors import ConfigurationError\n")
    live.write("sick.py", program.replace("        if question ==", told + "        if question ==", 1))
    live.write("in.jsonl", "".join(f'{{"question":"{word}"}}\n' for word in ("a", "b", "stop", "c", "d")))
    words = ("batch", "--program", "sick.py:program", "--sim", "--quiet", "in.jsonl", "-o", "out.jsonl")
    done = live.run(*words, "--checkpoint", "done.jsonl", "--concurrency", "1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2:] == [
        "dspy-live: 2 rows, 0 failed; ended early: by an error",
        "dspy-live: the index has no such name",
    ]
    assert lines_in(live.folder / "out.jsonl") == 2
    assert lines_in(live.folder / "done.jsonl") == 3, "its head and two records"
