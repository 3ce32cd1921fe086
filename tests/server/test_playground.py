"""The playground in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.browser import Page, chromium
from tests.server.support import QA, USAGE, Live, Scripted, Tape, answer, http, scripted, serving, text_convert, until

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError, LMFailed
from dspy_live.core.events import Partial, Predicted, Restart, Started, Status, Token, Tool
from dspy_live.core.schema import Field, Schema
from dspy_live.server import ServedProgram, create_app
from dspy_live.server.routes import static

RIVERS = Schema(
    "Rivers",
    (
        Field("question", description="What you would like to know", convert=text_convert),
        Field("style", type="Literal['short', 'long']", json_schema={"enum": ["short", "long"]}),
        Field("k", type="int", json_schema={"type": "integer"}, required=False, default=3),
        Field("tags", "list[str]", {"type": "array"}, "as in dspy.configure(lm=dspy.LM('openai/gpt-4o-mini'))", False),
    ),
    (Field("answer"), Field("cities", type="list[str]", json_schema={"type": "array"})),
    "Answers questions on rivers.",
)

OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
NOTES = Schema(
    "Notes", (Field("question"), Field("note", "Union[str, NoneType]", OPTIONAL, required=False)), (Field("answer"),)
)


async def rivers(call: Call, tape: Tape) -> None:
    question = call.inputs["question"]
    if question == "nothing":
        raise LMFailed("the LM at http://127.0.0.1:9 can't be reached")
    if question == "odd":
        raise InputError("field 'tags' must be list[str]: no odd ones", field="tags")
    await tape.push(Started(call.id, "rivers"), Status("Looking it up", "rag", "starting"))
    if question == "endless":
        for i in range(100_000):
            await tape.push(Token(f"{i} ", "answer", "p", 1))
            await asyncio.sleep(0.005)
    await tape.push(Tool("search", "call", "1", {"q": question}), Tool("search", "result", "1", result=["Danube"]))
    await tape.push(Token("An inner thought", "thought", "inner", 1, True))
    await tape.tokens("wrong words", lm_call=2)
    await tape.push(Restart("p", 2, "retry"))
    await tape.tokens("The <b>Danube</b> & the Wien", lm_call=2, pause=0.001)
    await tape.push(Partial(["Vienna"], "cities", "p", 2), USAGE)
    await tape.push(Predicted({"answer": "The <b>Danube</b> & the Wien", "cities": ["Vienna", "Linz"]}))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    programs = {
        "rivers": ServedProgram("rivers", Scripted(rivers), RIVERS, simulated=True),
        "qa": ServedProgram("qa", Scripted(answer), QA),
        "notes": ServedProgram("notes", Scripted(answer), NOTES),
    }
    with serving(create_app(programs, title="River guide")) as server:
        yield server


@pytest.fixture
def page(browser: Page, live: Live) -> Iterator[Page]:
    browser.errors.clear()
    browser.goto(live.url)
    browser.wait("document.querySelector('#inputs .field')")
    yield browser
    assert browser.errors == []


def value(page: Page, number: int) -> str:
    return str(page.evaluate(f"document.querySelectorAll('.output .value')[{number}].textContent"))


DONE = "document.querySelector('#state').dataset.state === 'done'"


def test_the_form_is_the_schema(page: Page) -> None:
    assert page.text("#title") == "River guide"
    assert "Answers questions on rivers." in page.text("#about")
    labels = page.evaluate("[...document.querySelectorAll('#inputs label')].map(l => l.firstChild.textContent)")
    assert labels == ["question", "style", "k", "tags"]
    tags = page.evaluate("['question', 'style', 'k', 'tags'].map(n => document.querySelector('#in-' + n).tagName)")
    assert tags == ["TEXTAREA", "SELECT", "INPUT", "TEXTAREA"]
    assert page.evaluate("document.activeElement.id") == "in-question"
    assert page.evaluate("document.querySelector('#simulated').hidden") is False
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length).length"
    )
    assert unlabelled == 0


def test_a_run_fills_the_fields_and_shows_its_statistics(page: Page, live: Live) -> None:
    page.type("#in-question", "Which?")
    page.type("#in-tags", '["a", "b"]')
    page.click("#run")
    page.wait(DONE)
    assert value(page, 0) == "The <b>Danube</b> & the Wien"
    assert value(page, 1).split() == ["[", '"Vienna",', '"Linz"', "]"]
    inputs = scripted(live.app.programs["rivers"]).calls[-1].inputs
    assert dict(inputs) == {
        "question": "Which?",
        "style": "short",
        "k": 3,
        "tags": ["a", "b"],
    }
    meters = page.text("#meters")
    assert "$0.0010" in meters
    assert "7 tokens" in meters
    steps = page.text("#steps-list")
    for word in ("Looking it up", "search: call", '"q": "Which?"', "inner · thought", "An inner thought", "retry"):
        assert word in steps
    assert page.evaluate("document.querySelector('#run').disabled") is False


def test_ctrl_enter_runs_and_tokens_show_before_the_end(page: Page) -> None:
    page.type("#in-question", "endless")
    page.press("Enter", ctrl=True)
    page.wait("document.querySelector('.output .value').textContent.includes('5 ')")
    assert page.text("#state") == "Streaming"
    assert page.evaluate("document.querySelector('.output').hasAttribute('data-live')") is True
    page.press("Escape")
    page.wait("document.querySelector('#state').textContent === 'Cancelled'")


def test_cancel_ends_the_run_on_the_server(page: Page, live: Live) -> None:
    page.type("#in-question", "endless")
    page.click("#run")
    page.wait("document.querySelector('.output .value').textContent.length > 10")
    assert len(live.app.runs) == 1
    page.click("#cancel")
    until(lambda: len(live.app.runs) == 0, 1.0)
    page.wait("document.querySelector('#state').textContent === 'Cancelled'")
    shown = value(page, 0)
    assert shown.startswith("0 1 2 ")
    assert page.evaluate("document.querySelector('#cancel').disabled") is True


def test_what_is_wrong_is_said_at_the_field(page: Page) -> None:
    page.click("#run")
    assert page.text("#in-question-problem") == "question is needed."
    page.type("#in-question", "x")
    page.type("#in-tags", "[1, ")
    page.click("#run")
    assert "JSON" in page.text("#in-tags-problem")
    assert page.evaluate("document.activeElement.id") == "in-tags"
    assert page.evaluate("document.querySelector('#in-tags').getAttribute('aria-invalid')") == "true"


def test_what_the_server_finds_wrong_is_said_at_the_field_too(page: Page) -> None:
    page.type("#in-question", "odd")
    page.click("#run")
    page.wait("document.querySelector('#in-tags-problem').textContent")
    assert "no odd ones" in page.text("#in-tags-problem")
    page.errors.clear()  # the browser logs every reply of 400 and more


def test_a_failure_is_told(page: Page) -> None:
    page.type("#in-question", "nothing")
    page.click("#run")
    page.wait("document.querySelector('#state').dataset.state === 'failed'")
    assert "can't be reached" in page.text("#failure")
    page.errors.clear()


def test_another_program_has_another_form(page: Page) -> None:
    page.evaluate("document.querySelector('#program').value = 'qa'")
    page.evaluate("document.querySelector('#program').dispatchEvent(new Event('change'))")
    page.type("#in-question", "why?")
    page.click("#run")
    page.wait(DONE)
    assert value(page, 1) == "You asked: why?"


def test_a_text_that_may_be_left_out_is_a_text(page: Page, live: Live) -> None:
    page.evaluate("document.querySelector('#program').value = 'notes'")
    page.evaluate("document.querySelector('#program').dispatchEvent(new Event('change'))")
    page.type("#in-question", "why?")
    page.type("#in-note", "it's no JSON")
    page.click("#run")
    page.wait(DONE)
    assert live.app.programs["notes"].service.calls[-1].inputs["note"] == "it's no JSON"  # type: ignore[attr-defined]


def test_the_documentation_fits_a_phone(page: Page, live: Live) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    page.goto(live.url + "/docs")
    page.wait("document.querySelector('details.operation')")
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.call("Emulation.clearDeviceMetricsOverride")
    assert wide == 390


def test_the_live_statistics_move(page: Page) -> None:
    page.type("#in-question", "Which?")
    page.click("#run")
    page.wait(DONE)
    page.wait("/Runs[1-9]/.test(document.querySelector('#live').textContent)")


def test_the_theme_is_kept(page: Page, live: Live) -> None:
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.goto(live.url)
    page.wait("document.documentElement.dataset.theme === 'dark'")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme ?? 'system'") == "system"


def test_the_documentation_lists_every_path(page: Page, live: Live) -> None:
    page.goto(live.url + "/docs")
    page.wait("document.querySelector('details.operation')")
    shown = set(page.evaluate("[...document.querySelectorAll('.path')].map(e => e.textContent)"))
    assert shown == set(http.get(live.url + "/openapi.json").json()["paths"])


def test_a_server_with_keys_asks_for_one(browser: Page) -> None:
    app = create_app(ServedProgram("qa", Scripted(answer), QA), api_keys=["open-sesame"])
    with serving(app) as live:
        browser.goto(live.url)
        browser.wait("document.querySelector('#key-dialog').open")
        assert not browser.text("#key-problem")
        browser.type("#key", "open-barley")
        browser.press("Enter")
        browser.wait("document.querySelector('#key-problem').textContent.includes('not known')")
        browser.call("Input.insertText", text="open-sesame")  # in place of the wrong one, which is selected
        browser.press("Enter")
        browser.wait("document.querySelector('#in-question')")
        browser.type("#in-question", "why?")
        browser.click("#run")
        browser.wait(DONE)
        assert value(browser, 1) == "You asked: why?"


def test_the_pages_load_nothing_from_elsewhere() -> None:
    for name, (body, _, _) in static.load().items():
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, name
        assert "https://" not in text, name


def test_a_page_that_the_browser_has_is_not_sent_again(live: Live, tmp_path: Path) -> None:
    first = http.get(live.url + "/static/main.js")
    again = http.get(live.url + "/static/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["content-type"].startswith("text/javascript")
    assert again.status_code == 304
    assert http.get(live.url + "/static/..%2Fapp.py").status_code == 404
    assert "default-src 'self'" in http.get(live.url).headers["content-security-policy"]
