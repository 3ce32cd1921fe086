"""A program with a ``dspy.History`` is talked with."""

from __future__ import annotations

from tests.server.browser import Page
from tests.server.pages import DONE, FAILED, open_program, reset_size, resize
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
    page.reload()
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


def box(page: Page, selector: str) -> dict[str, float]:
    """Where an element stands in the window."""
    found: dict[str, float] = page.evaluate(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
    return found


def test_the_line_to_write_in_stays_at_the_bottom_and_nothing_covers_it(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    for width in (1280, 390):
        resize(page, width)
        open_program(page, guide, "talk")
        before = box(page, "#answer")
        assert box(page, "#ask")["bottom"] > 700, "an empty conversation fills the window"
        for question in ("One?", "Two?\n\nAnd more\n\nof it\n\nyet", "Three?\n\nAnd more\n\nof it\n\nyet"):
            say(page, question)
        assert box(page, "#answer")["x"] == before["x"], "it stays where it is when the list of runs appears"
        line = box(page, "#in-question")
        assert 0 < line["top"] < line["bottom"] <= 860
        middle = f"document.elementFromPoint({line['x'] + 9}, {(line['top'] + line['bottom']) / 2}).id"
        assert page.evaluate(middle) == "in-question", "no button lies over it"
        end = "document.querySelector('.output').getBoundingClientRect().bottom"
        page.wait(f"{end} <= document.querySelector('#ask').getBoundingClientRect().top")  # the answer's end is in view
    reset_size(page)


def test_what_was_sent_leaves_the_line_at_once_and_what_is_written_meanwhile_stays(
    quiet_tab: Page, guide: Live
) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    page.type("#in-question", "endless")
    page.press("Enter")
    page.wait("document.querySelector('.output .value').textContent.includes('5 ')")
    assert page.evaluate("document.querySelector('#in-question').value") == ""
    assert page.evaluate("document.activeElement.id") == "in-question"
    page.call("Input.insertText", text="The next one")
    page.press("Escape")
    page.wait("document.querySelector('#state').textContent === 'Cancelled'")
    assert page.evaluate("document.querySelector('#in-question').value") == "The next one"


def test_what_could_not_be_answered_comes_back_into_the_line(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    page.type("#in-question", "nothing")
    page.press("Enter")
    page.wait(f"{FAILED} && document.querySelector('#in-question').value === 'nothing'")
    page.errors.clear()  # the browser logs every reply of 400 and more


def test_the_last_question_is_asked_again_past_the_cache_or_changed(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "talk")
    say(page, "One?")
    say(page, "Two?")
    calls = scripted(guide.app.programs["talk"]).calls
    count = len(calls)
    page.click("#again")
    page.wait(f"{DONE} && !document.querySelector('#turn-actions').hidden")
    page.wait("!document.querySelector('#run').disabled")
    assert len(calls) == count + 1
    again, before = calls[-1], calls[-2]
    assert (again.inputs["question"], again.inputs["history"]) == ("Two?", before.inputs["history"])
    assert "rollout_id" in (again.config or {}), "a cached answer would be the same one"
    page.click("#take-back")
    assert page.evaluate("document.querySelector('#in-question').value") == "Two?"
    assert page.evaluate("document.querySelectorAll('.bubble').length") == 2
    assert len(calls) == count + 1
