"""Stream from a server whose LM answers over HTTP, with the commands beside the Python that runs this.

python scripts/try_streams.py with|without    the compiled part in the server's process

The LM is the simulated one, in a process of its own. The tokens that come, joined, must be the answer that comes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60
STREAMS = 3


def main() -> None:
    """Serve, stream and compare; anything wrong ends this with an assertion."""
    (wanted,) = sys.argv[1:]
    with _started("sim", "--ttft", "0.05", "--tps", "200", "--length", "60") as (_, lm):
        words = ("question -> answer", "--lm", "openai/simulated", "--api-base", f"{lm}/v1", "--api-key", "none")
        with _started("serve", *words) as (process, url):
            for number in range(STREAMS):
                tokens, answer = _stream(url, f"Question {number} at {time.time_ns()}?")
                assert len(tokens) > 1, "the answer came in one piece"
                assert "".join(tokens) == answer, f"{tokens} are not {answer!r}"
            there = "dspy_live_native" in Path(f"/proc/{process.pid}/maps").read_text()
            assert there == (wanted == "with"), f"{wanted} the compiled part, but it is {'' if there else 'not '}there"


def _stream(url: str, question: str) -> tuple[list[str], str]:
    body = json.dumps({"question": question}).encode()
    tokens, answer = [], ""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/predict/stream", body), timeout=SECONDS) as reply:
        for line in reply:
            if line.startswith(b"data: {"):
                data = json.loads(line.removeprefix(b"data: "))
                if "field" in data:
                    tokens.append(data["text"])
                answer = data.get("outputs", {}).get("answer", answer)
    return tokens, answer


@contextmanager
def _started(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A command that serves on a free port, and its address; ended with SIGTERM. What it said is shown if all fails."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = str(Path(sys.executable).with_name("dspy-live"))
    with tempfile.TemporaryFile() as said:
        words = (command, *words, "--port", str(port))
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, env=_environment())
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield process, url
        except BaseException:
            said.seek(0)
            sys.stderr.write(said.read().decode())
            raise
        finally:
            process.terminate()
            process.wait(SECONDS)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "DSPY_LIVE_NATIVE"}


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"it ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=SECONDS).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("it does not answer")


if __name__ == "__main__":
    main()
