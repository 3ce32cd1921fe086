"""Inputs that fit their types."""

from __future__ import annotations

from typing import Any

from tests.server.browser import Page
from tests.server.pages import DONE, FAILED, PNG, ask, drop, open_program
from tests.server.support import Live, scripted


def sent(live: Live, program: str) -> dict[str, Any]:
    return dict(scripted(live.app.programs[program]).calls[-1].inputs)


def run(page: Page) -> None:
    page.click("#run")
    page.wait(f"{DONE} && !document.querySelector('#run').disabled")


def test_every_input_has_a_name_a_type_for_people_and_a_label(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    heads = (
        "[...document.querySelectorAll('#inputs > .field')].map(f => f.querySelector('label, .label'))"
        ".map(l => [l.querySelector('.name').textContent, l.querySelector('.type').textContent,"
        " Boolean(l.querySelector('.optional'))])"
    )
    assert page.evaluate(heads) == [
        ["question", "str", False],
        ["style", "'short' or 'long'", False],
        ["k", "int", True],
        ["tags", "list[str]", True],
        ["note", "str", True],
    ]
    open_program(page, guide, "survey")
    assert [row[:2] for row in page.evaluate(heads)] == [
        ["place", "Place"],
        ["others", "list[Place]"],
        ["counts", "dict[str, int]"],
        ["span", "tuple[int, int]"],
        ["code", "int or str"],
        ["quick", "bool"],
        ["photo", "dspy.Image"],
        ["sound", "dspy.Audio"],
        ["report", "dspy.File"],
    ]
    assert "as the people there call it" in page.text("#in-place-name-hint")


def test_a_list_has_rows_to_add_and_to_remove_by_keyboard(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.type("#in-question", "Which?")
    page.evaluate("document.querySelector('#in-tags').focus()")
    for word in ("a", "b", "c"):
        page.press("Enter")  # on the button
        page.call("Input.insertText", text=word)  # the new row has the focus
        page.evaluate("document.querySelector('#in-tags').focus()")
    page.evaluate("document.querySelector('[aria-label=\"Remove item 2 of tags\"]').focus()")
    page.press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove item 2 of tags"
    run(page)
    assert sent(guide, "rivers")["tags"] == ["a", "c"]


def test_models_are_forms_and_optional_parts_are_made_on_demand(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "survey")
    page.type("#in-place-name", "Linz")
    page.type("#in-place-people", "210000")
    page.click("#in-place-upstream")
    page.type("#in-place-upstream-name", "Passau")
    page.click("#in-others")
    page.type("#in-others-1-name", "Ulm")
    page.click("#in-counts")
    page.type("#in-counts-1-key", "bridges")
    page.type("#in-counts-1", "3")
    page.type("#in-span-0", "1")
    page.type("#in-span-1", "9")
    page.evaluate("document.querySelector('#in-code').value = 1")
    page.evaluate("document.querySelector('#in-code').dispatchEvent(new Event('change'))")
    page.type("#in-code-1", "x7")
    page.click("#in-quick")
    run(page)
    inputs = sent(guide, "survey")
    place = inputs["place"]
    assert (place.name, place.people, place.kind.value, place.upstream.name) == ("Linz", 210000, "city", "Passau")
    assert [other.name for other in inputs["others"]] == ["Ulm"]
    assert inputs["counts"] == {"bridges": 3}
    assert inputs["span"] == (1, 9)
    assert inputs["code"] == "x7"
    assert inputs["quick"] is False
    assert "photo" not in inputs


def test_a_structure_can_be_written_as_json_and_read_back(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "survey")
    page.click("#in-place-flip")
    page.evaluate("(document.querySelector('#in-place-json').value = '[1, ')")
    page.click("#in-place-flip")
    assert "must be JSON" in page.text("#inputs .group > .problem")
    text = '{"name": "Linz", "bridges": ["a", "b"], "upstream": {"name": "Passau"}}'
    page.evaluate(f"(document.querySelector('#in-place-json').value = {text!r})")
    page.click("#in-place-flip")
    assert page.evaluate("document.querySelector('#in-place-upstream-name').value") == "Passau"
    run(page)
    assert sent(guide, "survey")["place"].bridges == ["a", "b"]
    page.click("#in-place-flip")
    page.evaluate("(document.querySelector('#in-place-json').value = '{\"name\": \"Ulm\"}')")
    page.click("#in-place-flip")
    run(page)
    place = sent(guide, "survey")["place"]
    assert (place.name, place.bridges, place.upstream) == ("Ulm", [], None), "what the JSON leaves out is empty again"


def test_a_file_is_dropped_seen_and_sent(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "survey")
    page.type("#in-place-name", "Linz")
    drop(page, "#in-photo", "river.png", "image/png", PNG)
    drop(page, "#in-sound", "song.wav", "audio/wav", b"RIFF")
    drop(page, "#in-report", "report.txt", "text/plain", b"All is well.")
    page.wait("document.querySelectorAll('.chosen .file-name').length === 3")
    page.wait("document.querySelector('.chosen img').naturalWidth === 1")
    assert "report.txt 12 B" in page.text("#inputs")
    run(page)
    inputs = sent(guide, "survey")
    assert inputs["photo"].url.startswith("data:image/png;base64,iVBOR")
    assert inputs["sound"].audio_format == "wav"
    assert inputs["report"].filename == "report.txt"
    page.click(".chosen button")
    run(page)
    assert "photo" not in sent(guide, "survey")


def test_an_image_can_be_an_address(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "survey")
    page.type("#in-place-name", "Linz")
    page.type("#in-photo-url", "https://example.org/river.png")
    page.evaluate("document.querySelector('#in-photo-url').dispatchEvent(new Event('change'))")
    run(page)
    assert sent(guide, "survey")["photo"].url == "https://example.org/river.png"


def test_everything_that_is_wrong_is_said_at_its_field(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.type("#in-k", "e")
    page.click("#in-tags")
    page.click("#run")
    assert page.text("#in-question-problem") == "question is needed."
    assert page.text("#in-k-problem") == "k must be a number."
    assert page.text("#in-tags-problem") == "tags 1 is needed."
    assert page.evaluate("document.activeElement.id") == "in-question"
    assert page.evaluate("document.querySelector('#in-tags-1').getAttribute('aria-invalid')") == "true"


def test_errors_of_the_server_are_shown_at_their_field(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "odd", FAILED)
    assert "no odd ones" in page.text("#in-tags-problem")
    page.click("#options > summary")
    page.type("#config", '{"temperature": "hot", "speed": 1}')
    ask(page, "Which?", FAILED)
    assert "speed" in page.text("#config-error")
    page.errors.clear()  # the browser logs every reply of 400 and more


def test_a_program_of_unknown_inputs_takes_an_object(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "anything")
    page.type("#in-inputs", '{"a": 1, "b": ["x"]}')
    run(page)
    assert sent(guide, "anything") == {"a": 1, "b": ["x"]}


def test_a_demo_of_the_program_is_an_example(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    assert page.text("#examples button") == "Where does the Inn rise?"
    page.click("#examples button")
    run(page)
    assert sent(guide, "rivers") == {
        "question": "Where does the Inn rise?",
        "style": "long",
        "k": 3,
        "tags": ["Alps", "Engadin"],
    }
