"""The systems that ``bench/run.py`` compares: how each is started, and where it takes questions."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent


def free_port() -> int:
    """Return a port that nobody listens on now, and that no outgoing connection is given meanwhile."""
    while True:
        port = random.randrange(15_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


LM_PORT, PORT = int(os.environ.get("BENCH_LM_PORT") or free_port()), free_port()
UVICORN = ["-m", "uvicorn", "--app-dir", str(HERE), "--port", str(PORT), "--loop", "uvloop", "--no-access-log",
           "--log-level", "warning", "--backlog", "4096"]  # fmt: skip


@dataclass(frozen=True)
class System:
    """One server under test.

    ``words`` is the command line after ``python``; empty for a server that runs already. ``mark`` is what begins an
    event that counts as a token. A ``chat`` system takes OpenAI's chat completions in place of ``{"question": …}``.
    ``environ`` is added to its environment.
    """

    title: str
    words: tuple[str, ...] = ()
    predict: str = "/predict"
    stream: str = "/predict/stream"
    mark: str = "event: token"
    chat: bool = False
    host: str = "127.0.0.1"
    port: int = PORT
    environ: tuple[tuple[str, str], ...] = ()


SERVE = ("-m", "dspy_live", "serve", f"{HERE / 'live_program.py'}:program", "--port", str(PORT))

SYSTEMS = {
    "live": System("dspy-live", SERVE),
    "python": System("dspy-live, Python alone", SERVE, environ=(("DSPY_LIVE_NATIVE", "0"),)),
    "native": System("DSPy and FastAPI", (*UVICORN, "native_app:app")),
    "tutorial": System("DSPy's tutorial", (*UVICORN, "tutorial_app:app")),
    "relay": System(
        "a relay",
        (str(HERE / "relay.py"), "--port", str(PORT), "--to", str(LM_PORT)),
        "/v1/chat/completions",
        "/v1/chat/completions",
        '"content"',
        chat=True,
    ),
}


def system_at(url: str) -> System:
    """Return the user's own server as a system. It must take and give what ``dspy-live serve`` does.

    Raises ``ValueError`` for what is no ``http://host:port``.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"--url must be like http://127.0.0.1:8000; got {url!r}")
    base = parts.path.rstrip("/")
    return System("yours", (), f"{base}/predict", f"{base}/predict/stream", host=parts.hostname, port=parts.port or 80)
