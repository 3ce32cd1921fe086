"""One piece of a reply."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["text", "reasoning", "tool"]


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A piece of one choice.

    ``text`` is text of the answer, of the model's reasoning, or of a tool call's arguments; ``index``
    is the choice. For ``"tool"``, ``call`` counts the choice's tool calls from 0, and ``id`` and ``name``
    are set on the piece that brings them.
    """

    kind: Kind
    text: str
    index: int = 0
    call: int = -1
    id: str = ""
    name: str = ""
