"""A chat-completions stream: bytes at any chunking to deltas, and to one whole reply at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from itertools import groupby
from typing import Any, TypeAlias

import orjson

from dspy_live.sansio.lines import BOM, LINE_LIMIT, LineSplitter, LineTooLong
from dspy_live.sansio.openai.assembly import Assembly
from dspy_live.sansio.openai.delta import Delta
from dspy_live.sansio.openai.errors import MalformedReply, ReplyError, StreamCut, plain_text
from dspy_live.sansio.openai.reply import parse_reply, reply_deltas
from dspy_live.sansio.openai.template import NOTHING, Template, inside, learn

Cut: TypeAlias = Callable[[bytes, int, bytes, bytes], tuple[int, int, str]]
"""``cut(data, at, prefix, ending)`` takes the events from ``at`` on that are ``prefix``, a JSON string's inside and
``ending``; it returns where the first other one begins, how many they were, and their texts, joined and unescaped."""


class StreamParser:
    """Parse one stream. Feed it all bytes, then :meth:`finish`, then :meth:`reply`.

    Cost is linear in the bytes, at any chunking. A chunk that differs from the one before in its text
    alone, as nearly all do, is not parsed as JSON again: its text is cut out. A server that answers
    with one plain JSON reply instead of a stream is understood, too; its deltas come from :meth:`finish`.

    Args:
        n: how many choices were asked for.
        merge: join neighbouring deltas of one kind and choice that come in one :meth:`feed`.
        cut: cuts texts out of events, where a faster way than ours is at hand; used with ``merge``.

    After a :class:`ReplyError` the parser is of no further use.
    """

    def __init__(self, *, n: int = 1, merge: bool = True, cut: Cut | None = None) -> None:
        self._merge = merge
        self._cut = cut if merge else None
        self._assembly = Assembly(n)
        self._whole: dict[str, Any] | None = None  # a plain reply that came instead of a stream
        self._started = False
        self._plain = False
        self._blank = b""  # what came before the first byte that says what this is
        self._lines = LineSplitter()
        self._held: list[bytes] = []  # data lines of an event that is not one line of JSON, or a plain reply
        self._held_size = 0
        self._template = NOTHING
        self._write: Callable[[str], object] = StringIO().write  # collects the reply's texts of the template's kind
        self._learned = 0  # how many chunks there were when the template was learned
        self._misses = 0
        self._patience = 1

    def feed(self, data: bytes) -> list[Delta]:
        """Take the next bytes and return what they add, in order.

        Raises :class:`ProviderFailed` for an error object and :class:`MalformedReply` for what is no
        stream; the error's ``deltas`` are what came before it in ``data``.
        """
        template = self._template
        # One whole event, and of the pattern: what a paced stream brings nearly every time.
        if data.startswith(template.prefix) and data.endswith(template.ending) and template is not NOTHING:
            text = inside(data[template.cut : -len(template.ending)])
            if text is not None and not self._lines.size and len(data) >= template.length + 2:
                self._assembly.chunks += 1
                self._write(text)
                return [Delta(template.kind, text, template.index)] if text else []
        out: list[Delta] = []
        if self._assembly.ended:
            return out
        if not self._started:
            data = self._start(data)
        if self._plain:
            self._hold(data)
            return out
        try:
            if self._cut is None:
                self._take(self._lines.feed(data), out)
            else:
                self._take_events(self._cut, data, out)
        except LineTooLong:
            raise _too_large() from None
        except ReplyError as exc:
            exc.deltas = self._merged(out)
            raise
        return self._merged(out)

    def finish(self) -> list[Delta]:
        """Take the end of the bytes; return what a last line without a line end still adds.

        Raises :class:`StreamCut` when the reply is not complete.
        """
        if self._plain:
            self._whole = parse_reply(b"".join(self._held))
            return reply_deltas(self._whole)
        out: list[Delta] = []
        if not self._assembly.ended:
            try:
                last = self._lines.rest()
                if last:
                    self._line(last, out)
                self._dispatch(out)
            except MalformedReply:
                if not self._assembly.complete:
                    raise StreamCut("the stream was cut in the middle of a chunk") from None
        self._assembly.check()
        return self._merged(out)

    def reply(self) -> dict[str, Any]:
        """Return the whole reply, shaped as a ``chat.completion``. ``usage`` is ``None`` where none came.

        Raises :class:`StreamCut` before the end, :class:`MalformedReply` for a stream without any choice.
        """
        return self._assembly.reply() if self._whole is None else self._whole

    def pattern(self) -> tuple[bytes, bytes] | None:
        """Return what stands before and after the text in each event of the first choice's words, with the two quotes
        and the blank line; ``None`` where no pattern is known, or an event has begun and not ended."""
        template = self._template
        if template is NOTHING or template.kind != "text" or template.index or self._lines.size or self._held:
            return None
        return template.prefix, template.ending

    def passed(self, text: str, chunks: int) -> None:
        """Take the text of ``chunks`` events of the pattern that were read elsewhere."""
        self._assembly.chunks += chunks
        self._write(text)

    @property
    def chunks(self) -> int:
        """How many chunks with choices have come."""
        return self._assembly.chunks

    @property
    def usage(self) -> dict[str, Any] | None:
        """The latest usage that the stream has reported, also of a stream that was cut."""
        return self._assembly.usage if self._whole is None else self._whole.get("usage")

    @property
    def done(self) -> bool:
        """True after ``[DONE]``: a reader need not wait for the connection's end."""
        return self._assembly.ended

    @property
    def complete(self) -> bool:
        """True when ``[DONE]`` or every choice's finish reason has come; usage may still follow the latter."""
        return self._whole is not None or self._assembly.complete

    # Events, where a run of the template's can be cut at once

    def _take_events(self, cut: Cut, data: bytes, out: list[Delta]) -> None:
        at, size = 0, len(data)
        assembly, lines, held = self._assembly, self._lines, self._held
        while at < size and not assembly.ended:
            template = self._template
            if lines.size or held:
                end = -1
            else:
                if template is not NOTHING:
                    at, events, text = cut(data, at, template.prefix, template.ending)
                    if events:
                        self.passed(text, events)
                        if text:
                            out.append(Delta(template.kind, text, template.index))
                        continue
                end = data.find(b"\n\n", at)
            line = b"" if end < 0 else data[at:end]
            if not line or b"\n" in line or b"\r" in line:
                at = self._take_lines(data, at, out)
                continue
            if line.startswith(b"data: {"):
                self._payload(line, line[6:], out)
            else:
                self._line(line, out)
            if held:
                self._dispatch(out)
            at = end + 2

    def _take_lines(self, data: bytes, at: int, out: list[Delta]) -> int:
        """Take the lines of an event that is not one line, or not whole; return where the next one begins."""
        end = data.find(b"\n\n", at) + 2
        if end < 2:
            end = len(data)
        self._take(self._lines.feed(data[at:end]), out)
        return end

    # Lines

    def _take(self, lines: list[bytes], out: list[Delta]) -> None:
        template = self._template
        prefix, suffix, cut, end, length = template.bounds()
        run: list[str] = []  # texts of the template, one after the other
        for line in lines:
            if not line and not self._held:
                continue
            if line.startswith(prefix) and line.endswith(suffix) and len(line) >= length:
                text = inside(line[cut:end])
                if text is not None:
                    run.append(text)
                    continue
            self._add_run(template, run, out)
            run = []
            if line:
                self._line(line, out)
                if self._assembly.ended:
                    return
            else:
                self._dispatch(out)
            template = self._template
            prefix, suffix, cut, end, length = template.bounds()
        self._add_run(template, run, out)

    def _add_run(self, template: Template, run: list[str], out: list[Delta]) -> None:
        if run:
            self._assembly.chunks += len(run)
            joined = "".join(run)
            self._write(joined)
            texts = (joined,) if self._merge else run
            out.extend([Delta(template.kind, text, template.index) for text in texts if text])

    def _line(self, line: bytes, out: list[Delta]) -> None:
        name, colon, value = line.partition(b":")
        if name == b"data" and colon:
            payload = value[1:] if value[:1] == b" " else value
            if payload[:1] == b"[" and payload.strip() == b"[DONE]":
                self._dispatch(out)
                self._assembly.ended = True
                self._template = NOTHING
            elif self._held:
                self._hold(payload)
            elif payload and not payload.isspace():
                self._payload(line, payload, out)
        elif name == b"error" and value.strip()[:1] in (b"{", b'"'):  # no field of SSE, but some servers send it
            self._assembly.add({"error": _loads(value)}, out)

    def _payload(self, line: bytes, payload: bytes, out: list[Delta]) -> None:
        try:
            chunk = orjson.loads(payload)
        except ValueError:
            # Perhaps an event of several lines, or half of a surrogate pair: the blank line will show.
            self._hold(payload)
            return
        before = len(out)
        self._assembly.add(chunk, out)
        self._misses += 1
        if len(out) > before and self._misses >= self._patience:  # nothing is learned of a chunk without text
            self._learn(line, chunk)

    def _learn(self, line: bytes, chunk: dict[str, Any]) -> None:
        """Replace the template. One that was of little use makes the next wait longer: some streams have no pattern."""
        template = learn(line, chunk)
        if template is None:
            return
        hits = self._assembly.chunks - self._learned - self._misses
        self._patience = 1 if hits > 4 else min(self._patience * 2, 1024)
        self._template = template
        self._write = self._assembly.writer(template.index, template.kind)
        self._learned, self._misses = self._assembly.chunks, 0

    def _dispatch(self, out: list[Delta]) -> None:
        """A blank line: what was held must be a whole event now."""
        if self._held:
            payload = b"\n".join(self._held)
            self._held.clear()
            self._held_size = 0
            self._assembly.add(_loads(payload), out)

    def _hold(self, payload: bytes) -> None:
        self._template = NOTHING
        self._held.append(payload)
        self._held_size += len(payload)
        if self._held_size > LINE_LIMIT:
            raise _too_large()

    def _start(self, data: bytes) -> bytes:
        """See from the first byte that is not blank whether this is a stream or a plain reply."""
        if not self._blank and data.startswith(b"data:"):
            self._started = True
            return data
        data = self._blank + data
        text = data.removeprefix(BOM).lstrip()
        self._started = bool(text) and not (len(data) < len(BOM) and BOM.startswith(data))
        self._plain = self._started and text[:1] in (b"{", b"[", b"<")
        self._blank = b"" if self._started else data[-64:]
        return data if self._started else b""

    def _merged(self, out: list[Delta]) -> list[Delta]:
        if not self._merge or len(out) < 2:
            return out
        kinds = {(delta.kind, delta.index) for delta in out}
        if len(kinds) == 1 and (first := out[0]).kind != "tool":
            return [Delta(first.kind, "".join([delta.text for delta in out]), first.index)]
        merged: list[Delta] = []
        for _, group in groupby(out, key=_run_of):
            run = list(group)
            first = run[0]
            merged.append(first if len(run) == 1 else Delta(first.kind, "".join(d.text for d in run), first.index))
        return merged


def _run_of(delta: Delta) -> object:
    return id(delta) if delta.kind == "tool" else (delta.kind, delta.index)


def _too_large() -> MalformedReply:
    return MalformedReply(f"one event of the stream is larger than {LINE_LIMIT >> 20} MB")


def _loads(payload: bytes) -> Any:
    """Parse what orjson refuses: halves of surrogate pairs, and bytes that are not UTF-8, which become U+FFFD."""
    try:
        return orjson.loads(payload)
    except ValueError:
        try:
            return json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise MalformedReply(f"a chunk of the stream is not JSON: {plain_text(payload[:800])[:200]}") from None
