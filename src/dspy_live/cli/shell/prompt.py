"""The shell's prompt: history, completion, highlighting, several lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from dspy_live.cli.commands.shell import CONTINUED, PROMPT
from dspy_live.core.errors import ConfigurationError

Words = Callable[[], dict[str, str]]
"""Completions and what they do: ``{"/load": "read a program", "/explain async": "…"}``."""


def candidates(line: str, known: dict[str, str]) -> dict[str, str]:
    """Return what a line may become, a word at a time: ``/expl`` becomes ``/explain ``, and then its topics."""
    if not line.startswith("/"):
        return {}
    found: dict[str, str] = {}
    for text, about in known.items():
        if not text.startswith(line) or " " in text[len(line) :]:
            continue
        more = any(other.startswith(f"{text} ") for other in known)
        found[f"{text} " if more else text] = about
    return found


def make_prompt(history: Path | None, words: Words) -> Callable[[], str]:
    """Return a function that asks for one line; it raises ``KeyboardInterrupt`` and ``EOFError`` as a person does.

    Raises :class:`ConfigurationError` when prompt_toolkit is not installed.
    """
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
        from prompt_toolkit.document import Document
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.lexers import PygmentsLexer
        from pygments.lexers.python import PythonLexer
    except ModuleNotFoundError as error:
        raise ConfigurationError("the shell needs prompt-toolkit: pip install 'dspy-live[shell]'") from error

    paths = PathCompleter(expanduser=True, file_filter=lambda name: name.endswith(".py") or Path(name).is_dir())

    class Commands(Completer):
        """Completes commands, their arguments, and paths after ``/load``."""

        def get_completions(self, document: Document, complete_event: object) -> Iterable[Completion]:
            line = document.text_before_cursor
            if line.startswith("/load "):
                rest = Document(line.removeprefix("/load "))
                yield from paths.get_completions(rest, complete_event)  # type: ignore[arg-type]
                return
            for text, about in candidates(line, words()).items():
                yield Completion(text, start_position=-len(line), display_meta=about)

    keys, completer = KeyBindings(), Commands()

    @keys.add("tab")
    def _complete(event: KeyPressEvent) -> None:
        """A single candidate is taken at once; of several, their common beginning, and then one after the other."""
        buffer = event.current_buffer
        if buffer.complete_state is not None and len(buffer.complete_state.completions) > 1:
            buffer.complete_next()
            return
        found = list(completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
        if len(found) == 1:
            buffer.cancel_completion()
            buffer.apply_completion(found[0])
        else:
            buffer.start_completion(insert_common_part=True)

    @keys.add("escape", "enter")
    def _another_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history is not None else InMemoryHistory(),
        auto_suggest=AutoSuggestFromHistory(),
        completer=completer,
        complete_while_typing=True,
        key_bindings=keys,
        lexer=PygmentsLexer(PythonLexer),
        prompt_continuation=CONTINUED,
    )

    def ask() -> str:
        text = session.prompt(PROMPT)
        while text.endswith("\\"):
            text = text[:-1] + "\n" + session.prompt(CONTINUED)
        return text

    return ask
