"""What is wrong with a file, told with the line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from dspy_live.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake of a file.

    Args:
        line: counted from 1; 0 where the mistake has no line.
        key: the key's place, such as ``programs.qa.target``; empty for the whole file.
        text: what is wrong, and what was expected. It never holds a secret.
    """

    line: int
    key: str
    text: str

    def told(self, file: str) -> str:
        """Return ``FILE:LINE: KEY: TEXT``."""
        place = f"{file}:{self.line}" if self.line else file
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigMistakes(ConfigurationError):
    """A file has mistakes. The message has one line for each, ``mistakes`` has them all."""

    def __init__(self, file: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda one: (one.line, one.key))
        super().__init__("\n".join(one.told(file) for one in self.mistakes))


def key_text(path: Iterable[str | int]) -> str:
    """Return a key's place as the file would write it: ``programs.qa.origins[2]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
            continue
        bare = part.replace("-", "").replace("_", "").isalnum() and part.isascii()
        text += ("." if text else "") + (part if bare else f'"{part}"')
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'port'?`` for a name that is near a known one, else the list of those there are."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(names)}" if names else "there is none"
