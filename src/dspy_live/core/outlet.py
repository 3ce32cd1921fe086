"""A way past all sinks: where the further text of a field leaves the process, and what the sinks do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dspy_live.core.events import Token
from dspy_live.core.sink import Sink


class Borrower(Protocol):
    """Who writes to a socket that was lent."""

    def take_back(self) -> None:
        """End the loan: after it the socket is the lender's. It may be called at any time, and more than once."""
        ...

    def sent(self) -> int:
        """Return how many bytes of frames were written so far."""
        ...


class Loan(Protocol):
    """A client's socket and the frames that belong on it, lent to whoever writes text to it without the sinks.

    A frame is ``before``, the number after ``seq`` (none where that is ``None``), ``middle``, the text as a JSON
    string, and ``after``. It goes out as one chunk of HTTP/1.1's chunked coding.
    """

    before: bytes
    middle: bytes
    after: bytes
    seq: int | None

    def descriptor(self, borrower: Borrower) -> int | None:
        """Lend the socket: return its descriptor, and write nothing to it before it was taken back.

        ``None`` where it can't be lent now: bytes wait to be written, or it is encrypted.
        """
        ...

    def returned(self, frames: int, size: int, unsent: bytes) -> None:
        """Take the socket back, to which ``frames`` with ``size`` bytes went; ``unsent`` are to be written first."""
        ...


class Watch(Protocol):
    """Measures how long a stream is silent."""

    def heard_elsewhere(self, heard: Callable[[], float]) -> None:
        """What is said is not told here for now; ``heard`` returns when something last was, by the loop's clock."""
        ...

    def heard_at(self, when: float) -> None:
        """What is said is told here again; something was said last at ``when``."""
        ...


class Outlet:
    """The way of the further text of one field, as the sinks along it have described it.

    Args:
        loan: the socket at its end.

    Attributes:
        stop: ASCII characters that the reply's format must see, so that text with one of them may not pass.
        lines: a bracket that begins a line may not pass.
        escapes: line ends, tabs, quotes and backslashes may pass.
        passed: told the text that has passed, each of them.
        feed: takes white space at the end of the text, which may turn out to belong to it.
        watches: measure the silence of the stream.
    """

    __slots__ = ("escapes", "feed", "lines", "loan", "passed", "stop", "watches")

    def __init__(self, loan: Loan) -> None:
        self.loan = loan
        self.stop = b""
        self.lines = False
        self.escapes = False
        self.passed: list[Callable[[str], object]] = []
        self.feed: Callable[[str], object] = _no_text
        self.watches: list[Watch] = []


def outlet_of(sink: Sink, token: Token | None = None) -> Outlet | None:
    """Return the outlet of ``sink`` for the field of ``token``, which it was pushed; ``None`` where it has none.

    A sink that an outlet may go past has a method ``outlet(token)``. On an LM's side of a
    :class:`~dspy_live.programs.fields.field_stream.FieldStream`, where no field is known yet, ``token`` is ``None``.
    """
    find: Callable[[Sink, Token | None], Outlet | None] | None = getattr(type(sink), "outlet", None)
    return None if find is None else find(sink, token)


def _no_text(text: str) -> None:
    """Nothing is held back on this way."""
