"""What the tests say to a server on Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from tests.scale.cluster import PATIENCE, Serving

from dspy_live.server.workers.siblings import ANSWER_SECONDS

ENDLESS = "[sim tps=20 length=20000]"
SLOW = "[sim tps=20 length=60]"


def ask(server: Serving, question: str) -> httpx.Response:
    return httpx.post(f"{server.url}/predict", json={"question": question}, timeout=PATIENCE)


def pids(server: Serving) -> set[str]:
    """Return the replicas' processes, as far as sixteen questions find them."""
    with ThreadPoolExecutor(16) as pool:
        return {reply.json()["answer"] for reply in pool.map(lambda _: ask(server, "pid"), range(16))}


def stats(server: Serving) -> dict[str, Any]:
    """Return the statistics of all replicas: looked at again where one of them may have been given up."""
    while True:
        began = time.monotonic()
        reply = httpx.get(f"{server.url}/stats", timeout=PATIENCE)
        if time.monotonic() - began < ANSWER_SECONDS:
            found: dict[str, Any] = reply.json()
            return found


def events(reply: httpx.Response) -> Iterator[str]:
    """Yield the names of a stream's events."""
    for line in reply.iter_lines():
        if line.startswith("event: "):
            yield line.removeprefix("event: ")


def stream(server: Serving, question: str) -> Any:
    return httpx.stream("POST", f"{server.url}/predict/stream", json={"question": question}, timeout=PATIENCE)


def read(server: Serving, question: str, enough: threading.Event | None = None) -> str:
    """Read a stream, and return how it ended: ``prediction``, ``error``, or that it was cut.

    Where there is ``enough`` before the end, leave, and return that it ``goes on``.
    """
    names = []
    try:
        with stream(server, question) as reply:
            for name in events(reply):
                names.append(name)
                if enough is not None and enough.is_set() and name == "token":
                    return "goes on"
    except httpx.HTTPError:
        return "cut"
    return names[-2] if names[-1:] == ["done"] else "cut"
