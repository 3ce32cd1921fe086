"""What a server serves: a service, its schema, and the name it goes by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dspy_live.core.errors import ConfigurationError, NotFound
from dspy_live.core.schema import Schema
from dspy_live.core.service import Service

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


def is_name(name: str) -> bool:
    """True for what can be a program's name in an address: letters, digits, ``_ . -``, in ASCII."""
    return _NAME.match(name) is not None


@dataclass(frozen=True, slots=True)
class Mounted:
    """One program of a server.

    Args:
        name: its name in ``/programs/{name}`` and as an OpenAI model; letters, digits, ``_ . -``.
        service: opened once per run.
        schema: the inputs are checked against it and the documentation is made from it.
        simulated: true when its LM is the simulated one; replies then carry ``X-Simulated: 1``.
    """

    name: str
    service: Service
    schema: Schema
    simulated: bool = False

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ConfigurationError(
                f"a program's name is made of letters, digits, '_', '.' and '-', and begins with none of the last two; "
                f"got {self.name!r}"
            )


def by_name(programs: Mapping[str, Mounted] | Mounted) -> dict[str, Mounted]:
    """Return the programs by name; the first is the server's default program."""
    if isinstance(programs, Mounted):
        return {programs.name: programs}
    if not programs:
        raise ConfigurationError("a server needs at least one program")
    for name, mounted in programs.items():
        if name != mounted.name:
            raise ConfigurationError(f"the program {mounted.name!r} is listed under another name, {name!r}")
    return dict(programs)


def find(programs: Mapping[str, Mounted], name: str) -> Mounted:
    """Return the program of that name; raise :class:`NotFound` that lists the names there are."""
    try:
        return programs[name]
    except KeyError:
        raise NotFound(f"no program {name!r}; this server has {', '.join(map(repr, programs))}") from None
