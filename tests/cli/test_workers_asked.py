"""What a worker makes of the others' answers when it is asked for a run that it does not have."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspy_live.core.errors import Overloaded
from dspy_live.server.workers import siblings
from dspy_live.server.workers.link import LinkServer, socket_of, write_frame
from dspy_live.server.workers.siblings import Siblings


async def asked_for_a_run(folder: Path, answer: Any) -> bool:
    """Ask worker 1 for a run that it does not have, beside a worker 2 that answers so. True: that one has answered."""
    nothing = SimpleNamespace(knows=lambda run_id, key: False)
    one = Siblings(SimpleNamespace(resumables=nothing, runs=nothing), folder, 1, time.monotonic())  # type: ignore[arg-type]
    request = SimpleNamespace(scope={"method": "GET"}, params={"id": "r"}, key="")
    async with LinkServer(socket_of(folder, 2), answer):
        return await one.serve(request)  # type: ignore[arg-type]


async def test_a_run_that_no_worker_has_is_unknown(tmp_path: Path) -> None:
    async def no(question: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write_frame(writer, False)

    async def dies(question: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    assert not await asked_for_a_run(tmp_path, no)
    assert not await asked_for_a_run(tmp_path, dies)


async def test_a_run_may_be_a_worker_s_that_is_too_busy_to_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was 404 after two seconds, for which a client gives its run up."""
    over = asyncio.Event()

    async def stands_still(question: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    monkeypatch.setattr(siblings, "FIND_SECONDS", 0.05)
    with pytest.raises(Overloaded, match="too busy"):
        await asked_for_a_run(tmp_path, stands_still)
    over.set()
