"""Plain lines go straight to our consoles where nobody else has a part in them; the line is the logging package's."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_live.observe.console import write_plain
from dspy_live.observe.logs import OURS, PLAIN, reset_logging, setup_logging
from dspy_live.observe.plain_lines import texts_of

FIELDS: dict[str, Any] = {"method": "POST", "path": "/predict", "status": 200, "key": "", "run": "0a" * 16, "bytes": 9}
log = logging.getLogger("tests.console")


@pytest.fixture(autouse=True)
def handlers_of_before() -> Iterator[None]:
    before = logging.getLogger().handlers[:]
    yield
    reset_logging()
    logging.getLogger().handlers[:] = before


def console(as_json: bool = False, stream: io.StringIO | None = None) -> io.StringIO:
    """Set up the logs of a process that has no other handlers; pytest puts its own there for each test."""
    stream = stream if stream is not None else io.StringIO()
    logging.getLogger().handlers.clear()
    setup_logging("INFO", json=as_json, stream=stream)
    return stream


def lines(text: str) -> list[str]:
    """The lines of this file's logger; threads that other tests have left behind may log too."""
    return [line for line in text.split("\n") if log.name in line]


def write(fields: dict[str, Any] = FIELDS) -> bool:
    return write_plain(log, logging.INFO, "request", fields, texts_of(fields))


@pytest.mark.parametrize("as_json", [True, False])
def test_direct_line_is_the_line_of_a_record(as_json: bool) -> None:
    stream = console(as_json)
    assert write()
    log.info("%s", "message", extra={OURS: ("request", FIELDS), PLAIN: True})
    direct, usual = lines(stream.getvalue())
    if as_json:
        assert json.loads(direct).pop("timestamp") <= json.loads(usual).pop("timestamp")
        assert json.loads(direct)["path"] == "/predict"
    assert len(direct) == len(usual)
    assert direct[40:] == usual[40:]


@pytest.mark.parametrize("path", ["/a\n2026-01-01 status=200", "/\x1b[31mred", '/"quoted"', "/with space", "/ü"])
def test_odd_path_is_written_as_in_a_record(path: str) -> None:
    stream = console()
    fields = {**FIELDS, "path": path}
    assert write(fields)
    log.info("%s", "message", extra={OURS: ("request", fields), PLAIN: True})
    direct, usual = lines(stream.getvalue())
    assert direct[40:] == usual[40:]
    assert "\x1b" not in direct


def add_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "handlers", [logging.NullHandler()])


def add_a_handler_to_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger().addHandler(logging.NullHandler())


def filter_the_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "filters", [lambda record: True])


def filter_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger().handlers[0].addFilter(lambda record: True)


def raise_the_consoles_level(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger().handlers[0].setLevel(logging.ERROR)


def make_records_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_logRecordFactory", type("Own", (logging.LogRecord,), {}))


def stop_propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "propagate", False)


@pytest.mark.parametrize(
    "take_part",
    [
        add_a_handler,
        add_a_handler_to_the_root,
        filter_the_logger,
        filter_the_console,
        raise_the_consoles_level,
        make_records_of_ones_own,
        stop_propagating,
    ],
)
def test_record_is_asked_for_where_somebody_else_has_a_part(
    take_part: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = console()
    assert write()
    stream.truncate(0)
    take_part(monkeypatch)
    assert not write()
    assert lines(stream.getvalue()) == []


def test_possible_secret_is_left_to_the_usual_way() -> None:
    stream = console()
    assert not write({**FIELDS, "path": "/predict/sk-proj-S3CRETs3cretS3cret77"})
    assert not write({**FIELDS, "path": "/" + "x" * 400 + "?api_key=S3CRETs3cretS3cret77"})
    assert lines(stream.getvalue()) == []


def test_console_that_is_gone_does_not_fail_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    console(stream=Full())
    assert write()
    assert write()
    assert capsys.readouterr().err.count("the log can't be written") == 1


class Counting(io.StringIO):
    """Counts the writes of this file's logger."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += bool(lines(text))
        return super().write(text)


def paths(stream: io.StringIO) -> list[str]:
    return [line.split("path=")[1].split()[0] for line in lines(stream.getvalue())]


async def test_lines_of_one_turn_of_the_loop_are_written_together_and_in_order() -> None:
    stream = console(stream=Counting())
    assert isinstance(stream, Counting)
    for path in ("/1", "/2", "/3"):
        assert write({**FIELDS, "path": path})
    assert stream.writes == 0
    await asyncio.sleep(0)
    assert (paths(stream), stream.writes) == (["/1", "/2", "/3"], 1)
    assert write({**FIELDS, "path": "/4"})
    log.warning("path=/5")
    assert paths(stream) == ["/1", "/2", "/3", "/4", "/5"]
    assert write({**FIELDS, "path": "/6"})
    await asyncio.to_thread(write, {**FIELDS, "path": "/7"})
    await asyncio.sleep(0)
    assert paths(stream)[5:] == ["/6", "/7"]


def test_lines_of_a_loop_that_was_closed_are_written() -> None:
    stream = console()
    loop = asyncio.new_event_loop()
    loop.call_soon(write)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert paths(stream) == []
    assert write({**FIELDS, "path": "/later"})
    assert paths(stream) == ["/predict", "/later"]


async def test_lines_that_wait_are_written_when_the_logs_end() -> None:
    stream = console()
    assert write()
    reset_logging()
    assert paths(stream) == ["/predict"]


async def test_forked_process_does_not_write_its_parents_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+", buffering=1) as file:
        logging.getLogger().handlers.clear()
        setup_logging("INFO", stream=file)
        assert write()
        child = os.fork()
        if not child:
            logging.getLogger().handlers[0].flush()
            os._exit(0)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        assert len(lines((tmp_path / "log").read_text())) == 1
