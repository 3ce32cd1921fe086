"""The assistant's output: Markdown, code, differences, proofs. Colours only on a terminal."""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from shutil import get_terminal_size
from typing import TYPE_CHECKING, ClassVar, TextIO

from dspy_live.assistant.excerpt import excerpt, without_local_links
from dspy_live.assistant.guides import ALIASES, Guide, find_guide, guides, suggest
from dspy_live.assistant.retrieval import Hit, index
from dspy_live.core.errors import NotFound

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.markdown import MarkdownElement
    from rich.text import Text

    from dspy_live.assistant.convert import Note
    from dspy_live.assistant.proof import Proof

THEME = "ansi_dark"
"""Highlighting in the terminal's own colours."""

NEAR = 3.0
"""How far behind the best section's score another one may be that is named beside it."""

_MARKS = {"changed": "+", "left": "-", "advice": "!"}


def console(out: TextIO) -> Console:
    """Return rich's console for a stream; it writes no colours where that is no terminal."""
    from rich.console import Console

    return Console(file=out, highlight=False, soft_wrap=not out.isatty())


def show_markdown(text: str, out: TextIO) -> None:
    """Render Markdown on a terminal; in a pipe, print it as it is."""
    if not out.isatty():
        print(text.rstrip(), file=out)
        return
    from rich.markdown import CodeBlock, Markdown

    class Copyable(CodeBlock):
        """A code block without padding: what is copied from the terminal runs."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
            yield highlighted(str(self.text), self.lexer_name)

    class Page(Markdown):
        """Markdown with such code blocks."""

        elements: ClassVar[dict[str, type[MarkdownElement]]] = {
            **Markdown.elements,
            "fence": Copyable,
            "code_block": Copyable,
        }

    console(out).print(Page(text, code_theme=THEME), crop=False)


def show_code(code: str, out: TextIO, language: str = "python") -> None:
    """Print code, highlighted on a terminal."""
    if not out.isatty():
        print(code.rstrip("\n"), file=out)
        return
    console(out).print(highlighted(code, language), crop=False, no_wrap=True, overflow="ignore")


def highlighted(code: str, language: str) -> Text:
    """Return code in colours, each line as it is: nothing before it, nothing after it, never broken in two."""
    from rich.syntax import Syntax

    text = Syntax("", language, theme=THEME, background_color="default").highlight(code.rstrip("\n"))
    text.rstrip()
    text.no_wrap, text.overflow = True, "ignore"
    return text


def show_diff(diff: str, out: TextIO) -> None:
    """Print a difference; nothing for an empty one."""
    if diff:
        show_code(diff, out, "diff")


def note_lines(notes: Iterable[Note]) -> list[str]:
    """Return the notes as lines: ``+`` done, ``-`` left, ``!`` advice."""
    return [f"{_MARKS[note.level]} {f'line {note.line}: ' if note.line else ''}{note.text}" for note in notes]


def show_proof(proof: Proof, out: TextIO) -> None:
    """Print how a trial went, with the end of its output, or of its traceback."""
    print(proof.verdict, file=out)
    text = proof.outcome.output if proof.ok else proof.outcome.error
    lines = text.rstrip().splitlines()
    for line in ["…", *lines[-12:]] if len(lines) > 12 else lines:
        print(f"    {line}", file=out)


def ask(question: str, out: TextIO) -> bool:
    """Ask a person; the end of input is a no."""
    print(f"{question} [y/N] ", end="", file=out, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show_topics(out: TextIO) -> None:
    """List the guides, each on one line of the terminal, and say how to go on."""
    found = guides()
    width = max(len(guide.name) for guide in found)
    room = get_terminal_size().columns - width - 2 if out.isatty() else 10_000
    for guide in found:
        summary = textwrap.shorten(guide.summary.rstrip(":"), max(20, room), placeholder=" …")
        print(f"{guide.name:<{width}}  {summary}", file=out)
    if out.isatty():
        print("\ndspy-live explain TOPIC shows one; a question in plain words is answered from all of them", file=out)


def show_example(guide: Guide, out: TextIO) -> bool:
    """Run a guide's first example against the simulated LM, show it and what it printed; tell whether it ran."""
    from dspy_live.assistant.trial import run_trial

    code = guide.example
    if code is None:
        print(f"The guide {guide.name!r} has no Python example; `explain {guide.name}` shows it.", file=out)
        return True
    outcome = run_trial(code, file=f"{guide.name}_example.py")
    if not outcome.ok:
        print(f"The example of {guide.name!r} does not run on this installation: {outcome.reason}", file=out)
        return False
    show_code(code, out)
    calls = f"{outcome.lm_calls} LM call{'' if outcome.lm_calls == 1 else 's'}"
    print(
        f"\n# It ran against the simulated LM just now ({calls}, {outcome.seconds:.1f} s):",
        file=out,
    )
    for line in outcome.output.rstrip().splitlines()[:15]:
        print(f"#   {line[:160]}", file=out)
    return True


def topic_of(words: str) -> Guide | None:
    """Return the page that goes by these words, or ``None`` for a question.

    Raises :class:`NotFound`, with the nearest topics, for a single word that the guides don't know.
    """
    count = len(words.split())
    if count > 2:
        return None
    plain = "-".join(words.lower().split())
    if count == 2 and plain not in {guide.name for guide in guides()} | set(ALIASES):
        return None
    try:
        return find_guide(words)
    except NotFound:
        found = index().search(words)
        if found and found[0].answers:
            return None
        raise


def search(question: str) -> Sequence[Hit]:
    """Return the sections that answer a question, best first.

    Raises :class:`NotFound`, with the nearest sections, when none of them answers it.
    """
    found = index().search(question)
    if not found:
        pages = [guide.name for guide in guides()]
        names = [*pages, *ALIASES]
        known = next(
            (word for word in question.lower().split() if difflib.get_close_matches(word, names, cutoff=0.79)), ""
        )
        raise NotFound(f"no page covers this; {suggest(known, names, pages)}")
    if not found[0].answers:
        near = "".join(f"\n  {hit.passage.place}" for hit in found[:3])
        raise NotFound(f"no page covers this; nearest are{near}")
    return found


def page_for(question: str, *, example: bool = False) -> Guide:
    """Return the page that answers a question, with ``example`` the first that has one; raises as :func:`search`."""
    found = [find_guide(hit.passage.page) for hit in search(question)]
    return next((guide for guide in found if guide.example or not example), found[0])


def show_guide(guide: Guide, out: TextIO) -> None:
    """Show a whole page, once its examples have run here."""
    _warn_of_failures([code for passage in guide.passages for code in passage.code], out)
    show_markdown(guide.text, out)


def show_answer(question: str, out: TextIO, *, command: str = "explain") -> None:
    """Show of the section that fits best what answers a question, once its examples have run, and where to read on.

    ``command`` is the command that prints a whole page: ``explain``, or the shell's ``/explain``.
    """
    best, *others = search(question)
    passage = best.passage
    guide = find_guide(passage.page)
    if best.named:
        text = without_local_links(passage.text)
    else:
        text = excerpt(passage.text, lambda texts: index().relevance(question, texts))
    _warn_of_failures(replace(passage, text=text).code, out)
    title = guide.title if passage.heading == guide.title else f"{guide.title}: {passage.heading}"
    show_markdown(f"## {title}\n\n{text}", out)
    print(f"\nFrom the guide {guide.name!r}; `{command} {guide.name}` shows all of it.", file=out)
    near = [f"‘{hit.passage.place}’" for hit in others if best.score - hit.score <= NEAR]
    if near:
        print(f"See also {', '.join(near[:3])}", file=out)


def _warn_of_failures(codes: Sequence[str], out: TextIO) -> None:
    from dspy_live.assistant.checked_examples import failures

    for code, reason in failures(codes).items():
        begin = next((line for line in code.splitlines() if not line.startswith(("import", "from")) and line), "")
        print(f"! The example with `{begin}` does not run on this installation: {reason}\n", file=out)
