"""What a list or a model in XML looks like as a value, without its schema."""

from __future__ import annotations

from typing import Any

from dspy_live.sansio.fields.base import FieldEvent, FieldValue
from dspy_live.sansio.fields.sinks import grown, loosely, partial


class _Node:
    __slots__ = ("children", "name", "pieces")

    def __init__(self, name: str) -> None:
        self.name = name
        self.pieces: list[str] = []
        self.children: list[_Node] = []

    def value(self) -> Any:
        """Elements are a list if each is an ``item``, else a dict, in which a repeated name is a list."""
        if not self.children:
            return self._leaf()
        if all(child.name == "item" for child in self.children):
            return [child.value() for child in self.children]
        grouped: dict[str, list[Any]] = {}
        for child in self.children:
            grouped.setdefault(child.name, []).append(child.value())
        return {name: values if len(values) > 1 else values[0] for name, values in grouped.items()}

    def _leaf(self) -> Any:
        text = "".join(self.pieces)
        self.pieces = [text]
        text = text.strip()
        if text[:1] in ("[", "{"):
            try:
                return partial(text)
            except ValueError:
                return text
        return loosely(text)


class TreeSink:
    """A container field. It may come as several elements of its name, so that it is final at the end.

    Scalars in it are decoded where they are JSON. A single element that is empty is an empty list.
    """

    __slots__ = ("_field", "_next", "_open", "_roots", "_sent", "_size")

    def __init__(self, field: str) -> None:
        self._field = field
        self._roots: list[_Node] = []
        self._open: list[_Node] = []
        self._size = 0
        self._next = 1
        self._sent: Any = None

    def start(self, name: str) -> None:
        """An element begins, in the one that is open."""
        node = _Node(name)
        (self._open[-1].children if self._open else self._roots).append(node)
        self._open.append(node)
        self._size += len(name) + 2

    def end(self) -> None:
        """The innermost element ends."""
        self._open.pop()

    def data(self, text: str) -> None:
        """Text of the innermost element."""
        self._open[-1].pieces.append(text)
        self._size += len(text)

    def flush(self, out: list[FieldEvent]) -> None:
        """Append the value so far, if it has grown by a tenth."""
        if self._size < self._next:
            return
        self._next = grown(self._size)
        try:
            value = self._value()
            same = value == self._sent
        except RecursionError:
            return
        if not same:
            self._sent = value
            out.append(FieldValue(self._field, value))

    def close(self, out: list[FieldEvent]) -> None:
        """Append the complete value, unless it is nested too deeply for anybody."""
        try:
            out.append(FieldValue(self._field, self._value(), True))
        except RecursionError:
            return

    def _value(self) -> Any:
        if len(self._roots) > 1:
            return [root.value() for root in self._roots]
        value = self._roots[0].value()
        return [] if value == "" else value
