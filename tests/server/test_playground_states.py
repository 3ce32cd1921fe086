"""No barrier in any state of the pages, in either theme and at either width; and pages that can't start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from tests.server.browser import Page
from tests.server.pages import DONE, FAILED, PNG, ask, drop, has_no_barrier, open_program, resize
from tests.server.support import Live, http, qa, serving


def _empty(page: Page, live: Live) -> None:
    open_program(page, live)


def _done(page: Page, live: Live) -> None:
    open_program(page, live)
    ask(page, "markdown")
    page.click("#steps .reasoning summary")


def _streaming(page: Page, live: Live) -> None:
    open_program(page, live)
    page.type("#in-question", "endless")
    page.click("#run")
    page.wait("document.querySelector('.output .value').textContent.length > 100")


def _wrong(page: Page, live: Live) -> None:
    open_program(page, live)
    page.click("#run")
    page.wait("document.querySelector('[aria-invalid=true]')")


def _failed(page: Page, live: Live) -> None:
    open_program(page, live)
    ask(page, "late", FAILED)


def _nested(page: Page, live: Live) -> None:
    open_program(page, live, "survey")
    page.type("#in-place-name", "deep")
    for button in ("#in-place-bridges", "#in-place-upstream", "#in-others", "#in-counts"):
        page.click(button)
    page.type("#in-others-1-name", "Ulm")
    page.type("#in-counts-1-key", "a")
    page.type("#in-counts-1", "1")
    page.type("#in-place-bridges-1", "x")
    page.type("#in-place-upstream-name", "x")
    drop(page, "#in-photo", "river.png", "image/png", PNG)
    drop(page, "#in-report", "report.pdf", "application/pdf", b"%PDF")
    page.wait("document.querySelectorAll('.chosen button').length === 2")
    page.click("#run")
    page.wait(DONE)


def _chat(page: Page, live: Live) -> None:
    open_program(page, live, "talk")
    for question in ("One?", "Two?"):
        page.type("#in-question", question)
        page.press("Enter", ctrl=True)
        page.wait(f"{DONE} && document.querySelector('#in-question').value === ''")
        page.wait("!document.querySelector('#run').disabled")


def _silent(page: Page, live: Live) -> None:
    open_program(page, live, "talk")


def _history(page: Page, live: Live) -> None:
    _chat(page, live)
    page.evaluate("document.querySelector('input[value=form]').click()")


def _past(page: Page, live: Live) -> None:
    open_program(page, live)
    ask(page, "Which?")
    ask(page, "markdown")
    page.click("#runs li:nth-child(2) .past")


def _compared(page: Page, live: Live) -> None:
    _past(page, live)
    for row in (1, 2):
        page.click(f"#runs li:nth-child({row}) input")
    page.click("#compare")


def _code(page: Page, live: Live) -> None:
    open_program(page, live)
    page.click("#snippets")


def _link(page: Page, live: Live) -> None:
    open_program(page, live)
    page.click("#share")


STATES: list[Callable[[Page, Live], None]] = [
    _empty, _done, _streaming, _wrong, _failed, _nested, _silent, _chat, _history, _past, _compared, _code, _link,
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_no_state_has_a_barrier_or_is_wider_than_the_window(
    quiet_tab: Page, guide: Live, state: Callable[[Page, Live], None]
) -> None:
    page = quiet_tab
    state(page, guide)
    for width, dark in ((1280, False), (390, True)):
        resize(page, width, dark=dark)
        has_no_barrier(page)
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], (width, wide)
    page.goto("about:blank")  # ends what still runs


def test_everything_is_reached_by_the_keyboard_in_the_order_of_the_page(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "Which?")
    page.evaluate("document.querySelector('#program').focus()")
    seen = []
    for _ in range(40):
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        page.press("Tab")
    wanted = ["program", "theme", "in-question", "in-style", "in-k", "in-tags", "in-note", "run", "snippets", "share"]
    assert [each for each in dict.fromkeys(seen) if each in wanted] == wanted, seen
    assert {"Source of answer", "Copy answer", "forget"} <= set(seen), seen


@contextlib.contextmanager
def blocked(page: Page, pattern: str) -> Iterator[None]:
    """Let the browser get nothing from addresses of that pattern."""
    page.call("Network.enable")
    page.call("Network.setCacheDisabled", cacheDisabled=True)
    page.call("Network.setBlockedURLs", urls=[pattern])
    try:
        yield
    finally:
        page.call("Network.setBlockedURLs", urls=[])
        page.call("Network.setCacheDisabled", cacheDisabled=False)


def test_a_server_that_does_not_answer_is_named(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    with blocked(page, "*/programs"):
        page.reload()
        page.wait("document.querySelector('#start-title')?.textContent.includes('does not answer')")
        assert page.evaluate("document.querySelector('#page').hidden") is True
        has_no_barrier(page)
    page.click("#start-actions button")
    page.wait("document.querySelector('#in-question') && document.querySelector('#start').hidden")
    page.errors.clear()


def test_a_page_without_its_scripts_says_so(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    with blocked(page, "*/widgets.js"):
        page.reload()
        page.wait("document.querySelector('#start-late')?.getBoundingClientRect().height > 40")
        page.wait(
            "document.readyState === 'complete' && document.getAnimations().every((a) => a.playState === 'finished')"
        )
        assert "scripts have not arrived" in page.text("#start-late")
        has_no_barrier(page)
    page.errors.clear()


def test_who_gives_no_key_is_told_that_one_is_needed(quiet_tab: Page) -> None:
    page = quiet_tab
    with serving(qa(), api_keys=["open-sesame"]) as live:
        page.goto(live.url)
        page.wait("document.querySelector('#key-dialog').open")
        has_no_barrier(page)
        page.press("Escape")
        page.wait("document.querySelector('#start-title').textContent.includes('API key')")
        assert page.text("#start-actions button") == "Enter a key"
        has_no_barrier(page)
        page.goto("about:blank")
    page.errors.clear()


def test_a_refused_address_is_shown_with_the_servers_own_words(quiet_tab: Page) -> None:
    page = quiet_tab
    with serving(qa()) as live:
        live.app.origins.local_only = True
        refused = http.get(live.url + "/programs", headers={"Host": "river.example"})
        assert refused.status_code == 403
        # The browser asks by a name; the name leads here.
        page.goto(f"http://river.localhost:{live.port}/")
        page.wait("document.querySelector('#inputs .field')")
        page.evaluate(
            f"window.refusal = new Response({refused.text!r}, {{ status: 403 }});"
            "window.fetch = async () => window.refusal.clone()"
        )
        page.evaluate(
            "(async () => {"
            " const { getJson } = await import('/static/api.js');"
            " const { showStartProblem } = await import('/static/start_problem.js');"
            " await getJson('programs').catch((error) => showStartProblem(error, () => {}));"
            "})()"
        )
        assert "river.example" in page.text("#start-message")
        assert "refuses this page" in page.text("#start-title")
        has_no_barrier(page)
        page.goto("about:blank")
    page.errors.clear()
