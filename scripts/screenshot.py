"""Take the README's picture: the playground while an answer is being written.

.venv/bin/python scripts/screenshot.py docs/images/playground.png
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))

from browser import chromium  # noqa: E402 - the tests' own browser

PORT = 8231
URL = f"http://127.0.0.1:{PORT}"
WIDTH, HEIGHT = 1180, 850
QUESTION = "Why do rivers bend, and why do their bends grow?"


def main() -> None:
    """Serve the demo at a slow pace, ask, and take the picture in the middle of the answer."""
    picture = Path(sys.argv[1])
    words = ["-m", "dspy_live", "serve", str(ROOT / "examples/demo.py"), "--port", str(PORT), "--no-ledger"]
    environ = {**os.environ, "DSPY_LIVE_SIM": "ttft=0.2 tps=25 jitter=0.2 length=60"}
    with tempfile.TemporaryDirectory() as profile:
        server = subprocess.Popen([sys.executable, *words], env=environ, stdout=subprocess.DEVNULL)
        try:
            _wait_for_server()
            with chromium(Path(profile)) as page:
                page.screenshot(picture, width=WIDTH, height=HEIGHT)  # the window has its size from the beginning
                page.goto(URL)
                page.wait("document.querySelector('textarea')")
                page.type("textarea", QUESTION)
                page.press("Enter", ctrl=True)
                page.wait("document.querySelector('#outputs').innerText.split(' ').length > 62", seconds=30)
                page.screenshot(picture, width=WIDTH, height=HEIGHT)
        finally:
            server.terminate()
            server.wait()


def _wait_for_server() -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{URL}/health/live", timeout=1)
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
