"""What waits in a channel, and what gives way when too much does: one queue per overflow policy.

Plain data: no loop, no clock, no lock. Tokens (and raw text, reasoning, partial values) count
against the bound; every other event is never dropped and never merged. They have a soft bound of their
own, so that a program that sends nothing but statuses is asked to wait at its next LM call too.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TypeAlias

from dspy_live.core.call import Buffer
from dspy_live.core.events import Event, Partial, Reasoning, Restart, TextDelta, Token

CONTROL_BOUND = 1024
"""Events that are not tokens and may wait before the channel calls itself full. They are small, and
a program sends a handful for each LM call, so only a runaway one gets here."""

PARTIAL_BYTES = 256
"""What a partial value counts for in a coalescing queue. Its true size would cost an encoding to know;
there is never more than one waiting for each field once the queue merges."""

_COUNTED = frozenset({Token, TextDelta, Reasoning, Partial})
_Key: TypeAlias = tuple[type, int, str]


class Blocking:
    """The queue of ``overflow="block"``: keeps everything, and says when it is full.

    ``put`` never refuses. It returns False once no more should come; a producer that goes on
    exceeds the bound by what it had already read. ``put_merging`` is for a producer that can't wait:
    above the bound its tokens merge by field.
    """

    __slots__ = ("_cells", "_items", "_merged", "bound", "coalesced", "control", "dropped", "tokens")

    def __init__(self, buffer: Buffer) -> None:
        self.bound = buffer.size
        self.tokens = 0
        self.control = 0
        self.dropped = 0
        self.coalesced = 0
        self._items: deque[Event | _Cell] = deque()
        self._cells: dict[_Key, _Cell] = {}
        self._merged = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        return self.tokens >= self.bound or self.control >= CONTROL_BOUND

    @property
    def roomy(self) -> bool:
        """True once half of what made it full has gone: waking a producer for one token would flap."""
        return self.tokens <= self.bound >> 1 and self.control <= CONTROL_BOUND >> 1

    def put(self, event: Event) -> bool:
        """Append; False when the queue is now full."""
        if type(event) in _COUNTED:
            if self._cells:
                self._cells.pop(_key(event), None)
            self.tokens += 1
        else:
            self._put_control(event)
        self._items.append(event)
        return self.tokens < self.bound and self.control < CONTROL_BOUND

    def put_merging(self, event: Event) -> bool:
        """Append, or above the bound merge into what waits of the same LM call and field."""
        if self.tokens < self.bound or type(event) not in _COUNTED:
            return self.put(event)
        self._merge(event)
        return False

    def take(self) -> Event:
        """Remove and return the oldest; the queue must not be empty."""
        item = self._items.popleft()
        if isinstance(item, _Cell):
            if self._cells.get(item.key) is item:
                del self._cells[item.key]
            self.tokens -= 1
            return item.event()
        if type(item) in _COUNTED:
            self.tokens -= 1
        else:
            self.control -= 1
        return item

    def take_all(self) -> list[Event]:
        """Remove and return everything, oldest first."""
        items = self._items
        if self._merged:
            taken = [item.event() if isinstance(item, _Cell) else item for item in items]
            self._cells.clear()
            self._merged = False
        else:
            taken = list(items)  # type: ignore[arg-type]
        items.clear()
        self.tokens = 0
        self.control = 0
        return taken

    def _put_control(self, event: Event) -> None:
        self.control += 1
        if type(event) is Restart:
            # What is void and what is not must stay apart.
            self._cells.clear()

    def _merge(self, event: Event) -> None:
        key = _key(event)
        cell = self._cells.get(key)
        if cell is not None:
            cell.add(event)
            self.coalesced += 1
            return
        cell = self._cells[key] = _Cell(key, event)
        self._items.append(cell)
        self._merged = True
        self.tokens += 1


class Coalescing(Blocking):
    """The queue of ``overflow="coalesce"``: above ``size`` tokens they merge, above ``max_bytes`` it is full.

    Tokens of one LM call and field merge with the last one that waits, other fields' tokens in
    between or not, but never across a :class:`~dspy_live.core.events.Restart`. Of partial values, which
    replace each other, the newest stays.
    """

    __slots__ = ("bytes", "max_bytes")

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(buffer)
        self.max_bytes = buffer.max_bytes
        self.bytes = 0

    @property
    def full(self) -> bool:
        return self.bytes >= self.max_bytes or self.control >= CONTROL_BOUND

    @property
    def roomy(self) -> bool:
        return self.bytes <= self.max_bytes >> 1 and self.control <= CONTROL_BOUND >> 1

    def put(self, event: Event) -> bool:
        if type(event) not in _COUNTED or self.tokens < self.bound:
            super().put(event)
            self.bytes += _weight(event)
        else:
            before = self.tokens
            self._merge(event)
            if self.tokens > before or type(event) is not Partial:
                self.bytes += _weight(event)
        return self.bytes < self.max_bytes and self.control < CONTROL_BOUND

    def put_merging(self, event: Event) -> bool:
        return self.put(event)

    def take(self) -> Event:
        event = super().take()
        self.bytes -= _weight(event)
        return event

    def take_all(self) -> list[Event]:
        self.bytes = 0
        return super().take_all()


class DropOldest:
    """The queue of ``overflow="drop_oldest"``: above the bound the oldest tokens go, and are counted.

    A field's last token and a final value stay: they say that something is complete. It is never full
    for tokens.
    """

    __slots__ = ("_droppable", "_items", "_next", "bound", "coalesced", "dropped")

    def __init__(self, buffer: Buffer) -> None:
        self.bound = buffer.size
        self.dropped = 0
        self.coalesced = 0
        self._next = 0
        # Ordered by arrival, with removal from the middle in constant time.
        self._items: OrderedDict[int, Event] = OrderedDict()
        self._droppable: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def tokens(self) -> int:
        return len(self._droppable)

    @property
    def control(self) -> int:
        return len(self._items) - len(self._droppable)

    @property
    def full(self) -> bool:
        return self.control >= CONTROL_BOUND

    @property
    def roomy(self) -> bool:
        return self.control <= CONTROL_BOUND >> 1

    def put(self, event: Event) -> bool:
        self._items[self._next] = event
        if _droppable(event):
            self._droppable.append(self._next)
            while len(self._droppable) > self.bound:
                del self._items[self._droppable.popleft()]
                self.dropped += 1
        self._next += 1
        return not self.full

    def put_merging(self, event: Event) -> bool:
        return self.put(event)

    def take(self) -> Event:
        number, event = self._items.popitem(last=False)
        if self._droppable and self._droppable[0] == number:
            self._droppable.popleft()
        return event

    def take_all(self) -> list[Event]:
        taken = list(self._items.values())
        self._items.clear()
        self._droppable.clear()
        return taken


Queue: TypeAlias = Blocking | Coalescing | DropOldest


def make_queue(buffer: Buffer) -> Queue:
    """Return the queue that ``buffer.overflow`` names."""
    match buffer.overflow:
        case "block":
            return Blocking(buffer)
        case "coalesce":
            return Coalescing(buffer)
        case "drop_oldest":
            return DropOldest(buffer)


class _Cell:
    """Tokens of one field that merged. Their texts are joined once, when they are taken."""

    __slots__ = ("first", "key", "last", "texts")

    def __init__(self, key: _Key, event: Event) -> None:
        self.key = key
        self.first = event
        self.texts: list[str] = []
        self.last = False
        self.add(event)

    def add(self, event: Event) -> None:
        if isinstance(event, Partial):
            self.first = event
        elif isinstance(event, (Token, TextDelta, Reasoning)):
            self.texts.append(event.text)
            if isinstance(event, Token):
                self.last = self.last or event.last

    def event(self) -> Event:
        first = self.first
        if isinstance(first, Token):
            return Token("".join(self.texts), first.field, first.predictor, first.lm_call, self.last)
        if isinstance(first, Reasoning):
            return Reasoning("".join(self.texts), first.predictor, first.lm_call)
        if isinstance(first, TextDelta):
            return TextDelta("".join(self.texts), first.lm_call, first.predictor)
        return first


def _key(event: Event) -> _Key:
    return type(event), event.lm_call, getattr(event, "field", "")  # type: ignore[union-attr]


def _weight(event: Event) -> int:
    if type(event) not in _COUNTED:
        return 0
    if isinstance(event, Partial):
        return PARTIAL_BYTES
    text: str = event.text  # type: ignore[union-attr]
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _droppable(event: Event) -> bool:
    if isinstance(event, Token):
        return not event.last
    if isinstance(event, Partial):
        return not event.final
    return isinstance(event, (TextDelta, Reasoning))
