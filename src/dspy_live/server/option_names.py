"""What an option is called where the reader of an error can change it."""

from __future__ import annotations

from collections.abc import Callable

OptionName = Callable[[str, object], str]
"""From an argument of ``create_app`` and a value for it to the words that set it."""

_FLAGS = {"origins": "--origin"}


def as_argument(name: str, value: object) -> str:
    """Return how Python sets an option: ``drain=30``, ``origins=['https://app.example']``."""
    return f"{name}=[{value!r}]" if isinstance(value, str) else f"{name}={value!r}"


def as_flag(name: str, value: object) -> str:
    """Return how the command line sets an option: ``--origin https://app.example``."""
    return f"{_FLAGS.get(name, '--' + name.replace('_', '-'))} {value}"
