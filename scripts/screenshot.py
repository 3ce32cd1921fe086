"""Take the pictures of the documentation: the playground while an answer is being written, a chat, and the API's page.

.venv/bin/python scripts/screenshot.py docs/images
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))

from browser import Page, chromium  # noqa: E402 - the tests' own browser

WIDTH, HEIGHT = 1280, 820
QUESTION = "Why do rivers bend, and why do their bends grow?"
CHAT = "question: str, history: dspy.History -> answer: str"


def main() -> None:
    """Take each picture and put it into the folder that is named."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium(Path(profile)) as page:
        page.screenshot(folder / "playground.png", width=WIDTH, height=HEIGHT)  # the window has its size from now on
        with served(str(ROOT / "examples/demo.py")) as url:
            take_playground(page, url, folder / "playground.png")
            take_api(page, url, folder / "api.png")
        with served(CHAT) as url:
            take_chat(page, url, folder / "chat.png")


def take_playground(page: Page, url: str, picture: Path) -> None:
    """Ask, and take the picture in the middle of the answer."""
    page.goto(url)
    page.wait("document.querySelector('#in-question')")
    page.type("#in-question", QUESTION)
    page.press("Enter", ctrl=True)
    page.wait("document.querySelector('#outputs').innerText.split(' ').length > 62", seconds=30)
    page.screenshot(picture, width=WIDTH, height=HEIGHT)


def take_chat(page: Page, url: str, picture: Path) -> None:
    """Ask twice, and take the picture in the middle of the second answer."""
    page.goto(url)
    page.wait("document.querySelector('#in-question')")
    page.type("#in-question", "Where does the Danube rise?")
    page.press("Enter", ctrl=True)
    page.wait("document.querySelector('#state').dataset.state === 'done'", seconds=30)
    page.wait("document.querySelector('#in-question').value === ''")
    page.type("#in-question", "And through how many countries does it flow?")
    page.press("Enter", ctrl=True)
    page.wait("document.querySelector('.output .value').innerText.split(' ').length > 20", seconds=30)
    page.screenshot(picture, width=WIDTH, height=HEIGHT)


def take_api(page: Page, url: str, picture: Path) -> None:
    """Send the example of the first operation."""
    page.goto(url + "/docs")
    page.wait("document.querySelector('details.operation[open] .try')")
    page.evaluate("document.querySelector('details.operation[open] .try button[type=submit]').click()")
    page.wait("document.querySelector('.try-status').textContent.startsWith('200')", seconds=30)
    page.wait("document.querySelector('.try-reply').textContent.includes('usage')", seconds=30)
    page.screenshot(picture, width=WIDTH, height=HEIGHT)


@contextlib.contextmanager
def served(target: str) -> Iterator[str]:
    """Serve a program with the simulated LM at a slow pace; gives the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "dspy_live", "serve", target, "--port", str(port), "--no-ledger"]
    environ = {**os.environ, "DSPY_LIVE_SIM": "ttft=0.2 tps=25 jitter=0.2 length=60"}
    server = subprocess.Popen(
        [sys.executable, *words], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/health/live", timeout=1)
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
