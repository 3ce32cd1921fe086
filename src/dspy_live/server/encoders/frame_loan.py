"""An event stream's socket, lent to whoever writes the frames of plain text to it without an event for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy_live.core.outlet import Borrower
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.transport.exchange import Exchange

if TYPE_CHECKING:
    from dspy_live.server.encoders.events import Encoder


class ContentLoan:
    """The frames of a text, which are not numbered, and the reply that they belong to."""

    __slots__ = ("_exchange", "_totals", "after", "before", "middle", "seq")

    def __init__(self, exchange: Exchange, totals: RunTotals, before: bytes, after: bytes, middle: bytes = b"") -> None:
        self._exchange = exchange
        self._totals = totals
        self.before = before
        self.middle = middle
        self.after = after
        self.seq: int | None = None

    def descriptor(self, borrower: Borrower) -> int | None:
        """See :class:`~dspy_live.core.outlet.Loan`."""
        return self._exchange.lend(borrower)

    def returned(self, frames: int, size: int, unsent: bytes) -> None:
        """See :class:`~dspy_live.core.outlet.Loan`."""
        self._totals.tokens += frames
        self._exchange.returned(size, unsent)


class FrameLoan(ContentLoan):
    """The same of one field's tokens, whose frames an encoder numbers.

    While it is lent, the encoder takes it back before it makes another frame, so that the numbers follow each other.
    """

    __slots__ = ("_encoder",)

    def __init__(self, encoder: Encoder, exchange: Exchange, before: bytes, middle: bytes, after: bytes) -> None:
        super().__init__(exchange, encoder.totals, before, after, middle)
        self._encoder = encoder

    def descriptor(self, borrower: Borrower) -> int | None:
        """See :class:`~dspy_live.core.outlet.Loan`."""
        if self._encoder.borrower is not None:
            return None
        descriptor = super().descriptor(borrower)
        if descriptor is not None:
            self._encoder.borrower = borrower
            self.seq = self._encoder.seq
        return descriptor

    def returned(self, frames: int, size: int, unsent: bytes) -> None:
        """See :class:`~dspy_live.core.outlet.Loan`."""
        self._encoder.borrower = None
        self._encoder.seq += frames
        super().returned(frames, size, unsent)
