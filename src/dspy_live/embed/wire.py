"""The protocol between the host and Python: commands in, replies out, each batch as one JSON text.

A batch of commands is an array of objects with a ``type``. A batch of replies is an array of ``[id, events, end]``:
``end`` is ``null`` while more follows, ``true`` for a run that has ended well, else the failure.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

PROTOCOL = 1
"""Raised whenever a command or a reply changes its meaning; a host of another number refuses to start."""


class LMOptions(msgspec.Struct):
    """The LM of all programs; without a model, what ``dspy-live`` itself would take."""

    model: str | None = None
    api_base: str | None = None
    api_key: str | None = None
    options: dict[str, Any] = {}
    simulate: bool = False


class Settings(msgspec.Struct):
    """The settings that the host starts Python with."""

    lm: LMOptions = msgspec.field(default_factory=LMOptions)
    max_threads: int = 256


class Load(msgspec.Struct, tag="load"):
    """Load the program that ``target`` names; answered with :class:`Loaded` or a failure."""

    id: int
    target: str
    execution: str | None = None


class Start(msgspec.Struct, tag="run"):
    """Run a program. ``credits`` events may be sent before the host grants more; ``None`` is no bound.

    Without ``stream`` only usage and the prediction are sent. ``fields`` restricts tokens and partial values.
    """

    id: int
    program: int
    inputs: dict[str, Any]
    stream: bool = False
    fields: list[str] | None = None
    credits: int | None = None
    config: dict[str, Any] = {}


class Credit(msgspec.Struct, tag="credit"):
    """The host has room for ``n`` more events of a run."""

    id: int
    n: int


class Cancel(msgspec.Struct, tag="cancel"):
    """Nobody wants a run any more. It is ended, and its end is reported when it has."""

    id: int


class Unload(msgspec.Struct, tag="unload"):
    """The host has let go of a program; runs of it go on."""

    id: int


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Cancel every run, wait ``patience`` seconds at most for their ends, and stop the loop."""

    patience: float = 1.0


Command: TypeAlias = Load | Start | Credit | Cancel | Unload | Shutdown


class LoadedField(msgspec.Struct):
    """One input or output field."""

    name: str
    type: str
    description: str = ""
    required: bool = True


class Loaded(msgspec.Struct, tag_field="type", tag="loaded"):
    """A program is ready."""

    name: str
    lm: str
    execution: str
    inputs: list[LoadedField]
    outputs: list[LoadedField]
    description: str = ""
    text: str | None = None


class Prediction(msgspec.Struct, tag_field="type", tag="prediction"):
    """A run's result; the program's own object stays in Python."""

    outputs: dict[str, Any]


class Failure(msgspec.Struct, omit_defaults=True):
    """The failure of a run or a command. ``kind`` is the exception's class, ``code`` stable and for programs."""

    kind: str
    message: str
    code: str
    traceback: str = ""
    retry_after: float | None = None
