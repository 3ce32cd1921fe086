"""The playground's Markdown: what it makes of a text, at once and piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.browser import Page
from tests.server.pages_programs import MARKDOWN
from tests.server.support import Live

CASES = [
    ("plain\nwords", "<p>plain\nwords</p>"),
    ("# Title *a*", '<h4 data-level="1">Title <em>a</em></h4>'),
    ("**bold *in* it**, `a <b>`", "<p><strong>bold <em>in</em> it</strong>, <code>a &lt;b&gt;</code></p>"),
    ("2 * 3 * 4, a_b_c, ** x **", "<p>2 * 3 * 4, a_b_c, ** x **</p>"),
    ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
    ("3. c\n4. d", '<ol start="3"><li>c</li><li>d</li></ol>'),
    ("> q\n> - l", "<blockquote><p>q</p><ul><li>l</li></ul></blockquote>"),
    ("a\n\n---\n\nb\r\nc", "<p>a</p><hr><p>b\nc</p>"),
    ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
    ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
    ("[x](JAVASCRIPT:alert(1)) [y](data:text/html,x)", "<p>[x](JAVASCRIPT:alert(1)) [y](data:text/html,x)</p>"),
    ("\\*no\\* ~~out~~", "<p>*no* <del>out</del></p>"),
]


@pytest.fixture
def module(quiet_tab: Page, guide: Live) -> Iterator[Page]:
    quiet_tab.goto(guide.url + "/docs")
    quiet_tab.evaluate(
        "import('/static/markdown.js').then((module) => { window.md = module; window.html = (nodes) => {"
        " const place = document.createElement('div'); place.append(...nodes); return place.innerHTML; }; })"
    )
    return quiet_tab


def evaluate(page: Page, expression: str, **values: Any) -> Any:
    given = ", ".join(values)
    return page.evaluate(f"(({given}) => {expression})({', '.join(json.dumps(each) for each in values.values())})")


@pytest.mark.parametrize(("text", "html"), CASES)
def test_what_a_text_becomes(module: Page, text: str, html: str) -> None:
    assert evaluate(module, "html(md.markdown(text))", text=text) == html


def test_links_lead_to_the_web_only_and_tell_nobody(module: Page) -> None:
    html = evaluate(
        module, "html(md.markdown(text))", text="[a](https://a.example/b_(c)) ![spy](https://b.example/x.png)"
    )
    assert 'href="https://a.example/b_(c)"' in html
    assert html.count('rel="noopener noreferrer nofollow" target="_blank"') == 2
    assert "<img" not in html


def test_a_text_that_comes_in_pieces_looks_as_if_it_had_come_at_once(module: Page) -> None:
    different = evaluate(
        module,
        """{
          const wrong = [];
          for (const text of texts) {
            const place = document.createElement("div");
            const stream = new md.MarkdownStream(place);
            for (let n = 1; n <= text.length; n += 1) {
              stream.show(text.slice(0, n));
              if (place.innerHTML !== html(md.markdown(text.slice(0, n)))) wrong.push(text.slice(0, n));
            }
          }
          return wrong;
        }""",
        texts=[MARKDOWN, *(text for text, _ in CASES)],
    )
    assert different == []


def test_blocks_that_are_complete_keep_their_nodes(module: Page) -> None:
    kept = evaluate(
        module,
        """{
          const place = document.createElement("div");
          const stream = new md.MarkdownStream(place);
          stream.show("first\\n\\nsec");
          const first = place.firstChild;
          stream.show("first\\n\\nsecond\\n\\n- third");
          return [place.firstChild === first, place.childElementCount];
        }""",
    )
    assert kept == [True, 3]


@pytest.mark.parametrize(
    "piece", ["*", "**a ", "[", "_a", "`", "> ", "- ", "![[", "| - |\n", "(", "~~", "\\", "<http", "1. "]
)
def test_a_hostile_text_ends(module: Page, piece: str) -> None:
    # Backtracking without a bound would not end within the browser's twenty seconds.
    assert evaluate(module, "md.markdown(piece.repeat(9000)).length", piece=piece) >= 0
    deep = "".join("  " * n + "- x\n" for n in range(200))
    assert evaluate(module, "md.markdown(deep).length", deep=deep) == 1
