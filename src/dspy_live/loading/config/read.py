"""Read ``dspy-live.toml``: one object for the whole file, or every mistake in it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.fit import Found, unfit
from dspy_live.loading.config.lines import lines_of
from dspy_live.loading.config.links import broken_links, broken_lm
from dspy_live.loading.config.mistakes import ConfigMistakes, Mistake, key_text
from dspy_live.loading.config.repair import repaired
from dspy_live.loading.config.shape import Config

FILE_NAME = "dspy-live.toml"
_PLACE = re.compile(r" \(at line (\d+), column \d+\)| \(at end of document\)")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that has been read and holds no mistake.

    Args:
        path: the file; ``None`` where there is none, and every table has its defaults.
        config: its tables.
        environ: the variables that the file names secrets by.
        lines: the line of each key.
    """

    def mistake(self, key: tuple[str | int, ...], text: str) -> Mistake:
        """Return what is wrong with a key of this file, told with its line."""
        inner = key
        while inner and inner not in self.lines:
            inner = inner[:-1]
        return Mistake(self.lines.get(inner, 0), key_text(key), text)

    path: Path | None = None
    config: Config = field(default_factory=Config)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)

    def near(self, place: str) -> Path:
        """Return a file that the configuration names; one that is not absolute lies beside the configuration."""
        folder = self.path.parent if self.path is not None else Path()
        return folder / Path(place).expanduser()

    def secret(self, value: str | None, variable: str | None) -> str | None:
        """Return a secret that is given itself, or by the variable that holds it."""
        return self.environ.get(variable) if variable is not None else value


def read_config(path: Path, environ: Mapping[str, str] | None = None, *, for_server: bool = True) -> ConfigFile:
    """Read and check a file; nothing is loaded or opened that it names.

    Args:
        path: the file, in UTF-8, a byte order mark allowed.
        environ: the variables that the file may name; the process's own by default.
        for_server: look at what the tables say of one another, and for the variables of all secrets. A command that
            takes the table ``[lm]`` alone needs that one's only.

    Raises :class:`~dspy_live.loading.config.mistakes.ConfigMistakes` with all that is wrong, each with its line; it is
    a :class:`~dspy_live.core.errors.ConfigurationError`, as is the error for a file that can't be read.
    """
    environ = os.environ if environ is None else environ
    text = _text_of(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigMistakes(str(path), [_no_toml(exc, text)]) from None
    except RecursionError:
        raise ConfigurationError(f"{path}: its tables are nested too deeply") from None
    wrong = unfit(data, Config)
    config = msgspec.convert(repaired(data, Config) if wrong else data, Config)
    links = broken_links(config, environ) if for_server else broken_lm(config, environ)
    found = [*wrong, *(one for one in links if not _follows(one, wrong))]
    file = ConfigFile(path, config, environ, lines_of(text))
    if found:
        raise ConfigMistakes(str(path), [file.mistake(*one) for one in found])
    return file


def _follows(link: Found, wrong: Sequence[Found]) -> bool:
    """True for what is said only because a value that does not fit was left out."""
    place, said = link
    for other, _ in wrong:
        below = other[len(place) :]
        if place[: len(other)] == other or (other[: len(place)] == place and f"{below[0]}" in said):
            return True
    return False


def find_config(given: Path | None, folder: Path | None = None) -> Path | None:
    """Return the file that a flag names, else ``dspy-live.toml`` of the folder (the working one) if it is there."""
    if given is not None:
        return given
    path = (folder or Path()) / FILE_NAME
    return path if path.is_file() else None


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as exc:
        raise ConfigurationError(f"can't read {path}: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not valid TOML: byte {exc.start + 1} is not UTF-8") from None


def _no_toml(exc: tomllib.TOMLDecodeError, text: str) -> Mistake:
    said = str(exc)
    place = _PLACE.search(said)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    return Mistake(line, "", f"this is not valid TOML: {_PLACE.sub('', said)}")
