"""A chat-completions stream: bytes at any chunking to deltas, and to one whole reply at the end."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import orjson

from dspy_live.sansio.lines import BOM, LINE_LIMIT, LineSplitter, LineTooLong
from dspy_live.sansio.openai.choice import Choice
from dspy_live.sansio.openai.delta import Delta
from dspy_live.sansio.openai.errors import MalformedReply, ReplyError, StreamCut, failure_of, plain_text
from dspy_live.sansio.openai.reply import parse_reply, reply_deltas
from dspy_live.sansio.openai.template import NOTHING, Template, learn

_FIRST_STAYS = frozenset({"id", "created", "model"})
_NOT_TOP = frozenset({"choices", "usage", "object", "error", "obfuscation"})


class StreamParser:
    """Parse one stream. Feed it all bytes, then :meth:`finish`, then :meth:`reply`.

    Cost is linear in the bytes, at any chunking. A chunk that differs from the one before in its text
    alone, as nearly all do, is not parsed as JSON again: its text is cut out. A server that answers
    with one plain JSON reply instead of a stream is understood, too; its deltas come from :meth:`finish`.

    Args:
        n: how many choices were asked for.
        merge: join neighbouring deltas of one kind and choice that come in one :meth:`feed`.

    Attributes:
        chunks: how many chunks with choices came.
        done: true after ``[DONE]``; what follows it is ignored.
    """

    def __init__(self, *, n: int = 1, merge: bool = True) -> None:
        self.chunks = 0
        self.done = False
        self._n = n
        self._merge = merge
        self._choices: dict[int, Choice] = {}
        self._top: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._whole: dict[str, Any] | None = None  # a plain reply that came instead of a stream
        self._started = False
        self._plain = False
        self._blank = b""  # what came before the first byte that says what this is
        self._lines = LineSplitter()
        self._held: list[bytes] = []  # data lines of an event that is not one line of JSON, or a plain reply
        self._held_size = 0
        self._template = NOTHING
        self._hits = 0
        self._misses = 0
        self._patience = 1

    def feed(self, data: bytes) -> list[Delta]:
        """Take the next bytes and return what they add, in order.

        Raises :class:`ProviderFailed` for an error object and :class:`MalformedReply` for what is no
        stream; the error's ``deltas`` are what came before it in ``data``.
        """
        out: list[Delta] = []
        if self.done:
            return out
        if not self._started:
            data = self._start(data)
        if self._plain:
            self._hold(data)
            return out
        try:
            self._take(self._lines.feed(data), out)
        except LineTooLong:
            raise _too_large() from None
        except ReplyError as exc:
            exc.deltas = self._merged(out)
            raise
        return out if len(out) < 2 else self._merged(out)

    def finish(self) -> list[Delta]:
        """Take the end of the bytes; return what a last line without a line end still adds.

        Raises :class:`StreamCut` when the reply is not complete.
        """
        if self._plain:
            self._whole = parse_reply(b"".join(self._held))
            return reply_deltas(self._whole)
        out: list[Delta] = []
        if not self.done:
            try:
                last = self._lines.rest()
                if last:
                    self._line(last, out)
                self._dispatch(out)
            except MalformedReply:
                raise StreamCut("the stream was cut in the middle of a chunk") from None
        self._check_complete()
        return self._merged(out)

    def reply(self) -> dict[str, Any]:
        """Return the whole reply, shaped as a ``chat.completion``. ``usage`` is ``None`` where none came.

        Raises :class:`StreamCut` before the end, :class:`MalformedReply` for a stream without any choice.
        """
        if self._whole is not None:
            return self._whole
        self._check_complete()
        return {
            **self._top,
            "object": "chat.completion",
            "choices": [self._choices[index].finished() for index in sorted(self._choices)],
            "usage": self._usage,
        }

    @property
    def usage(self) -> dict[str, Any] | None:
        """The latest usage that the stream has reported, also of a stream that was cut."""
        return self._usage

    @property
    def complete(self) -> bool:
        """True when ``[DONE]`` or every choice's finish reason has come; usage may still follow the latter."""
        return (
            self.done
            or self._whole is not None
            or (len(self._choices) >= self._n and all(c.finish_reason for c in self._choices.values()))
        )

    # Lines

    def _take(self, lines: list[bytes], out: list[Delta]) -> None:
        template = self._template
        prefix, suffix, cut, end, length = template.bounds
        run: list[str] = []  # texts of the template, one after the other
        for line in lines:
            if line.startswith(prefix) and line.endswith(suffix) and len(line) >= length:
                raw = line[cut:end]
                if b'"' not in raw and b"\\" not in raw:
                    try:
                        run.append(raw.decode())
                        continue
                    except UnicodeDecodeError:
                        pass
            if line:
                if run:
                    self._add_run(template, run, out)
                self._line(line, out)
                if self.done:
                    return
                template = self._template
                prefix, suffix, cut, end, length = template.bounds
            elif self._held:
                self._dispatch(out)
                template = self._template
                prefix, suffix, cut, end, length = template.bounds
        if run:
            self._add_run(template, run, out)

    def _add_run(self, template: Template, run: list[str], out: list[Delta]) -> None:
        self.chunks += len(run)
        self._hits += len(run)
        choice = self._choices[template.index]
        if template.kind == "text":
            choice.texted = True
            parts = choice.text
        else:
            parts = choice.reasoning
        for text in ("".join(run),) if self._merge else run:
            if text:
                parts.append(text)
                out.append(Delta(template.kind, text, template.index))
        run.clear()

    def _line(self, line: bytes, out: list[Delta]) -> None:
        name, colon, value = line.partition(b":")
        if name == b"data" and colon:
            payload = value[1:] if value[:1] == b" " else value
            if payload.strip() == b"[DONE]":
                self._dispatch(out)
                self.done = True
            elif self._held:
                self._hold(payload)
            elif payload.strip():
                self._payload(line, payload, out)
        elif name == b"error" and value.strip()[:1] in (b"{", b'"'):  # not SSE, but some servers say it so
            self._chunk({"error": _loads(value)}, out)

    def _payload(self, line: bytes, payload: bytes, out: list[Delta]) -> None:
        try:
            chunk = orjson.loads(payload)
        except ValueError:
            # Perhaps an event of several lines, or half of a surrogate pair: the blank line will show.
            self._hold(payload)
            return
        self._chunk(chunk, out)
        self._misses += 1
        if self._misses >= self._patience:
            self._learn(line, chunk)

    def _learn(self, line: bytes, chunk: dict[str, Any]) -> None:
        """Replace the template. One that was of little use makes the next wait longer: some streams have no pattern."""
        template = learn(line, chunk)
        if template is None or not self._choices[template.index].whole:
            return
        self._patience = 1 if self._hits > 4 else min(self._patience * 2, 1024)
        self._template = template
        self._hits = self._misses = 0

    def _hold(self, payload: bytes) -> None:
        self._held.append(payload)
        self._held_size += len(payload)
        if self._held_size > LINE_LIMIT:
            raise _too_large()

    def _dispatch(self, out: list[Delta]) -> None:
        """A blank line: what was held must be a whole event now."""
        if self._held:
            payload = b"\n".join(self._held)
            self._held.clear()
            self._held_size = 0
            self._template = NOTHING
            self._chunk(_loads(payload), out)

    # Chunks

    def _chunk(self, chunk: Any, out: list[Delta]) -> None:
        if not isinstance(chunk, dict):
            raise MalformedReply(f"a chunk of the stream is not an object: {plain_text(orjson.dumps(chunk)[:200])}")
        if chunk.get("error") or chunk.get("object") == "error":
            raise failure_of(chunk)
        self._read_top(chunk)
        usage = chunk.get("usage")
        if usage:
            self._usage = usage
        choices = chunk.get("choices")
        if choices:
            self.chunks += 1
            for choice in choices:
                self._choice(choice, out)

    def _choice(self, wire: Any, out: list[Delta]) -> None:
        if not isinstance(wire, dict):
            raise MalformedReply("a choice in the stream is not an object")
        index = wire.get("index") or 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = Choice(index)
        delta = wire.get("delta") or wire.get("message")
        if delta:
            choice.take(delta, out)
        if wire.get("logprobs"):
            choice.add_logprobs(wire["logprobs"])
        if wire.get("finish_reason"):
            if wire["finish_reason"] == "error" and wire.get("error"):
                raise failure_of(wire)
            choice.finish_reason = wire["finish_reason"]

    def _read_top(self, chunk: dict[str, Any]) -> None:
        """Keep the first id, model and time of creation, and the latest of all else around the choices."""
        top = self._top
        for key, value in chunk.items():
            if value and key not in _NOT_TOP and (key not in _FIRST_STAYS or key not in top):
                top[key] = value
        groq = top.get("x_groq")
        if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
            self._usage = groq["usage"]

    # Buffers and the end

    def _start(self, data: bytes) -> bytes:
        """See from the first byte that is not blank whether this is a stream or a plain reply."""
        data = self._blank + data
        text = data.removeprefix(BOM).lstrip()
        self._started = bool(text) and not (len(data) < len(BOM) and BOM.startswith(data))
        self._plain = self._started and text[:1] in (b"{", b"[", b"<")
        self._blank = b"" if self._started else data[-64:]
        return data if self._started else b""

    def _merged(self, out: list[Delta]) -> list[Delta]:
        if not self._merge:
            return out
        merged: list[Delta] = []
        for _, group in groupby(out, key=_run_of):
            run = list(group)
            first = run[0]
            merged.append(first if len(run) == 1 else Delta(first.kind, "".join(d.text for d in run), first.index))
        return merged

    def _check_complete(self) -> None:
        if not self.complete:
            what = f"after {self.chunks} chunks" if self.chunks else "before its first chunk"
            raise StreamCut(f"the stream ended {what}, without a finish reason or [DONE]")
        if not self._choices and self._whole is None:
            raise MalformedReply("the stream ended without any choice")


def _run_of(delta: Delta) -> object:
    return delta if delta.kind == "tool" else (delta.kind, delta.index)


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
