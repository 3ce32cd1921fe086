"""The protocol of the ledger's databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dspy_live.observe.ledger.schema import Dialect

Row = tuple[Any, ...]


class Backend(Protocol):
    """A database with the ledger's tables. ``write`` is called by one thread, the others by any. All of them block.

    A database that does not answer is an ``OSError`` that names it; a value that it can't hold is another exception.
    """

    dialect: Dialect
    name: str

    def write(self, runs: Sequence[Row], calls: Sequence[Row]) -> None:
        """Keep these rows, all or none; they are safe when this returns."""
        ...

    def read(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query. Parameters are marked by ``?``."""
        ...

    def change(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Carry out one statement and return how many rows it touched."""
        ...

    def change_all(self, statements: Sequence[str]) -> None:
        """Carry out these statements, all or none."""
        ...

    def pause(self) -> None:
        """The process is about to fork: wait a few seconds at most for the statement under way, and let none begin."""
        ...

    def resume(self) -> None:
        """The process has forked, and this is the parent: go on."""
        ...

    def reopen(self) -> None:
        """Leave the connections to the parent of this forked process and use new ones."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
