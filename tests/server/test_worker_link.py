"""The link between workers: frames over a Unix socket, and a worker that dies while it is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from dspy_live.server.workers.link import LinkServer, ask, asked, read_frame, write_frame


def test_a_worker_that_was_killed_while_it_was_answered_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop raises ``RuntimeError`` there: the log had a warning for each stream that the dead worker had read."""
    failures: list[BaseException] = []

    async def main() -> None:
        over = asyncio.Event()

        async def answer(question: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.read() == b""
            writer.transport.abort()
            try:
                while True:
                    write_frame(writer, question)
                    await asyncio.sleep(0)
            except OSError as exc:
                failures.append(exc)
                raise
            finally:
                over.set()

        path = tmp_path / "worker-1.socket"
        async with LinkServer(path, answer):
            async with asked(path, {"ask": "x"}) as (_, writer):
                writer.close()
            await asyncio.wait_for(over.wait(), 30)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert isinstance(failures[0], ConnectionResetError)
    assert caplog.text == ""


async def test_who_is_not_there_answers_nothing(tmp_path: Path) -> None:
    assert await ask(tmp_path / "worker-9.socket", {"ask": "x"}, 5) is None
    frames: list[Any] = []

    async def answer(question: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames.append(question)
        write_frame(writer, [question, "é", None])

    path = tmp_path / "worker-1.socket"
    async with LinkServer(path, answer):
        assert await ask(path, {"a": 1}, 30) == [{"a": 1}, "é", None]
        async with asked(path, 2) as (reader, _):
            assert await read_frame(reader) == [2, "é", None]
            with pytest.raises(EOFError):
                await read_frame(reader)
    assert frames == [{"a": 1}, 2]
    assert not path.exists()
