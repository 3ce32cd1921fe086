"""``/docs`` in a real browser: everything of the OpenAPI document, and requests that can be sent from it."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.server.browser import Page
from tests.server.pages import has_no_barrier, resize
from tests.server.support import Live, http, qa, serving

READY = "document.querySelector('details.operation[open] .try')"


def open_docs(page: Page, live: Live, operation: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"{live.url}/docs#{operation}")
    page.wait(f"document.querySelector('#{operation} .try')" if operation else READY)


def send(page: Page, operation: str) -> str:
    page.evaluate(f"document.querySelector('#{operation} .try button[type=submit]').click()")
    page.wait(f"document.querySelector('#{operation} .try button.primary + button').disabled")
    page.wait(f"document.querySelector('#{operation} .try-status').dataset.ok")
    return page.text(f"#{operation} .try-reply")


def test_it_lists_every_operation_and_the_websockets(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide)
    shown = page.evaluate(
        "[...document.querySelectorAll('details.operation')].map(e =>"
        " [e.querySelector('.method').textContent.toLowerCase(), e.querySelector('.path').textContent].join(' '))"
    )
    doc = http.get(guide.url + "/openapi.json").json()
    assert sorted(shown) == sorted(f"{method} {path}" for path, all_ in doc["paths"].items() for method in all_)
    assert "/programs/talk/ws" in page.text("#websockets + .paths")


def test_schemas_are_expanded_down_to_the_last_member(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide, "post_programs_survey_predict")
    body = page.text("#post_programs_survey_predict .members")
    for words in ("as the people there call it", "list of string", "temperature", "max_tokens", '"city" or "town"'):
        assert words in body
    errors = page.text("#post_programs_survey_predict .inside")
    for words in ("lm_truncated", "invalid_input", "circuit_open", "Server-Timing", "text/event-stream", "prediction"):
        assert words in errors


def test_an_example_is_sent_as_it_stands(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    for operation, words in {
        "post_predict": '"run": {',
        "post_programs_survey_predict": '"summary": "Two places were seen."',
        "post_predict_stream": "data: [DONE]",
        "post_runs": '"events": "/runs/',
        "get_health_ready": '"status": "ready"',
        "get_metrics": "dspy_live_server_runs_started_total",
        "post_v1_chat_completions": '"error"',  # this program takes more than a text
    }.items():
        open_docs(page, guide, operation)
        assert words in send(page, operation), operation
    page.errors.clear()


FOUND = "[...document.querySelectorAll('details.operation:not([hidden]) .path')].map(e => e.textContent)"


def test_an_operation_is_found_by_its_words_and_opened_by_the_keyboard(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide)
    everything = page.evaluate(FOUND)
    page.call("Input.dispatchKeyEvent", type="keyDown", key="/", text="/")
    page.wait("document.activeElement.id === 'find'")
    assert page.evaluate("document.activeElement.value") == "", "the key that leads there is not written"
    page.call("Input.insertText", text="survey/predict stream post")
    assert page.evaluate(FOUND) == ["/programs/survey/predict/stream"]
    assert page.evaluate("document.querySelector('#contents').innerText.includes('/metrics')") is False
    page.call("Input.insertText", text=" nowhere")
    assert page.evaluate("document.querySelector('#none-found').hidden") is False
    page.press("Escape")
    assert page.evaluate(FOUND) == everything
    page.call("Input.insertText", text="statistics for prometheus")
    page.press("Enter")
    page.wait("document.querySelector('#get_metrics').open && document.activeElement.closest('#get_metrics')")
    assert page.evaluate(FOUND) == everything, "the filter is over when it has led somewhere"
    page.wait("document.querySelector('#contents a[aria-current]').textContent.includes('/metrics')")


def test_a_request_is_copied_as_a_command_that_does_the_same(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    for operation, words in {
        "post_programs_survey_predict": '"Two places were seen."',
        "get_health_ready": "ready",
    }.items():
        open_docs(page, guide, operation)
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        page.evaluate("(window.copied = '')")
        page.evaluate(f"document.querySelector('#{operation} .actions .quiet').click()")
        page.wait("window.copied")
        command = page.evaluate("window.copied")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
        assert words in done.stdout, (command, done.stdout)


def test_a_command_of_the_docs_quotes_what_a_shell_would_read_and_keeps_the_key_out(
    quiet_tab: Page, guide: Live
) -> None:
    page = quiet_tab
    open_docs(page, guide)
    request = {"method": "POST", "headers": {"authorization": "Bearer s3cret", "x": "it's"}, "body": "{'$HOME'}"}
    command = page.evaluate(
        f"import('/static/docs_curl.js').then(({{ curlOf }}) => curlOf('http://h/a?b=1&c', {json.dumps(request)}))"
    )
    assert "s3cret" not in command
    script = command.replace("curl", "printf '%s|'", 1)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={"DSPY_LIVE_KEY": "k"}, timeout=30
    )
    words = [
        "-sN",
        "-X",
        "POST",
        "http://h/a?b=1&c",
        "-H",
        "x: it's",
        "-H",
        "authorization: Bearer k",
        "-d",
        "{'$HOME'}",
    ]
    assert done.stdout.split("|")[:-1] == words


def test_parameters_are_filled_in(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide, "get_programs_program")
    page.evaluate("(document.querySelector('#get_programs_program-program').value = 'talk')")
    assert '"name": "talk"' in send(page, "get_programs_program")
    page.evaluate("(document.querySelector('#get_programs_program-program').value = 'no/such')")
    assert "not_found" in send(page, "get_programs_program")
    assert page.text("#get_programs_program .try-status").startswith("404")
    page.errors.clear()


def test_a_stream_shows_as_it_comes_and_can_be_cancelled(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide, "post_predict_stream")
    body = '{"question": "endless", "style": "short"}'
    page.evaluate(f"(document.querySelector('#post_predict_stream-body').value = {body!r})")
    page.evaluate("document.querySelector('#post_predict_stream .try button[type=submit]').click()")
    page.wait("document.querySelector('#post_predict_stream .try-reply').textContent.includes('event: token')")
    page.evaluate("document.querySelector('#post_predict_stream .try button.primary + button').click()")
    page.wait("document.querySelector('#post_predict_stream .try-status').textContent.startsWith('Cancelled')")


def frame(page: Page, text: str) -> None:
    """Send a frame from the form of the WebSockets."""
    page.evaluate(f"(document.querySelector('#ws-frame').value = {text!r})")
    page.evaluate("document.querySelector('#ws-try button[type=submit]').click()")


FRAMES = "document.querySelector('#ws-try .frames').textContent"
STATUS = "#ws-try .try-status"


def test_a_websocket_is_opened_and_its_frames_are_shown(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide)
    page.evaluate("document.querySelector('#ws-try button[type=submit]').click()")  # the example as it stands
    page.wait(f'{FRAMES}.includes(\'"event":"done"\')')
    assert page.text(STATUS) == "Connected"
    assert page.evaluate("document.querySelector('#ws-try .frames p').dataset.side") == "sent"
    assert '"answer":"The <b>Danube</b> & the Wien"' in page.evaluate(FRAMES)
    frame(page, '{"type": "start", "id": 2, "inputs": {"question": "endless", "style": "short"}, "credit": 3}')
    page.wait(f'{FRAMES}.includes(\'"id":2,"event":"token"\')')
    frame(page, '{"type": "cancel", "id": 2}')
    page.wait(f'{FRAMES}.includes(\'"type":"cancelled"\')')
    page.evaluate("document.querySelector('#ws-try button.primary + button').click()")
    page.wait(f"document.querySelector('{STATUS}').textContent.startsWith('Closed: 1005')")
    assert page.evaluate("document.querySelector('#ws-try button.primary + button').disabled") is True


def test_a_websocket_of_a_program_shows_why_it_was_closed(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_docs(page, guide)
    page.evaluate("(document.querySelector('#ws-path').value = '/programs/talk/ws')")
    page.evaluate("document.querySelector('#ws-path').dispatchEvent(new Event('change'))")
    assert '"history"' in page.evaluate("document.querySelector('#ws-frame').value")
    frame(page, "a question in plain text, which this program does not take alone")
    page.wait(f"document.querySelector('{STATUS}').textContent.startsWith('Closed: 4422 invalid_input')")
    assert page.evaluate(f"document.querySelector('{STATUS}').dataset.ok") == "false"
    has_no_barrier(page)


def test_a_websocket_gets_the_key(quiet_tab: Page) -> None:
    page = quiet_tab
    with serving(qa(), api_keys=["open-sesame"]) as live:
        page.goto(live.url + "/docs")
        page.wait("document.querySelector('#key-dialog').open")
        page.type("#key", "open-sesame")
        page.press("Enter")
        page.wait(READY)
        frame(page, "Why?")
        page.wait(f"{FRAMES}.includes('[DONE]')")
        assert "You asked: Why?" in page.evaluate(FRAMES).replace("received: ", "")
        page.evaluate("sessionStorage.clear()")
        page.evaluate("document.querySelector('#ws-path').dispatchEvent(new Event('change'))")
        frame(page, "Why?")
        page.wait(f"document.querySelector('{STATUS}').textContent === 'The server refused the connection'")
        page.goto("about:blank")
    page.errors.clear()


def test_it_asks_for_a_key_and_sends_it(quiet_tab: Page) -> None:
    page = quiet_tab
    with serving(qa(), api_keys=["open-sesame"]) as live:
        page.goto(live.url + "/docs")
        page.wait("document.querySelector('#key-dialog').open")
        page.type("#key", "open-sesame")
        page.press("Enter")
        page.wait(READY)
        assert '"answer": "You asked: text"' in send(page, "post_predict")
        page.goto("about:blank")
    page.errors.clear()


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_it_has_no_barrier_and_fits(quiet_tab: Page, guide: Live, width: int, dark: bool) -> None:
    page = quiet_tab
    resize(page, width, dark=dark)
    open_docs(page, guide, "post_programs_survey_predict")
    send(page, "post_programs_survey_predict")
    page.evaluate("document.querySelectorAll('.operation[open] details').forEach((each) => { each.open = true; })")
    has_no_barrier(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") is True
