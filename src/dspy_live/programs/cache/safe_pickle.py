"""Reads the pickles of DSPy's cache without running what a stranger may have put there.

Plain data and the response types of ``litellm`` and ``openai`` are known; so is what the user named as safe in
``dspy.configure_cache(safe_types=...)``. The name alone is not trusted: a dotted name would reach through a module
into what it imports (``litellm.types.utils`` + ``os.system``), so that what is found must itself be a class of data
that was defined in such a module.
"""

from __future__ import annotations

import enum
import io
import pickle
from typing import Any

import pydantic

TRUSTED = ("litellm.types.", "openai.types.")

Allowed = frozenset[tuple[str, str]]


class ForeignEntry(Exception):
    """An entry holds something unknown, or is damaged."""


class _Unpickler(pickle.Unpickler):
    allowed: Allowed = frozenset()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.allowed:
            return super().find_class(module, name)
        if not module.startswith(TRUSTED) or "." in name:
            raise ForeignEntry(f"{module}.{name} is no type that a cached reply is made of")
        found = super().find_class(module, name)
        if (
            not isinstance(found, type)
            or not issubclass(found, pydantic.BaseModel | enum.Enum)
            or not found.__module__.startswith(TRUSTED)
        ):
            raise ForeignEntry(f"{module}.{name} is no type of data")
        return found


def load(data: bytes, allowed: Allowed = frozenset()) -> Any:
    """Unpickle ``data``. Raises :class:`ForeignEntry` for whatever is unknown or damaged."""
    unpickler = _Unpickler(io.BytesIO(data))
    unpickler.allowed = allowed
    try:
        return unpickler.load()
    except ForeignEntry:
        raise
    except Exception as exc:
        raise ForeignEntry(f"damaged entry: {type(exc).__name__}") from exc
