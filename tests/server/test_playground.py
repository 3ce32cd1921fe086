"""The playground in a real browser: running a program, and what is seen while it runs."""

from __future__ import annotations

import json
import re

from tests.server.browser import Page
from tests.server.pages import DONE, FAILED, ask, open_program, reset_size, resize, value
from tests.server.support import QA, Live, Scripted, answer, http, qa, scripted, serving, until

from dspy_live.server import ServedProgram, create_app
from dspy_live.server.routes import static

MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")


def test_a_run_fills_the_fields_and_shows_its_statistics(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    assert page.text("#title") == "River guide"
    assert page.evaluate("document.activeElement.id") == "in-question"
    assert page.evaluate("document.querySelector('#simulated').hidden") is False
    ask(page, "Which?")
    assert value(page, 0) == "The <b>Danube</b> & the Wien"
    assert page.evaluate("[...document.querySelectorAll('.value li')].map(e => e.textContent)") == ["Vienna", "Linz"]
    assert dict(scripted(guide.app.programs["rivers"]).calls[-1].inputs) == {
        "question": "Which?",
        "style": "short",
        "k": 3,
    }
    meters = page.text("#meters")
    assert "$0.0010" in meters
    assert "7 tokens" in meters
    assert page.evaluate("document.querySelector('#run').disabled") is False


def test_the_steps_are_a_timeline_with_tools_and_folded_reasoning(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "Which?")
    assert page.evaluate("document.querySelector('#steps').open") is True
    tools = page.evaluate("[...document.querySelectorAll('#steps [data-kind=tool]')].map(e => e.innerText)")
    assert len(tools) == 2, "a call and its result are one step"
    assert re.search(r"search\s+41 ms\s+Arguments\s+q: Which\?\s+limit: 3\s+Result\s+Danube", tools[0]), tools[0]
    assert re.search(r"weather.*Arguments\s+at: Linz\s+Error\s+no station", tools[1], re.DOTALL), tools[1]
    inner = page.evaluate("document.querySelector('#steps [data-kind=\"LM call\"]').textContent")
    for words in ("inner", "thought", "An inner thought", "fake/model: 7 + 5 tokens, $0.0010"):
        assert words in inner
    assert page.evaluate("document.querySelector('#steps .reasoning').open") is False
    assert "The user wants a river. Which one?" in page.text("#steps .reasoning")
    assert "p: retry" in page.text("#steps [data-kind=restart]")
    assert "sources" in page.text("#steps [data-kind=event]")


def test_ctrl_enter_runs_and_tokens_show_before_the_end(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.type("#in-question", "endless")
    page.press("Enter", ctrl=True)
    page.wait("document.querySelector('.output .value').textContent.includes('5 ')")
    assert page.text("#state") == "Streaming"
    assert page.evaluate("document.querySelector('.output').hasAttribute('data-live')") is True
    page.press("Escape")
    page.wait("document.querySelector('#state').textContent === 'Cancelled'")


def test_cancel_ends_the_run_on_the_server(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    until(lambda: len(guide.app.runs) == 0)  # those of other tests
    open_program(page, guide)
    page.type("#in-question", "endless")
    page.click("#run")
    page.wait("document.querySelector('.output .value').textContent.length > 10")
    assert len(guide.app.runs) == 1
    page.click("#cancel")
    until(lambda: len(guide.app.runs) == 0)
    page.wait("document.querySelector('#state').textContent === 'Cancelled'")
    assert value(page, 0).startswith("0 1 2 ")
    assert page.evaluate("document.querySelector('#cancel').disabled") is True


def test_a_failure_before_and_after_the_first_word_is_told(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "nothing", FAILED)
    assert "can't be reached" in page.text("#failure")
    ask(page, "late", FAILED)
    assert page.text("#failure") == "the LM closed the connection"
    assert "lm_failed" in page.text("#steps [data-kind=error]")
    assert value(page, 0) == "The <b>Danube</b> & the Wien", "what had come is kept"
    page.errors.clear()  # the browser logs every reply of 400 and more


def test_a_restart_keeps_the_height_of_the_text_that_it_takes_back(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    heights = page.evaluate(
        """(async () => {
          const { OutputCard } = await import("/static/output_card.js");
          const card = new OutputCard({ name: "x", type: "str", schema: { type: "string" } });
          document.querySelector("#outputs").replaceChildren(card.node);
          card.append("one\\n\\ntwo\\n\\nthree\\n\\nfour");
          card.flush();
          const before = card.value.offsetHeight;
          card.clear("begun again", true);
          return [before, card.value.offsetHeight];
        })()"""
    )
    assert heights[0] == heights[1] > 80


def test_structures_are_tables_and_trees(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide, "survey")
    page.type("#in-place-name", "flat")
    page.click("#run")
    page.wait(DONE)
    rows = "[...document.querySelectorAll('.output table tr')].map(r => [...r.children].map(c => c.textContent))"
    assert page.evaluate(rows) == [
        ["name", "people", "kind", "bridges"],
        ["Vienna", "2000000", "city", "Reichsbrücke, Nordbrücke"],
        ["Dürnstein", "830", "town", ""],
    ]
    assert page.evaluate("[...document.querySelectorAll('.output h3 .name')].at(-1).textContent") == "beside"
    page.evaluate("(document.querySelector('#in-place-name').value = 'deep')")
    page.click("#run")
    page.wait("document.querySelector('.output .tree')")
    folded = "[...document.querySelectorAll('.tree details')].map(d => [d.firstChild.textContent, d.open])"
    assert ["upstream {1}", False] in page.evaluate(folded)
    page.click(".tree details:not([open]) > summary")
    page.wait("document.querySelector('.tree').textContent.includes('Passau')")


def test_an_output_is_shown_as_it_came_and_copied(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "markdown")
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click(".output-head button:nth-of-type(2)")
    page.wait("window.copied")
    assert page.evaluate("window.copied").startswith("# The Danube\n\nIt rises in the **Black Forest**")
    page.click(".output-head button")
    assert page.text(".output .source") == page.evaluate("window.copied")
    assert page.evaluate("document.querySelector('.output .value').hidden") is True


def test_a_block_of_code_is_coloured_and_copied(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    ask(page, "markdown")
    assert page.text(".value .code code") == "def length() -> int:\n    return 2850  # km"
    coloured = page.evaluate(
        "[...document.querySelectorAll('.value .code span')].map(s => [s.className, s.textContent])"
    )
    assert coloured[:2] == [["hl-keyword", "def"], ["hl-keyword", "return"]]
    assert coloured[2:4] == [["hl-number", "2850"], ["hl-comment", "# km"]]
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click(".copy-code")
    page.wait("window.copied")
    assert page.evaluate("window.copied") == "def length() -> int:\n    return 2850  # km"


COLOURED = [
    ("python", "x = 'a' + \"b\" # c", ["'a'", '"b"', "# c"]),
    ("rust", "fn f<'a>(x: &'a str) { 'x' } // don't", ["fn", "'x'", "// don't"]),
    ("ts", "const a = `x\n${1}`; /* open", ["const", "`x\n${1}`", "/* open"]),
    ("json", '{"a": true, "b": 1.5}', ['"a"', "true", '"b"', "1.5"]),
    ("sh", "echo don't\nls", ["echo"]),
    ("", "def f(): pass", []),
    ("klingon", "def f(): pass", []),
]


def test_colours_leave_the_code_as_it_is(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    for language, code, coloured in COLOURED:
        found = page.evaluate(
            "import('/static/highlight.js').then(({ highlighted }) => {"
            f" const parts = highlighted({json.dumps(code)}, {json.dumps(language)});"
            " const text = (part) => part.textContent ?? part;"
            " return [parts.map(text).join(''), parts.filter((p) => p.textContent).map(text)]; })"
        )
        assert found == [code, coloured], language


def test_a_run_on_a_phone_goes_to_its_outputs_and_the_form_can_be_emptied(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    resize(page, 390, height=844)
    open_program(page, guide)
    top = "document.querySelector('#answer').getBoundingClientRect().top"
    assert page.evaluate(top) > 844
    page.type("#in-question", "Which?")
    page.press("Enter", ctrl=True)
    page.wait(f"{DONE} && {top} < 600")
    page.click("#clear")
    assert page.evaluate("document.querySelector('#in-question').value") == ""
    assert page.evaluate("document.querySelector('#in-k').value") == "3", "what has a default has it again"
    reset_size(page)


def test_a_server_without_a_run_has_no_figures_to_show(quiet_tab: Page) -> None:
    with serving(qa()) as live:
        quiet_tab.goto(live.url)
        quiet_tab.wait("document.querySelector('#live').childElementCount")
        shown = "document.querySelector('#strip').checkVisibility({ visibilityProperty: true })"
        assert quiet_tab.evaluate(shown) is False
        height = "document.querySelector('#strip').getBoundingClientRect().height"
        assert quiet_tab.evaluate(height) > 40, "its place is kept, so that nothing moves when it comes"
        quiet_tab.type("#in-question", "Why?")
        quiet_tab.click("#run")
        quiet_tab.wait(shown)
        quiet_tab.goto("about:blank")
    quiet_tab.errors.clear()


def test_the_live_statistics_move(quiet_tab: Page, guide: Live) -> None:
    open_program(quiet_tab, guide)
    ask(quiet_tab, "Which?")
    quiet_tab.wait("/Runs[1-9]/.test(document.querySelector('#live').textContent)")


def test_the_theme_is_kept(quiet_tab: Page, guide: Live) -> None:
    page = quiet_tab
    open_program(page, guide)
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    open_program(page, guide)
    page.wait("document.documentElement.dataset.theme === 'dark'")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme ?? 'system'") == "system"


def test_a_server_with_keys_asks_for_one(quiet_tab: Page) -> None:
    page = quiet_tab
    app = create_app(ServedProgram("qa", Scripted(answer), QA), api_keys=["open-sesame"])
    with serving(app) as live:
        page.goto(live.url)
        page.wait("document.querySelector('#key-dialog').open")
        assert not page.text("#key-problem")
        page.type("#key", "open-barley")
        page.press("Enter")
        page.wait("document.querySelector('#key-problem').textContent.includes('not known')")
        page.call("Input.insertText", text="open-sesame")  # in place of the wrong one, which is selected
        page.press("Enter")
        page.wait("document.querySelector('#in-question')")
        ask(page, "why?")
        assert value(page, 1) == "You asked: why?"
        page.goto("about:blank")
    page.errors.clear()


def test_the_pages_load_nothing_from_elsewhere() -> None:
    for name, (body, _, _) in static.load().items():
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, name
        assert "https://" not in text, name


def test_no_script_can_make_markup_of_text() -> None:
    for name, (body, _, _) in static.load().items():
        if name.endswith(".js"):
            assert not MARKUP.search(body.decode()), name


def test_all_links_of_the_pages_are_relative_so_that_they_work_below_a_prefix() -> None:
    for name in ("index.html", "docs.html"):
        links = re.findall(r'(?:href|src)="([^"]*)"', static.load()[name][0].decode())
        assert len(links) > 5
        assert not [link for link in links if link.startswith("/")], name


def test_the_page_announces_every_module_that_it_needs() -> None:
    files = {name: body.decode() for name, (body, _, _) in static.load().items()}
    for page, entry in (("index.html", "main.js"), ("docs.html", "docs.js")):
        announced = set(re.findall(r'rel="modulepreload" href="static/([\w.]+)"', files[page]))
        assert announced == _reached(files, entry) - {entry}, page


def _reached(files: dict[str, str], name: str) -> set[str]:
    found, wait = {name}, [name]
    while wait:
        for other in re.findall(r'from "\./([\w.]+)"', files[wait.pop()]):
            if other not in found:
                found.add(other)
                wait.append(other)
    return found


def test_a_page_that_the_browser_has_is_not_sent_again(guide: Live) -> None:
    first = http.get(guide.url + "/static/main.js")
    again = http.get(guide.url + "/static/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["content-type"].startswith("text/javascript")
    assert again.status_code == 304
    assert http.get(guide.url + "/static/..%2Fapp.py").status_code == 404


def test_the_pages_allow_nothing_but_their_own_scripts_and_styles(guide: Live) -> None:
    for path in ("/", "/docs"):
        policy = http.get(guide.url + path).headers["content-security-policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["img-src"] == "'self' data:"
        assert rules["require-trusted-types-for"] == "'script'"
