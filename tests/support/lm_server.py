"""A real LM server for tests: llama.cpp's own, from xllamacpp, with a random-weight model of half a megabyte.

``lm_server`` is a fixture of the whole session. Its answers are word salad; :func:`chat_grammar` and a
``response_format`` give them the shape that an adapter wants::

    def test_it(lm_server):
        body = {"messages": […], "grammar": chat_grammar(["answer"]), "stream": True}
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from tests.support.until import BOUND, until

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = _ROOT / "scripts" / "tiny_model.py"
_PROCESS = Path(__file__).with_name("lm_process.py")
_CACHE = _ROOT / ".cache"
ENDLESS = 1_000_000
"""So many ``max_tokens`` take minutes: what ends such a reply is its client's leaving."""


def tiny_model() -> Path:
    """The model's path; it is written when it is not there or older than its script."""
    path = _CACHE / "tiny-lm.gguf"
    if not path.exists() or path.stat().st_mtime < _SCRIPT.stat().st_mtime:
        subprocess.run([sys.executable, str(_SCRIPT), str(path)], check=True)
    return path


class LMServer:
    """llama.cpp's HTTP server in a process of its own, for as long as the context lasts.

    ``url`` is the base for an LM (``http://127.0.0.1:PORT/v1``). The process ends with this one, however
    this one ends: it reads a pipe that then closes.
    """

    def __init__(self, slots: int = 4) -> None:
        self.root = ""
        self.url = ""
        self._slots = slots
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> LMServer:
        """Start it and wait until it is healthy. Raises ``RuntimeError`` with its own words when it is not."""
        log = _CACHE / "lm_server.log"
        model = tiny_model()
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROCESS), str(model), str(self._slots)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            self.root = json.loads(line)["url"]
            self._wait_until_healthy()
        except (ValueError, KeyError, OSError) as exc:
            self.stop()
            raise RuntimeError(f"the LM server did not start: {line}{log.read_text()[-2000:]}") from exc
        self.url = self.root + "/v1"
        return self

    def _wait_until_healthy(self, seconds: float = BOUND) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self.get("/health")
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the process; returns when it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> LMServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def get(self, path: str) -> str:
        """The body of a GET on the server, such as ``/health``, ``/slots``, ``/metrics``."""
        with urllib.request.urlopen(self.root + path, timeout=BOUND) as reply:
            return str(reply.read().decode())

    def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The parsed reply to a chat-completions request without streaming."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + "/chat/completions", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=BOUND) as reply:
            made: dict[str, Any] = json.loads(reply.read())
        return made

    def busy(self) -> int:
        """How many slots are generating now."""
        return sum(bool(slot["is_processing"]) for slot in json.loads(self.get("/slots")))

    def predicted(self) -> int:
        """Tokens generated since the start, as far as the server has booked them: a slot does so when it ends."""
        for line in self.get("/metrics").splitlines():
            if line.startswith("llamacpp:tokens_predicted_total "):
                return int(float(line.split()[1]))
        raise AssertionError("the server's metrics have no tokens_predicted_total")

    def idle_after(self, seconds: float = BOUND) -> float:
        """Wait until no slot generates, and return how long that took; fails after ``seconds``."""
        begun = time.monotonic()
        until(lambda: not self.busy(), seconds)
        return time.monotonic() - begun


def chat_grammar(fields: Sequence[str] | Mapping[str, str], words: int = 12) -> str:
    """A GBNF grammar that forces ChatAdapter's format; pass it as ``grammar`` in the body.

    Args:
        fields: output fields in order; a mapping gives a rule for a field's value, such as
            ``'"True" | "False"'`` or ``'[0-9]'``. The others are a sentence.
        words: about how many words such a sentence has.
    """
    rules = dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields, "")
    sections, lines = [], []
    for number, (name, rule) in enumerate(rules.items()):
        sections.append(rf'"[[ ## {name} ## ]]\n" value{number} "\n\n"')
        lines.append(f"value{number} ::= {rule or sentence_rule(words)}")
    return "\n".join([f'root ::= {" ".join(sections)} "[[ ## completed ## ]]"', *lines]) + "\n"


def sentence_rule(words: int) -> str:
    """A rule for a sentence of about so many words of lower-case letters and commas, without line breaks."""
    return f'[A-Z] [a-z]{{1,8}} (","? " " [a-z]{{1,8}}){{{max(words - 1, 1)}}} "."'


@pytest.fixture(scope="session")
def lm_server() -> Iterator[LMServer]:
    """The real LM server, started once for all tests of the session that ask for it."""
    with LMServer() as server:
        yield server
