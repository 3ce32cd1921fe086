"""XMLAdapter's format: one element per field, anything around them.

DSPy reads the whole reply with ElementTree, which is expat; this parser is expat too, so that
entities, CDATA, comments and what is well-formed at all are the same. A text is stripped, unless
the element has children: then it is kept as it is and the children are written out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.parsers import expat

from dspy_live.sansio.fields.base import FieldEvent, FieldSpec, FieldText, PlainText
from dspy_live.sansio.fields.sinks import ScalarSink, TextSink, ended, texts
from dspy_live.sansio.fields.xml_values import TreeSink

# Until a tag, a comment or an entity is this long, in bytes, expat looks at it again with every chunk.
_SHORT = 256
# The depth of a field's element, under the root that DSPy puts around the reply.
_FIELD = 2


class XmlParser:
    """The parser of a sequence of elements. It holds back white space and unfinished markup."""

    __slots__ = (
        *("_child", "_depth", "_expat", "_fast", "_given", "_lead", "_mixed", "_out", "_scalar", "_seen", "_silent"),
        *("_specs", "_text", "_texts", "_tree", "_trees", "_wait", "_waiting", "_waiting_size"),
    )

    def __init__(self, fields: Sequence[FieldSpec]) -> None:
        self._specs = {spec.name: spec for spec in fields}
        self._seen: set[str] = set()
        self._texts: list[TextSink] = []
        self._trees: dict[str, TreeSink] = {}
        self._out: list[FieldEvent] = []
        self._silent = False
        self._depth = 0
        # The field that is open is in one of these.
        self._text: TextSink | None = None
        self._scalar: ScalarSink | None = None
        self._tree: TreeSink | None = None
        # Of an open text: its white space at the beginning, whether it has children, the open child.
        self._lead: list[str] = []
        self._mixed = False
        self._child: ElementTree.TreeBuilder | None = None
        # The open text while expat has nothing unfinished, so that plain text may pass it by.
        self._fast: TextSink | None = None
        self._given = 0
        self._waiting: list[str] = []
        self._waiting_size = 0
        self._wait = 0
        self._expat = expat.ParserCreate("utf-8", "}")
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._data
        if hasattr(self._expat, "SetReparseDeferralEnabled"):
            self._expat.SetReparseDeferralEnabled(False)  # this parser waits by itself, and less
        self._parse("<dspy_root>")

    def feed(self, text: str) -> list[FieldEvent]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        sink = self._fast
        if (
            sink is not None
            and text.isprintable()
            and text[-1:] > " "
            and "<" not in text
            and "&" not in text
            and "]" not in text
        ):
            if sink.held:
                text = "".join(sink.held) + text
                sink.held = []
            sink.write(text)
            return [FieldText(sink.field, text)]
        if self._silent or not text:
            return []
        self._waiting.append(text)
        self._waiting_size += len(text)
        if self._waiting_size < self._wait:
            return []
        text = "".join(self._waiting)
        self._waiting, self._waiting_size = [], 0
        self._parse(text)
        return self._flush()

    def finish(self) -> list[FieldEvent]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        if not self._silent:
            self._parse("".join(self._waiting) + "</dspy_root>", last=True)
        out = self._flush()
        if not self._silent:
            for tree in self._trees.values():
                tree.close(out)
        # The handlers are this object's: without them nothing waits for the garbage collector.
        self._expat.StartElementHandler = self._expat.EndElementHandler = self._expat.CharacterDataHandler = None
        self._silent, self._fast = True, None
        return out

    def plain(self) -> PlainText | None:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        sink = self._fast
        return None if sink is None or sink.held else PlainText(sink.field, sink.write, stop=b"<&]", escapes=True)

    def texts(self) -> dict[str, str]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        return texts(self._texts)

    def ended(self) -> frozenset[str]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        return ended(self._texts)

    def _parse(self, text: str, *, last: bool = False) -> None:
        try:
            data = text.encode()
            self._expat.Parse(data, last)
        except (expat.ExpatError, UnicodeEncodeError, RecursionError):
            self._silent = True
            return
        self._given += len(data)
        # Reading an unfinished tag again only when it has doubled keeps the cost linear.
        left = self._given - self._expat.CurrentByteIndex
        self._wait = left if left > _SHORT else 0
        plain = left == 0 and self._depth == _FIELD and not self._mixed
        self._fast = self._text if plain and self._text is not None and self._text.started else None

    def _flush(self) -> list[FieldEvent]:
        out, self._out = self._out, []
        if self._text is not None:
            if self._mixed:
                self._text.release()
            self._text.flush(out)
        elif self._tree is not None:
            self._tree.flush(out)
        if self._silent:
            self._fast = None
        return out

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == _FIELD:
            self._open(attributes.get("key", name) if name == "entry" else name)
        elif self._text is not None:
            if self._child is None:
                if not self._mix():
                    return
                self._child = ElementTree.TreeBuilder()
            self._child.start(_full(name), {_full(key): value for key, value in attributes.items()})
        elif self._tree is not None:
            self._tree.start(attributes.get("key", name) if name == "entry" else name)
        elif self._depth > _FIELD:
            self._scalar = None  # a scalar with elements in it is none

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth < _FIELD:
            self._close()
        elif self._tree is not None:
            self._tree.end()
        elif self._child is not None:
            self._child.end(_full(name))
            if self._depth == _FIELD and self._text is not None:
                self._text.push(ElementTree.tostring(self._child.close(), encoding="unicode"))
                self._child = None

    def _data(self, text: str) -> None:
        if self._tree is not None:
            self._tree.data(text)
        elif self._scalar is not None:
            self._scalar.push(text)
        elif self._child is not None:
            self._child.data(text)
        elif self._text is not None:
            if self._mixed:
                text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            elif not self._text.started:
                body = text.lstrip()
                if len(body) != len(text):
                    self._lead.append(text[: len(text) - len(body)])
            self._text.push(text)

    def _mix(self) -> bool:
        """The open text has a child, so it is not stripped after all. False if that is known too late."""
        sink = self._text
        assert sink is not None
        if not self._mixed:
            if not sink.put_first("".join(self._lead)):
                self._text = None
                return False
            sink.release()
            self._mixed = True
        return True

    def _open(self, name: str) -> None:
        spec = self._specs.get(name)
        self._lead, self._mixed, self._child = [], False, None
        if spec is None:
            return
        if spec.kind == "container":
            self._tree = self._trees.setdefault(name, TreeSink(name))
            self._tree.start(name)
        elif name not in self._seen:
            if spec.kind == "scalar":
                self._scalar = ScalarSink(spec)
            else:
                self._text = TextSink(name)
                self._texts.append(self._text)
        self._seen.add(name)

    def _close(self) -> None:
        if self._text is not None:
            if self._mixed:
                self._text.release()
            self._text.close(self._out)
        elif self._scalar is not None:
            self._scalar.close(self._out)
        elif self._tree is not None:
            self._tree.end()
            self._tree.flush(self._out)
        self._text = self._scalar = self._tree = None


def _full(name: str) -> str:
    """Return a name as ElementTree has it: with a brace on both sides of its namespace."""
    return "{" + name if "}" in name else name
