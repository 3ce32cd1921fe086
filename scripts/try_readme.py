"""Run the README's blocks in order, without a key, with the Python and the commands beside the one that runs this.

python scripts/try_readme.py README.md

A Python block whose first line is ``# name.py`` becomes that file and is run; a shell block is run as it is; a
server that a block starts runs until the end. What installs, needs a clone, or is Rust is passed over.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS_MORE = ("pip install", "make ")
_SERVERS = ("dspy-live serve", "uvicorn ")
_PORTS = ("8000", "8001")
SECONDS = 60


def main() -> None:
    """Run the blocks of the page; the first that fails ends it with its output."""
    page = Path(sys.argv[1]).read_text("utf-8")
    for port in _PORTS:
        page = page.replace(port, str(_free_port()))
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder, environ = Path(name), _environment(Path(name))
        for match in _FENCE.finditer(page):
            language, text = match[1], match[2]
            title = text.partition("\n")[0]
            if language == "bash" and text.startswith(_SERVERS):
                servers.enter_context(_served(text.strip(), folder, environ))
            elif language == "python":
                file = folder / title.removeprefix("# ")
                file.write_text(text, "utf-8")
                _run([sys.executable, file.name], title, folder, environ)
            elif language == "bash" and not text.startswith(_NEEDS_MORE):
                _run(["bash", "-euo", "pipefail", "-c", text], title, folder, environ)
            else:
                continue
            print(f"ran   {title}")


def _environment(folder: Path) -> dict[str, str]:
    """The user's environment without any setting of an LM; the caches and the ledger are in ``folder``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith("_API_KEY") and not name.startswith(("OPENAI_", "DSPY_LIVE_", "PYTHON"))
    }
    bin_folder = Path(sys.executable).parent
    return {
        **kept,
        "PATH": f"{bin_folder}{os.pathsep}{kept.get('PATH', '')}",
        "DSPY_CACHEDIR": str(folder / ".cache"),
        "DSPY_LIVE_HOME": str(folder / ".live"),
        "NO_PROXY": "localhost,127.0.0.1",
    }


def _run(words: list[str], title: str, folder: Path, environ: dict[str, str]) -> None:
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=SECONDS)
    # curl without --fail is content with an error's body.
    if done.returncode or not (done.stdout or title.startswith("# app.py")) or '"error"' in done.stdout:
        raise SystemExit(f"failed: {title}\n{done.stdout}{done.stderr}")


@contextmanager
def _served(command: str, folder: Path, environ: dict[str, str]) -> Iterator[None]:
    port = command.rpartition(" ")[2]
    path = "/docs" if command.startswith("uvicorn") else "/health/live"
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command.split(), cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}{path}", server, folder / "server.log")
            yield
        finally:
            server.terminate()
            server.wait(SECONDS)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(SECONDS * 10):
        try:
            opener.open(url, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit(f"failed: no server at {url}\n{log.read_text()}")


def _free_port() -> int:
    """Return a free port that no outgoing connection is given meanwhile."""
    while True:
        port = random.randrange(15_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


if __name__ == "__main__":
    main()
