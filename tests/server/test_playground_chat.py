"""A program with a ``dspy.History`` is talked with."""

from __future__ import annotations

from tests.server.browser import Page
from tests.server.pages import DONE, open_program
from tests.server.support import Live, scripted

BUBBLES = "[...document.querySelectorAll('.bubble')].map(b => [b.dataset.side, b.querySelector('.md').textContent])"


def say(page: Page, question: str) -> None:
    page.type("#in-question", question)
    page.press("Enter", ctrl=True)
    page.wait(f"{DONE} && document.querySelector('#in-question').value === ''")
    page.wait("!document.querySelector('#run').disabled")


def test_each_run_is_a_turn_of_the_conversation(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    say(page, "Where does it rise?")
    say(page, "And where does it end?")
    assert page.evaluate(BUBBLES) == [
        ["user", "Where does it rise?"],
        ["program", "Answer 1 to: Where does it rise?"],
        ["user", "And where does it end?"],
    ]
    assert page.text(".output .value") == "Answer 2 to: And where does it end?"
    assert page.evaluate("document.activeElement.id") == "in-question"
    history = scripted(guide.app.programs["talk"]).calls[-1].inputs["history"]
    assert history.messages == [{"question": "Where does it rise?", "answer": "Answer 1 to: Where does it rise?"}]


def test_a_conversation_survives_a_reload_and_ends_on_request(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    say(page, "Where does it rise?")
    page.call("Page.reload")
    page.wait("document.querySelectorAll('.bubble').length === 2")
    page.wait("document.querySelector('#live').childElementCount")  # the page does not grow any more
    page.click("#anew")
    page.wait("!document.querySelector('.bubble')")
    say(page, "Another one")
    assert page.text(".output .value") == "Answer 1 to: Another one"


def test_the_turns_can_be_changed_in_the_form(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    say(page, "Where does it rise?")
    page.evaluate("document.querySelector('input[value=form]').click()")
    assert page.evaluate("document.querySelector('#page').dataset.mode") == "form"
    assert page.evaluate("document.querySelectorAll('.turns textarea').length") == 2
    page.evaluate("document.querySelector('.turns [data-side=program] textarea').value = 'In Donaueschingen.'")
    page.type("#in-question", "Really?")
    page.click("#run")
    page.wait("document.querySelector('.output .value').textContent.includes('Really?')")
    history = scripted(guide.app.programs["talk"]).calls[-1].inputs["history"]
    assert history.messages == [{"question": "Where does it rise?", "answer": "In Donaueschingen."}]


def test_enter_sends_and_shift_enter_begins_a_line(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    assert page.text("#run").split() == ["Send", "⏎"]
    assert page.evaluate("document.querySelector('.output').getBoundingClientRect().height") == 0, "nothing to show yet"
    page.type("#in-question", "First line")
    page.press("Enter", shift=True)
    page.call("Input.insertText", text="Second line")
    assert page.evaluate("document.querySelector('#in-question').value") == "First line\nSecond line"
    page.press("Enter")
    page.wait(f"{DONE} && document.querySelector('#in-question').value === ''")
    assert page.text(".output .value").endswith("Second line")
    page.evaluate("document.querySelector('input[value=form]').click()")
    assert page.text("#run").split() == ["Run", "Ctrl", "⏎"]


def test_a_run_of_a_chat_goes_by_what_was_asked_last(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    say(page, "Where does it rise?")
    say(page, "And where does it end?")
    titles = page.evaluate("[...document.querySelectorAll('.past-title')].map(e => e.textContent)")
    assert titles == ["And where does it end?", "Where does it rise?"]
