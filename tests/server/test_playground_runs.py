"""Past runs, comparisons, links and snippets."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.browser import Page
from tests.server.pages import DONE, PNG, ask, drop, open_program, value
from tests.server.support import Live, qa, scripted, serving

TITLES = "[...document.querySelectorAll('.past-title')].map(e => e.textContent)"


def test_past_runs_are_kept_over_a_reload_and_shown_again(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "markdown")
    ask(page, "Which?")
    page.reload()
    page.wait("document.querySelectorAll('#runs li').length === 2 && document.querySelector('#in-question')")
    assert page.evaluate(TITLES) == ["Which?", "markdown"]
    assert page.evaluate("document.querySelector('#in-question').value") == "Which?", "the draft is kept too"
    calls = len(scripted(guide.app.programs["rivers"]).calls)
    page.click("#runs li:nth-child(2) .past")
    assert page.text(".output .value h4") == "The Danube"
    assert page.text("#state") == "Done"
    assert "41 ms" in page.text("#steps")
    assert page.evaluate("document.querySelector('#past-note').hidden") is False
    page.click("#use-inputs")
    assert page.evaluate("document.querySelector('#in-question').value") == "markdown"
    assert len(scripted(guide.app.programs["rivers"]).calls) == calls, "nothing ran again"
    page.click("#forget")
    assert page.evaluate("document.querySelector('#runs').hidden") is True


def test_two_runs_are_compared_word_by_word(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "a short question")
    ask(page, "a long question")
    assert page.evaluate("document.querySelector('#compare').disabled") is True
    page.click("#runs li:nth-child(1) input")
    page.click("#runs li:nth-child(2) input")
    page.click("#compare")
    row = "[...document.querySelectorAll('#compare-rows tr')].find(r => r.firstChild.textContent === 'Input: question')"
    assert page.evaluate(f"[...{row}.children].map(c => c.textContent)") == [
        "Input: question",
        "a short question",
        "a long question",
    ]
    assert page.evaluate(f"[...{row}.querySelectorAll('mark')].map(m => m.textContent)") == ["short", "long"]
    page.press("Escape")
    page.wait("!document.querySelector('#compare-dialog').open")


def test_a_link_opens_the_program_with_its_inputs(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.type("#in-question", "Größe & Länge? 🌊")
    page.click("#in-tags")
    page.call("Input.insertText", text="x")
    page.click("#share")
    link = page.evaluate("document.querySelector('#share-link').value")
    assert link.startswith(f"{guide.url}/#program=rivers&inputs=")
    open_program(page, guide, "talk")  # another program, in an empty tab
    page.goto(link)
    page.wait("document.querySelector('#in-question')?.value === 'Größe & Länge? 🌊'")
    assert page.evaluate("document.querySelector('#program').value") == "rivers"
    assert page.evaluate("document.querySelector('#in-tags-1').value") == "x"


def test_a_link_with_nonsense_opens_the_page(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.goto(guide.url + "/?x#program=no-such&inputs=%%%&config=e30x")
    page.wait("document.querySelector('#in-question')")
    assert page.evaluate("document.querySelector('#program').value") == "rivers"


def snippet(page: Page, language: str) -> str:
    page.evaluate(f"document.querySelector('#snippet-languages input[value={language}]').click()")
    return page.text("#snippet")


QUESTION = 'It\'s a "test" with \\ and $HOME,\na line & 🌊'


@pytest.mark.parametrize("language", ["curl", "python", "typescript"])
def test_a_snippet_runs_as_it_is_shown(quiet_tab: Page, language: str, tmp_path: Path) -> None:
    page = quiet_tab
    with serving(qa(), api_keys=["open-sesame"]) as live:
        page.goto(live.url + "/health/live")
        page.evaluate("sessionStorage.setItem('dspy-live-key', 'open-sesame')")
        page.goto(live.url)
        page.wait("document.querySelector('#in-question')")
        page.evaluate(f"(document.querySelector('#in-question').value = {json.dumps(QUESTION)})")
        page.click("#options > summary")
        page.type("#config", '{"temperature": 0.5, "stop": ["ä"]}')
        page.click("#snippets")
        text = snippet(page, language)
        page.goto("about:blank")
        page.errors.clear()
        done = run_snippet(language, text, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "You" in done.stdout, done
        call = live.service.calls[-1]
        assert call.inputs["question"] == QUESTION
        assert call.config == {"temperature": 0.5, "stop": ["ä"]}
        assert "open-sesame" not in text


def test_code_before_the_form_is_filled_names_what_is_needed(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.click("#snippets")
    assert """-d '{"question":"…","style":"short","k":3}'""" in snippet(page, "curl")
    page.press("Escape")


def run_snippet(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    if language == "curl":
        command = ["bash", "-c", text]
    elif language == "python":
        (folder / "snippet.py").write_text(text)
        command = [sys.executable, str(folder / "snippet.py")]
    else:
        node = shutil.which("node")
        assert node, "the TypeScript snippet is run by node: apt-get install nodejs"
        (folder / "snippet.mjs").write_text(text)  # it has no types of its own, so that any node runs it
        command = [node, str(folder / "snippet.mjs")]
    environ = {**os.environ, "DSPY_LIVE_KEY": "open-sesame", "NO_PROXY": "*"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)


def test_snippets_leave_the_content_of_files_out(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "survey")
    page.type("#in-place-name", "Linz")
    drop(page, "#in-photo", "river.png", "image/png", PNG * 100)
    page.wait("document.querySelector('.chosen img')")
    page.click("#snippets")
    curl = shlex.split(snippet(page, "curl"))
    sent = json.loads(curl[curl.index("-d") + 1])
    assert sent["photo"] == {"url": "data:image/png;base64,…"}
    assert "photo" in page.text("#snippet-left")
    rust = snippet(page, "rust")
    assert f'Runtime::remote("{guide.url}")' in rust
    assert 'token.field == "summary"' in rust


def test_a_run_of_another_program_is_shown_with_its_program(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "Which?")
    page.evaluate("document.querySelector('#program').value = 'talk'")
    page.evaluate("document.querySelector('#program').dispatchEvent(new Event('change'))")
    page.wait("document.querySelector('#page').dataset.mode === 'chat'")
    page.click("#runs .past")
    assert page.evaluate("document.querySelector('#program').value") == "rivers"
    page.wait(DONE)
    assert value(page, 0) == "The <b>Danube</b> & the Wien"
