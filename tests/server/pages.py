"""What the tests of the playground and of ``/docs`` do with a page."""

from __future__ import annotations

import base64
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.server.browser import Page
from tests.server.support import Live

ROOT = Path(__file__).resolve().parents[2]
DONE = "document.querySelector('#state').dataset.state === 'done'"
FAILED = "document.querySelector('#state').dataset.state === 'failed'"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def open_program(page: Page, live: Live, name: str = "rivers") -> None:
    """Open the playground with one program, as a new visitor in a new tab."""
    page.goto(live.url + "/docs")  # the tab's store belongs to the origin; it is emptied where the playground is not
    page.evaluate("sessionStorage.clear()")
    page.goto(f"{live.url}/#program={name}")
    page.wait("document.querySelector('#inputs').childElementCount")


def ask(page: Page, question: str, end: str = DONE) -> None:
    """Put a question into the form, run, and wait for the end."""
    page.evaluate("(document.querySelector('#in-question').value = '')")
    page.type("#in-question", question)
    page.click("#run")
    page.wait(f"{end} && !document.querySelector('#run').disabled")


def value(page: Page, number: int) -> str:
    return str(page.evaluate(f"document.querySelectorAll('.output .value')[{number}].textContent"))


def drop(page: Page, selector: str, name: str, kind: str, data: bytes) -> None:
    """Drop a file on the control around ``selector``."""
    encoded = base64.b64encode(data).decode()
    page.evaluate(
        f"""(() => {{
          const bytes = Uint8Array.from(atob({json.dumps(encoded)}), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], {json.dumps(name)}, {{ type: {json.dumps(kind)} }}));
          const event = new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }});
          document.querySelector({json.dumps(selector)}).closest(".file").dispatchEvent(event);
        }})()"""
    )


@cache
def _axe() -> str:
    found = subprocess.run([ROOT / "scripts/axe.sh"], check=True, capture_output=True, text=True, timeout=300)
    return Path(found.stdout.strip()).read_text()


def has_no_barrier(page: Page) -> None:
    """Fail with what axe-core finds wrong on the page as it is."""
    found = _barriers(page)
    assert not found, found


def _barriers(page: Page) -> list[Any]:
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(_axe())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 5, "axe has looked at nothing"
    return [[rule["id"], [node["html"][:200] for node in rule["nodes"]]] for rule in found["violations"]]


def resize(page: Page, width: int, *, dark: bool = False, height: int = 860) -> None:
    """Give the window a size and a colour scheme."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.call("Emulation.setEmulatedMedia", features=scheme)


def reset_size(page: Page) -> None:
    page.call("Emulation.clearDeviceMetricsOverride")
    page.call("Emulation.setEmulatedMedia", features=[])
