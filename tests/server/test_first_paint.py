"""What a browser needs before it paints the pages for the first time: little, and nothing that can be late.

200 ms are kept by what is waited for, which can be counted on a machine of any speed: three small files, and no script.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from tests.server.browser import Page
from tests.server.pages import reset_size
from tests.server.support import Live

from dspy_live.server.routes import static

PAGES = {"index.html": "/", "docs.html": "/docs"}
MOST_BYTES = 32_000
"""Of the page and the style sheets in its head. Three round trips and this much take 170 ms at 10 Mbit/s and 40 ms."""

PAINTED = "performance.getEntriesByName('first-contentful-paint').length"


def head_of(page: str) -> tuple[list[str], list[str]]:
    """Return the style sheets and the scripts that a page's head names."""
    head = static.load()[page][0].decode().partition("</head>")[0]
    return re.findall(r'rel="stylesheet" href="static/([\w.]+)"', head), re.findall(r"<script[^>]*>", head)


@pytest.mark.parametrize("page", PAGES)
def test_the_first_paint_waits_for_few_bytes_and_no_script(page: str) -> None:
    files = {name: body for name, (body, _, _) in static.load().items()}
    styles, scripts = head_of(page)
    assert styles == ["base.css", "layout.css"]
    assert sum(len(files[name]) for name in (page, *styles)) < MOST_BYTES
    assert scripts
    everywhere = re.findall(r"<script[^>]*>", files[page].decode())
    assert all('type="module"' in script for script in everywhere), "a module never holds up a paint; others do"
    for name in styles:
        assert b"@import" not in files[name]
        assert b"url(" not in files[name]


@contextlib.contextmanager
def held(page: Page, *patterns: str) -> Iterator[None]:
    """Let requests for these addresses hang, as on a network that has lost them."""
    page.call("Network.enable")
    page.call("Network.setCacheDisabled", cacheDisabled=True)
    page.call("Fetch.enable", patterns=[{"urlPattern": pattern} for pattern in patterns])
    try:
        yield
    finally:
        page.call("Fetch.disable")
        page.call("Network.setCacheDisabled", cacheDisabled=False)


@pytest.mark.parametrize("name", PAGES)
def test_it_paints_while_everything_else_is_still_on_its_way(quiet_tab: Page, guide: Live, name: str) -> None:
    page = quiet_tab
    page.goto("about:blank")
    rest = [each for each in static.load() if each.endswith((".js", ".css")) and each not in head_of(name)[0]]
    with held(page, *(f"*/static/{each}" for each in rest), "*/programs", "*/openapi.json"):
        page.call("Page.navigate", url=guide.url + PAGES[name])
        page.wait(PAINTED)
        assert page.evaluate("document.querySelector('h1').getBoundingClientRect().height") > 10
        assert page.evaluate("document.readyState") == "loading", "the rest has not come"
        paint = page.evaluate("performance.getEntriesByName('first-paint')[0].startTime")
        print(f"{name}: first paint after {paint:.0f} ms")
    page.goto("about:blank")
    reset_size(page)
    page.errors.clear()


def test_the_browser_says_itself_what_holds_up_the_paint(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    page.goto(guide.url + "/")
    page.wait(PAINTED)
    entries = page.evaluate("performance.getEntriesByType('resource').map((e) => [e.name, e.renderBlockingStatus])")
    blocking = [name for name, status in entries if status == "blocking"]
    assert sorted(name.rpartition("/")[2] for name in blocking) == ["base.css", "layout.css"], blocking
