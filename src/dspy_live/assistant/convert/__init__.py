"""Changes a user's program: a source text in, a new text, a diff and notes out. Nothing is run or written here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path, PurePath

from dspy_live.assistant.convert.candidates import Candidate, candidates, choose, makes_programs, no_program_text
from dspy_live.assistant.convert.elsewhere import Elsewhere
from dspy_live.assistant.convert.import_effects import note_notebook
from dspy_live.assistant.convert.names import binds
from dspy_live.assistant.convert.new_files import plain, to_fastapi, to_serving, to_tests
from dspy_live.assistant.convert.report import (
    Conversion,
    ConvertError,
    DoesNotParse,
    NoProgram,
    Note,
    Notes,
    SeveralPrograms,
)
from dspy_live.assistant.convert.source import Source, check_syntax, with_open_guard
from dspy_live.assistant.convert.to_async import to_async
from dspy_live.assistant.convert.to_streaming import to_streaming
from dspy_live.assistant.convert.to_usage import to_caching, to_logging, to_usage
from dspy_live.assistant.packages import package_of

KINDS: dict[str, str] = {
    "async": "give every module an aforward and await it",
    "streaming": "print the program's text as it arrives",
    "usage": "count tokens, cost and calls, and print them",
    "caching": "keep answers, and print what came from the cache",
    "logging": "write structured logs",
    "serving": "add an ASGI app that serves the program",
    "fastapi": "write a FastAPI app around the program, in a new file",
    "tests": "write tests against the simulated LM, in a new file",
}

_ALIASES = {"stream": "streaming", "asyncio": "async", "cache": "caching", "log": "logging", "serve": "serving"}
_ALIASES |= {"test": "tests", "api": "fastapi", "track": "usage", "tracking": "usage"}


def kind_named(name: str) -> str:
    """Return the kind that a user names, by its name or by a near one.

    Raises:
        ConvertError: there is no such kind; the message has the nearest.
    """
    plain = name.strip().lower()
    plain = _ALIASES.get(plain, plain)
    if plain in KINDS:
        return plain
    near = difflib.get_close_matches(plain, [*KINDS, *_ALIASES], n=1, cutoff=0.5)
    hint = f"Did you mean {_ALIASES.get(near[0], near[0])!r}?" if near else ""
    raise ConvertError(f"There is no conversion {name!r}. {hint} There are: {', '.join(KINDS)}.".replace("  ", " "))


def convert(
    kind: str, text: str, *, program: str | None = None, file: str = "program.py", folder: Path | None = None
) -> Conversion:
    """Convert the source of a DSPy program.

    Args:
        kind: one of :data:`KINDS`.
        text: the source.
        program: which program is meant, where it matters and there are several.
        file: the file's name, for the diff and for the names of new files.
        folder: the file's folder, whose other files are read to tell which calls may wait.

    Raises:
        ConvertError: no such kind.
        DoesNotParse: the source is no valid Python.
        NoProgram: there is no DSPy program in it, or none of that name.
        SeveralPrograms: the conversion is about one program, there are several, and none was named.
    """
    kind = kind_named(kind)
    given, text = text, with_open_guard(text)
    elsewhere = Elsewhere(folder)
    source = Source(text, elsewhere=elsewhere)
    if not source.programs() and not candidates(source) and not makes_programs(source):
        raise NoProgram(no_program_text(source))
    if program is not None and program not in _top_names(source):
        choose(source, program)
    notes = Notes()
    stem = PurePath(file).stem or "program"
    if "." in stem and kind in _WITH_STEM:
        raise ConvertError(f"No module can import {PurePath(file).name}: rename the file so that its name has one dot.")
    package = package_of(folder, text)[1] if folder is not None else ""
    if kind == "async":
        new = to_async(text, notes, elsewhere)
    elif kind in _IN_PLACE:
        new = _IN_PLACE[kind](text, notes, program)
    else:
        new = _WITH_STEM[kind](text, notes, program, stem, package)
    new_file = {"fastapi": f"{plain(stem)}_api.py", "tests": f"test_{plain(stem)}.py"}.get(kind, "")
    if new == text and not new_file and not any(note.level == "left" for note in notes.items):
        notes.add("left", f"Nothing had to change: the file already is what `convert {kind}` makes of it.")
    note_notebook(source, notes)
    check_syntax(new)
    new = given if new == text else new
    return Conversion(kind, given, new, notes.sorted(), new_file, PurePath(file).name, program or "")


def _top_names(source: Source) -> set[str]:
    """The names of the file's top level: a program may be made in a way that is not seen."""
    return set().union(*(binds(node) for node in source.module.body))


_IN_PLACE: dict[str, Callable[[str, Notes, str | None], str]] = {
    "streaming": to_streaming,
    "usage": to_usage,
    "caching": to_caching,
}
_WITH_STEM: dict[str, Callable[[str, Notes, str | None, str, str], str]] = {
    "logging": to_logging,
    "serving": to_serving,
    "fastapi": to_fastapi,
    "tests": to_tests,
}

__all__ = [
    "KINDS",
    "Candidate",
    "Conversion",
    "ConvertError",
    "DoesNotParse",
    "NoProgram",
    "Note",
    "SeveralPrograms",
    "Source",
    "candidates",
    "convert",
    "kind_named",
]
