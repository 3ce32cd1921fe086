"""The assistant's output: Markdown, code, differences, proofs. Colours only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from dspy_live.assistant.guides import Guide, find_guide, guides
from dspy_live.assistant.retrieval import PageHit, index
from dspy_live.core.errors import NotFound

if TYPE_CHECKING:
    from rich.console import Console

    from dspy_live.assistant.convert import Note
    from dspy_live.assistant.proof import Proof

THEME = "ansi_dark"
"""Highlighting in the terminal's own colours."""

NEAR = 0.5
"""From what part of the best page's score on another page is named beside it."""

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
    from rich.markdown import Markdown

    console(out).print(Markdown(text, code_theme=THEME))


def show_code(code: str, out: TextIO, language: str = "python") -> None:
    """Print code, highlighted on a terminal."""
    if not out.isatty():
        print(code.rstrip("\n"), file=out)
        return
    from rich.syntax import Syntax

    console(out).print(Syntax(code.rstrip("\n"), language, theme=THEME, background_color="default"))


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
    """List the guides."""
    for guide in guides():
        print(f"{guide.name:<15}{guide.summary}", file=out)


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


def search(question: str) -> Sequence[PageHit]:
    """Return the pages that answer a question, best first.

    Raises :class:`NotFound` when the guides know none of its words.
    """
    found = index().search(question)
    if not found:
        names = ", ".join(guide.name for guide in guides())
        raise NotFound(f"the guides know nothing of that; there are pages on {names}")
    return found


def page_for(question: str, *, example: bool = False) -> Guide:
    """Return the page that answers a question, with ``example`` the first that has one; raises as :func:`search`."""
    found = [find_guide(hit.page) for hit in search(question)]
    return next((guide for guide in found if guide.example or not example), found[0])


def show_guide(guide: Guide, out: TextIO) -> None:
    """Show a whole page, once its examples have run here."""
    _warn_of_failures([code for passage in guide.passages for code in passage.code], out)
    show_markdown(guide.text, out)


def show_answer(question: str, out: TextIO, *, command: str = "explain") -> None:
    """Show the best passage of the best page, once its examples have run here, and where to read on.

    ``command`` is the command that prints a whole page: ``explain``, or the shell's ``/explain``.
    """
    pages = search(question)
    guide = find_guide(pages[0].page)
    best = pages[0].best_of(guide)
    _warn_of_failures(best.code, out)
    title = guide.title if best.heading == guide.title else f"{guide.title}: {best.heading}"
    show_markdown(f"## {title}\n\n{best.text}", out)
    print(f"\nFrom the guide {best.page!r}; `{command} {best.page}` shows all of it.", file=out)
    for page in pages[1:]:
        if page.score >= pages[0].score * NEAR:
            print(f"See also {page.page}: {find_guide(page.page).summary.rstrip(':')}", file=out)


def _warn_of_failures(codes: Sequence[str], out: TextIO) -> None:
    from dspy_live.assistant.checked_examples import failures

    for code, reason in failures(codes).items():
        begin = next((line for line in code.splitlines() if not line.startswith(("import", "from")) and line), "")
        print(f"! The example with `{begin}` does not run on this installation: {reason}\n", file=out)
