"""A server whose hard limit is 64 open files, as some containers and panels have it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import dspy
import pytest

from dspy_live.loading.descriptors import ENOUGH, spare_descriptors

from .test_serve import address, ask, banner

if TYPE_CHECKING:
    from .conftest import Commands


def test_64_descriptors_are_enough_for_some_clients(live: Commands) -> None:
    """DSPy's cache on disk took 52 of them with the first request: no LM could be reached, and no client got in."""
    sim = live.start("sim", "--port", "0", "--fast")
    host, port = address(banner(sim, 2))
    words = [
        "serve",
        "qa.py:plain",
        "--port",
        "0",
        "--lame-duck",
        "0",
        "--lm",
        "openai/x",
        "--api-base",
        f"http://{host}:{port}/v1",
    ]
    command = ["bash", "-c", 'ulimit -n 64 && exec "$@"', "bash", sys.executable, "-m", "dspy_live", *words]
    environ = {**live.environ, "DSPY_LIVE_API_KEY": "any", "DSPY_CACHEDIR": str(live.folder / "cache")}
    server = subprocess.Popen(
        command, cwd=live.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    live.processes.append(server)
    where = address(banner(server, 4))
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            asked = [{"question": f"number {i}?"} for i in range(8)]
            replies = list(pool.map(lambda body: ask(where, "/predict", body), asked))
        assert [status for status, _, _ in replies] == [200] * 8
    open_files = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    assert open_files < 64
    server.terminate()
    _, err = server.communicate(timeout=40)
    assert "may open 64 files only" in err


def test_a_cache_that_the_user_configured_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = object()
    monkeypatch.setitem(vars(dspy), "cache", mine)
    assert not spare_descriptors(64)
    assert dspy.cache is mine
    assert not spare_descriptors(ENOUGH)
