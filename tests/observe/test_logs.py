"""Logs: the run on every line, JSON or for people, rotated, and the secret nowhere in them."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import tqdm

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.observer import RunRecord
from dspy_live.observe.logs import _file_handler, log_structured, reset_logging, setup_logging
from dspy_live.observe.prompts import PromptHider
from dspy_live.runtime import log_context
from dspy_live.runtime.books.account import process_account
from dspy_live.runtime.log_context import LogContext

SECRET = "sk-proj-S3CRETs3cretS3cret77"


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    reset_logging()
    root.setLevel(level)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Call:
    call = Call({"question": "Where is the 'Holy Grail'?\nTell me", "context": ["a long passage of text"], "k": 3})
    monkeypatch.setattr(log_context, "_look_up", lambda: LogContext(call, "Rag", "rag.answer"))
    return call


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def log_files(folder: Path) -> list[Path]:
    """The log and its older files; the hidden one beside them is the lock."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def test_every_line_of_a_run_has_its_id_also_from_the_users_own_logger(running: Call, tmp_path: Path) -> None:
    setup_logging("DEBUG", file=tmp_path / "log", stream=io.StringIO())
    logging.getLogger("the.users.own").info("Processing %s", "it")
    log_structured("warning", "slow", seconds=1.5, items=[1, {"a": None}])
    first, second = lines(tmp_path / "log")
    assert first["event"] == "Processing it"
    assert first["logger"] == "the.users.own"
    assert (second["event"], second["level"], second["seconds"], second["items"]) == (
        "slow",
        "warning",
        1.5,
        [1, {"a": None}],
    )
    assert second["logger"] == __name__
    for line in (first, second):
        assert (line["run"], line["program"], line["predictor"]) == (running.id, "Rag", "rag.answer")
        assert line["timestamp"].endswith("Z")
        assert list(line)[:4] == ["timestamp", "level", "logger", "event"]


def test_a_line_without_a_run_has_no_id(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "log", stream=io.StringIO())
    logging.getLogger("x").info("hello")
    assert "run" not in lines(tmp_path / "log")[0]


@pytest.mark.parametrize("as_json", [None, True, False])
def test_a_secret_is_in_no_line_wherever_it_came_from(as_json: bool | None, running: Call, tmp_path: Path) -> None:
    console = io.StringIO()
    setup_logging("DEBUG", file=tmp_path / "log", json=as_json, stream=console)
    logger = logging.getLogger("x")
    logger.info("calling with %s", {"api_key": SECRET})
    logger.info("Authorization: Bearer %s", SECRET[8:], extra={"api_key": SECRET})
    log_structured("INFO", "headers", headers={"Authorization": f"Bearer {SECRET}"}, api_key=SECRET, nested=[[SECRET]])
    try:
        api_key = SECRET
        raise ValueError(f"401 for api_key={api_key}")
    except ValueError:
        logger.exception("failed")
    for text in (console.getvalue(), (tmp_path / "log").read_text()):
        assert "failed" in text
        assert "ValueError" in text
        assert SECRET[8:] not in text
    if as_json is not False:
        assert len(lines(tmp_path / "log")) == 4


def test_the_colours_of_a_terminal_hide_no_secret_from_us() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    console = Terminal()
    setup_logging("INFO", stream=console)
    log_structured("INFO", "asked", api_key="plain-S3CRET", password="two words, S3CRET", token="S3CRETs3cretS3cret77")
    log_structured("INFO", "asked", by="sk-S3CRETs3cretS3cret77", so="Bearer S3CRETs3cretS3cret77")
    assert "\x1b[" in console.getvalue()
    assert "S3CRET" not in console.getvalue()


def test_fields_that_are_no_text_leave_a_line_of_json(tmp_path: Path) -> None:
    setup_logging("INFO", file=tmp_path / "log", stream=io.StringIO())
    log_structured("INFO", "asked", api_key=None, password=12345, secret={"value": "S3CRET"}, api_keys=["S3CRET"], n=1)
    (line,) = lines(tmp_path / "log")
    assert (line["api_key"], line["password"], line["n"]) == (None, "[redacted]", 1)
    assert "S3CRET" not in json.dumps(line)


def test_prompts_are_hidden_by_choice(running: Call, tmp_path: Path) -> None:
    console = io.StringIO()
    setup_logging("DEBUG", file=tmp_path / "log", prompts="hide", stream=console)
    question = running.inputs["question"]
    logger = logging.getLogger("x")
    logger.info("Processing question: %s", question)
    logger.info("inputs %r and %s", dict(running.inputs), json.dumps(dict(running.inputs)))
    log_structured("INFO", "asked", messages=[{"content": "You are ..."}], passages=running.inputs["context"], k=3)
    try:
        raise ValueError(f"can't read {question}")
    except ValueError:
        logger.exception("failed")
    for text in (console.getvalue(), (tmp_path / "log").read_text()):
        assert "Grail" not in text
        assert "long passage" not in text
        assert "You are" not in text
        assert "Processing question: [hidden]" in text
    asked = lines(tmp_path / "log")[2]
    assert asked["messages"].startswith("[hidden: ")
    assert asked["k"] == 3


def test_the_failure_of_a_run_is_told_afterwards_without_its_prompt(tmp_path: Path) -> None:
    """A server logs a run's exception when the run has ended, and a program's exceptions quote what was asked."""

    @dataclasses.dataclass
    class Passage:
        words: str

    class Document(pydantic.BaseModel):
        body: str

    account = process_account()
    setup_logging("INFO", file=tmp_path / "log", prompts="hide", stream=io.StringIO())
    inputs = {
        "question": "Gr\u00fc\u00dfe an Hans",
        "passage": Passage("a long passage"),
        "document": Document(body="my secrets"),
    }
    call = Call(inputs, ("by position",), program="Rag")
    for observer in account.observers:
        observer.run_started(call)
        observer.run_ended(RunRecord(call, None, ValueError("no"), 0.1, None))
    question, passage, document = inputs.values()
    told = f"bad: {question} {json.dumps(question)} {passage} {document!r} by position"
    logging.getLogger("server").error("run %s failed", call.id, exc_info=ValueError(told))
    text = (tmp_path / "log").read_text()
    assert "ValueError: bad: [hidden]" in text
    for word in ("Hans", "long passage", "my secrets", "by position"):
        assert word not in text
    reset_logging()
    assert not [observer for observer in account.observers if isinstance(observer, PromptHider)]


def test_prompts_are_shown_otherwise(running: Call, tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "log", stream=io.StringIO())
    log_structured("INFO", "asked", prompt="You are ...")
    assert lines(tmp_path / "log")[0]["prompt"] == "You are ..."


def test_the_console_is_for_people_and_has_no_colours_in_a_pipe(running: Call) -> None:
    console = io.StringIO()
    setup_logging("INFO", stream=console)
    log_structured("INFO", "hello", n=3)
    line = console.getvalue()
    assert "hello" in line
    assert "n=3" in line
    assert running.id in line
    assert "\x1b" not in line


def test_a_progress_bar_gives_way_to_a_line_and_is_drawn_again_below_it() -> None:
    console = io.StringIO()
    setup_logging("INFO", stream=console)
    with tqdm.tqdm(total=3, desc="batch", file=console) as bar:
        bar.update()
        log_structured("INFO", "hello")
        before, _, after = console.getvalue().partition("hello")
    assert "batch" in before
    assert "batch" not in before.rpartition("\r")[2]
    assert "batch" in after


def test_lines_below_the_level_are_left_out(tmp_path: Path) -> None:
    setup_logging("WARNING", file=tmp_path / "log", stream=io.StringIO())
    log_structured("INFO", "quiet")
    log_structured(logging.ERROR, "loud")
    assert [line["event"] for line in lines(tmp_path / "log")] == ["loud"]
    setup_logging(stream=io.StringIO())
    assert logging.getLogger().level == logging.INFO


@pytest.mark.parametrize("level", [logging.DEBUG, "debug"])
def test_the_level_that_dspys_settings_name(level: Any) -> None:
    import dspy

    with dspy.context(log_level=level):
        setup_logging(stream=io.StringIO())
        assert logging.getLogger().level == logging.DEBUG
        setup_logging("ERROR", stream=io.StringIO())
        assert logging.getLogger().level == logging.ERROR


def test_rotation_by_size_keeps_so_many_files_and_every_line_is_whole(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "log", rotate="1 kB", keep=3, stream=io.StringIO())
    for n in range(100):
        log_structured("INFO", "line", n=n)
    files = log_files(tmp_path)
    assert [f.name for f in files] == ["log", "log.1", "log.2", "log.3"]
    longest = max(len(line) for f in files for line in f.read_bytes().splitlines(keepends=True))
    assert all(1000 <= f.stat().st_size < 1000 + longest for f in files[1:])
    numbers = [line["n"] for f in (files[3], files[2], files[1], files[0]) for line in lines(f)]
    assert numbers == list(range(100 - len(numbers), 100))


def test_a_new_day_starts_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup_logging(file=tmp_path / "log", rotate="daily", stream=io.StringIO())
    log_structured("INFO", "today")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    log_structured("INFO", "tomorrow")
    assert [[line["event"] for line in lines(file)] for file in log_files(tmp_path)] == [["tomorrow"], ["today"]]


WRITING = """
import io, sys
from dspy_live import log_structured, setup_logging

setup_logging("INFO", file=sys.argv[1], rotate="20 kB", keep=99, stream=io.StringIO())
print("ready", flush=True)
sys.stdin.readline()
for n in range(600):
    log_structured("INFO", "line", by=sys.argv[2], n=n)
"""


def test_processes_that_share_a_file_lose_no_line_when_it_is_rotated(tmp_path: Path) -> None:
    """Each moved the files under the others: a tenth of the lines was gone, and some moves failed with a traceback."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITING, str(tmp_path / "log"), str(n)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(3)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=60)[1] for writer in writers] == [""] * 3
    files = log_files(tmp_path)
    assert len(files) > 5
    written = sorted((line["by"], line["n"]) for file in files for line in lines(file))
    assert written == [(str(by), n) for by in range(3) for n in range(600)]


def test_one_of_two_processes_starts_a_new_day_and_the_other_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lock is the open file's own, so that two handlers of one process take turns as those of two do.
    two = [_file_handler(tmp_path / "log", "daily", 5) for _ in range(2)]

    def both(event: str) -> None:
        for handler in two:
            handler.emit(logging.LogRecord("x", logging.INFO, __file__, 1, event, None, None))

    both("today")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    both("tomorrow")
    both("again")
    for handler in two:
        handler.close()
    assert [file.read_text().split() for file in log_files(tmp_path)] == [
        ["tomorrow", "tomorrow", "again", "again"],
        ["today"] * 2,
    ]


FORKING = """
import io, os, sys
from dspy_live import log_structured, setup_logging

setup_logging("INFO", file=sys.argv[1], rotate="20 kB", keep=99, stream=io.StringIO())
log_structured("INFO", "line", by="parent", n=-1)
children = []
for by in range(3):
    child = os.fork()
    if child == 0:
        for n in range(600):
            log_structured("INFO", "line", by=by, n=n)
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""


def test_forked_workers_lose_no_line_when_the_file_is_rotated(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, str(tmp_path / "log")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    files = log_files(tmp_path)
    assert len(files) > 5
    written = sorted((line["by"], line["n"]) for file in files for line in lines(file) if line["n"] >= 0)
    assert written == [(by, n) for by in range(3) for n in range(600)]


@pytest.mark.parametrize("rotate", ["1 MB", "daily"])
def test_a_log_that_another_process_moves_goes_on_in_a_new_file(
    rotate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging(file=tmp_path / "log", rotate=rotate, stream=io.StringIO())
    log_structured("INFO", "one")
    (tmp_path / "log").rename(tmp_path / "moved")
    log_structured("INFO", "two")
    assert [line["event"] for line in lines(tmp_path / "log")] == ["two"]
    assert capsys.readouterr().err == ""


def test_lines_that_can_not_be_written_are_reported_once_and_are_not_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logging package reports each of them with a traceback, the message and its arguments, keys and all."""
    (tmp_path / "logs").mkdir()
    console = io.StringIO()
    setup_logging(file=tmp_path / "logs" / "log", rotate="1 MB", stream=console)
    log_structured("INFO", "one")
    shutil.rmtree(tmp_path / "logs")
    for _ in range(2):
        logging.getLogger("x").info("calling with %s", {"api_key": SECRET})
    (report,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "logs" / "log") in report
    assert "No such file" in report
    assert console.getvalue().count("calling with") == 2


def test_a_line_that_can_not_be_formatted_is_reported_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("INFO", stream=io.StringIO())
    handler = logging.getLogger().handlers[-1]  # pytest's own raises
    handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%d of them", ("three",), None))
    assert Path(__file__).name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "LOUD"}, "DEBUG, INFO"),
        ({"level": True}, "DEBUG, INFO"),
        ({"file": "log", "rotate": "weekly"}, "'10 MB'"),
        ({"file": "log", "rotate": 0}, "'10 MB'"),
        ({"file": "log", "rotate": "-1 MB"}, "'10 MB'"),
        ({"rotate": "1 MB"}, "needs a file"),
        ({"file": "log", "keep": 0, "rotate": 10}, "at least 1"),
        ({"file": "no/such/folder/log"}, "can't be written"),
        ({"prompts": "maybe"}, "show"),
    ],
)
def test_wrong_arguments_are_refused_and_change_nothing(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    setup_logging(file=tmp_path / "before", stream=io.StringIO())
    if "file" in arguments:
        arguments = {**arguments, "file": tmp_path / arguments["file"]}
    with pytest.raises(ConfigurationError, match=message):
        setup_logging(**arguments)
    log_structured("INFO", "still there")
    assert [line["event"] for line in lines(tmp_path / "before")] == ["still there"]


def test_setting_up_twice_writes_once_and_leaves_others_alone(tmp_path: Path) -> None:
    others = logging.NullHandler()
    logging.getLogger().addHandler(others)
    try:
        setup_logging(file=tmp_path / "one", stream=io.StringIO())
        setup_logging(file=tmp_path / "two", stream=io.StringIO())
        log_structured("INFO", "hello")
        assert (tmp_path / "one").read_text() == ""
        assert len(lines(tmp_path / "two")) == 1
        assert others in logging.getLogger().handlers
    finally:
        logging.getLogger().removeHandler(others)


def test_dspys_own_lines_come_the_same_way(tmp_path: Path) -> None:
    import dspy  # noqa: F401
    from dspy.utils.logging_utils import configure_dspy_loggers

    setup_logging(file=tmp_path / "log", stream=io.StringIO())
    logging.getLogger("dspy.clients.lm").warning("from dspy")
    configure_dspy_loggers("dspy")  # as its import does, should that come later
    log_context.programs_loaded(log_context._look_up)
    logging.getLogger("dspy.clients.lm").warning("again")
    assert [line["event"] for line in lines(tmp_path / "log")] == ["from dspy", "again"]


def test_without_setup_the_fields_follow_the_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_structured("INFO", "Processing question", question="What is DSPy?", api_key=SECRET)
    assert caplog.messages == ["Processing question question='What is DSPy?' api_key='[redacted]'"]


def test_fields_that_would_take_a_columns_name_keep_both(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "log", stream=io.StringIO())
    log_structured("INFO", "message", event="mine", logger="mine", odd=object, surrogate="\ud800", big=2**80)
    (line,) = lines(tmp_path / "log")
    assert (line["event"], line["event_"], line["logger_"]) == ("message", "mine", "mine")
