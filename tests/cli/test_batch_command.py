"""``dspy-live batch`` as a user runs it: rows of every kind, files that can't be, disks that are full."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from tests.cli.conftest import Commands

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
        (
            ("in.jsonl", "-o", "x.jsonl", "--concurrency", "0"),
            2,
            "concurrency must be a whole number, at least 1; got 0",
        ),
        (("in.jsonl", "-o", "x.jsonl", "--timeout", "-1"), 2, "positive number of seconds"),
    ],
)
def test_what_can_not_work_is_one_line(live: Commands, words: tuple[str, ...], status: int, said: str) -> None:
    before = '{"question":"a"}\n'
    live.write("in.jsonl", before)
    done = live.run(*BATCH, *words)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "0 rows" not in done.stderr or status == 1
    assert (live.folder / "in.jsonl").read_text() == before


def test_ctrl_c_ends_it_cleanly_and_a_rerun_does_the_rest(live: Commands) -> None:
    count = 60
    live.write("in.jsonl", "".join(f'{{"question":"q{n}"}}\n' for n in range(count)))
    words = (*BATCH, "in.jsonl", "-o", "out.jsonl", "--checkpoint", "done.jsonl", "--concurrency", "4")
    process = live.start(*words, DSPY_LIVE_SIM="ttft=0.1 tps=none jitter=0")
    done, end = live.folder / "done.jsonl", time.monotonic() + 30
    while not (done.exists() and done.read_bytes().count(b"\n") > 8) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
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
