"""One chat completion on OpenAI's wire: as a whole object and as the frames of a stream. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from dspy_live.simulator.answer import Reply, reply
from dspy_live.simulator.options import Options
from dspy_live.simulator.tokens import cost, count, count_prompt, pieces

DONE = b"data: [DONE]\n\n"


class Frame(NamedTuple):
    """One server-sent event, and the tokens that it carries (0 for a role, an end or usage)."""

    data: bytes
    tokens: int


class _Part(NamedTuple):
    """A token of one choice: its key in the delta and its text."""

    key: str
    text: str
    cost: int


class Completion:
    """The reply to one request. Read it once: by :meth:`frames` or by :meth:`whole`."""

    def __init__(
        self,
        body: Mapping[str, Any],
        options: Options,
        *,
        ident: str,
        created: int,
        seed: int = 0,
        variation: int = 0,
    ) -> None:
        self._body = body
        self._options = options
        self.ident = ident
        self.created = created
        self.model = str(body.get("model") or "simulated")
        self.prompt_tokens = count_prompt(body.get("messages") or (), body.get("tools") or ())
        self.completion_tokens = 0
        """Tokens that were read from this completion so far."""
        self.reasoning_tokens = 0
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        self._limit = int(limit) if limit else None
        self._choices = [self._reply(seed, variation, index) for index in range(int(body.get("n") or 1))]
        self._cut: set[int] = set()

    def _reply(self, seed: int, variation: int, index: int) -> Reply:
        options = self._options
        if options.text is not None:
            return Reply(iter(pieces(options.text)))
        return reply(
            self._body,
            seed=seed,
            variation=variation,
            index=index,
            length=options.length,
            size=options.size,
            reasoning=options.reasoning,
            fault=options.fault,
        )

    @property
    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object for what was read so far."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    def _parts(self, index: int) -> Iterator[_Part]:
        """The tokens of one choice up to the request's limit; remembers when the limit cut it."""
        made = self._choices[index]
        used = 0
        for key, tokens in (("reasoning_content", made.reasoning), ("content", made.tokens)):
            for token in tokens:
                price = cost(token)
                if self._limit is not None and used + price > self._limit:
                    self._cut.add(index)
                    return
                used += price
                self.completion_tokens += price
                self.reasoning_tokens += price if key == "reasoning_content" else 0
                yield _Part(key, token, price)
        for call in made.tool_calls:
            self.completion_tokens += count(call.name) + count(call.arguments)

    def _finish(self, index: int) -> str:
        return "length" if index in self._cut else self._choices[index].finish_reason

    def texts(self) -> Iterator[str]:
        """The tokens of the first choice's text."""
        return (part.text for part in self._parts(0) if part.key == "content")

    # The stream ---------------------------------------------------------------------------------

    def frames(self) -> Iterator[Frame]:
        """The stream's frames: roles, tokens (choices take turns), tool calls, ends; without usage and ``[DONE]``."""
        indexes = range(len(self._choices))
        for index in indexes:
            yield self._frame({"role": "assistant", "content": ""}, index)
        streams = {index: self._texts(index) for index in indexes}
        while streams:
            for index in list(streams):
                frame = next(streams[index], None)
                if frame is None:
                    del streams[index]
                else:
                    yield frame
        for index in indexes:
            yield from self._call_frames(index)
            yield self._frame({}, index, self._finish(index))

    def _texts(self, index: int) -> Iterator[Frame]:
        """Frames of one choice's text, built around the token: this is the hot path."""
        head = self._head() + b'"choices":[{"index":%d,"delta":{"' % index
        tail = b'},"logprobs":null,"finish_reason":null}]}\n\n'
        dumps = orjson.dumps
        chunk = self._options.chunk
        key, held, tokens = "content", "", 0
        for number, part in enumerate(self._parts(index), 1):
            if self._body.get("logprobs"):
                yield self._frame({part.key: part.text}, index, None, part.cost, _logprobs(part.text))
            elif chunk == 1:
                yield Frame(b'%b%b":%b%b' % (head, part.key.encode(), dumps(part.text), tail), part.cost)
            else:
                if held and part.key != key:
                    yield self._frame({key: held}, index, None, tokens)
                    held, tokens = "", 0
                key, held, tokens = part.key, held + part.text, tokens + part.cost
                if number % chunk == 0:
                    yield self._frame({key: held}, index, None, tokens)
                    held, tokens = "", 0
        if held:
            yield self._frame({key: held}, index, None, tokens)

    def _call_frames(self, index: int) -> Iterator[Frame]:
        for place, call in enumerate(self._choices[index].tool_calls):
            named = {"name": call.name, "arguments": ""}
            first = {"index": place, "id": call.id, "type": "function", "function": named}
            yield self._frame({"tool_calls": [first]}, index, None, count(call.name))
            for text in pieces(call.arguments):
                yield self._frame({"tool_calls": [{"index": place, "function": {"arguments": text}}]}, index, None, 1)

    def _head(self) -> bytes:
        return b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            orjson.dumps(self.ident),
            self.created,
            orjson.dumps(self.model),
        )

    def _frame(
        self, delta: Mapping[str, Any], index: int, finish: str | None = None, tokens: int = 0, logprobs: Any = None
    ) -> Frame:
        choices = [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]
        return Frame(self._head() + b'"choices":' + orjson.dumps(choices) + b"}\n\n", tokens)

    def usage_frame(self) -> Frame:
        """The last frame where ``stream_options.include_usage`` was asked for."""
        return Frame(self._head() + b'"choices":[],"usage":' + orjson.dumps(self.usage) + b"}\n\n", 0)

    # The whole ----------------------------------------------------------------------------------

    def whole(self) -> dict[str, Any]:
        """The ``chat.completion`` object. Usage stands in it as :attr:`usage`."""
        choices = [self._choice(index) for index in range(len(self._choices))]
        return {
            "id": self.ident,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": self.usage,
        }

    def _choice(self, index: int) -> dict[str, Any]:
        parts = list(self._parts(index))
        texts = {key: "".join(p.text for p in parts if p.key == key) for key in ("content", "reasoning_content")}
        calls = self._choices[index].tool_calls
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else texts["content"]}
        if texts["reasoning_content"]:
            message["reasoning_content"] = texts["reasoning_content"]
        if calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls
            ]
        logprobs = None
        if self._body.get("logprobs"):
            logprobs = {"content": [_logprobs(p.text)["content"][0] for p in parts if p.key == "content"]}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self._finish(index)}


def _logprobs(token: str) -> dict[str, Any]:
    """The smallest honest form: a sure token without rivals."""
    return {"content": [{"token": token, "logprob": -0.01, "bytes": list(token.encode()), "top_logprobs": []}]}
