"""AG-UI 1.0 (https://docs.ag-ui.com): a run as the events of an agent, in server-sent events.

The program's text is an assistant's message; text that turns out to be void is taken back by a snapshot of the
messages without it. The other outputs are the agent's state, one key each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from dspy_live.core.errors import Cancelled, LiveError
from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Predicted,
    Reasoning,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.front import REASONING, ReasoningText
from dspy_live.server.encoders.json import dumps, text
from dspy_live.server.encoders.live_text import LiveText
from dspy_live.server.errors import redacted
from dspy_live.server.runs.totals import RunTotals


@dataclass(frozen=True, slots=True)
class AgentInput:
    """What a client says of the run that it wants.

    Args:
        thread: its id of the conversation.
        run: its id of the run.
        messages: the conversation so far, as it sent it.
        state: the state that it shares with the agent.
        ignored: the places of what the program could not be told.
    """

    thread: str
    run: str
    messages: list[dict[str, Any]]
    state: Any
    ignored: list[str]


class AguiEncoder:
    """Encodes one run.

    Args:
        given: the client's input.
        run_id: our id of the run.
        schema: the program's.
        totals: the run's.
        hold: give the text out at the end only.
    """

    broken = False

    def __init__(
        self, given: AgentInput, run_id: str, schema: Schema, totals: RunTotals, *, hold: bool = False
    ) -> None:
        self._given = given
        self._run_id = run_id
        self._totals = totals
        self._outputs = {f.name for f in schema.outputs}
        self._text = LiveText(schema, hold=hold)
        self._reasoning = ReasoningText(schema)
        self._made: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None
        self._thought: dict[str, Any] | None = None
        self._ids = 0
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._started = self._shares_state = False

    def encode(self, event: Event) -> bytes:
        match event:
            case Started():
                return self._start()
            case Token():
                void, piece = self._text.token(event)
                if piece:
                    return (self._take_back() if void else b"") + self._delta(piece)
                return self._think(self._reasoning.piece(event))
            case Reasoning():
                return self._think(self._reasoning.piece(event))
            case Restart():
                end = self._end_reasoning()
                return end + self._take_back() if self._text.restart(event) else end
            case Partial(value, field):
                return self._share(field, value) if not self._outputs or field in self._outputs else b""
            case Tool():
                return self._end_reasoning() + self._tool(event)
            case Status(message, module, stage):
                return _event("CUSTOM", name="status", value={"message": message, "module": module, "stage": stage})
            case Custom(name, data):
                return _event("CUSTOM", name=name, value=data)
            case Usage() | TextDelta():
                return b""
            case _:
                assert_never(event)

    def finish(self, result: Predicted) -> bytes:
        made = self._start() + self._think(self._reasoning.rest(result)) + self._end_reasoning()
        void, rest = self._text.rest(result)
        if void:
            made += self._take_back()
        if rest:
            made += self._delta(rest)
        made += self._end_text()
        for name, value in result.outputs.items():
            if name != self._text.field and name != REASONING and len(result.outputs) > 1:
                made += self._share(name, value)
        return made + self._finished({"type": "success"}, result=result.outputs)

    def fail(self, error: LiveError) -> bytes:
        made = self._start() + self._end_reasoning() + self._end_text()
        if isinstance(error, Cancelled):
            return made + self._finished({"type": "cancelled"})
        return made + _event("RUN_ERROR", message=redacted(error.message), code=error.code, usage=self._usage())

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        made = _event("RUN_STARTED", threadId=self._given.thread, runId=self._given.run)
        if self._given.ignored:
            made += _event("CUSTOM", name="ignored", value=self._given.ignored)
        return made

    def _finished(self, outcome: dict[str, Any], **more: Any) -> bytes:
        ids = {"threadId": self._given.thread, "runId": self._given.run}
        return _event("RUN_FINISHED", **ids, outcome=outcome, usage=self._usage(), **more)

    def _usage(self) -> list[dict[str, Any]]:
        sums = self._totals.usage()
        names = {
            "inputTokens": "prompt_tokens",
            "outputTokens": "completion_tokens",
            "totalTokens": "total_tokens",
            "reasoningTokens": "reasoning_tokens",
            "cachedInputTokens": "cached_tokens",
        }
        return [{theirs: sums[ours] for theirs, ours in names.items()}]

    def _delta(self, piece: str) -> bytes:
        made = b""
        if self._message is None:
            made = self._end_reasoning()
            self._message = self._new("assistant", content="")
            made += _event("TEXT_MESSAGE_START", messageId=self._message["id"], role="assistant")
        self._pieces.append(piece)
        return made + _content(b"TEXT_MESSAGE_CONTENT", self._message["id"], piece)

    def _end_text(self) -> bytes:
        message, self._message = self._message, None
        if message is not None:
            message["content"], self._pieces = "".join(self._pieces), []
        return _event("TEXT_MESSAGE_END", messageId=message["id"]) if message is not None else b""

    def _take_back(self) -> bytes:
        message, made = self._message, self._end_reasoning() + self._end_text()
        self._made = [one for one in self._made if one is not message]
        return made + _event("MESSAGES_SNAPSHOT", messages=[*self._given.messages, *self._made])

    def _think(self, piece: str) -> bytes:
        if not piece:
            return b""
        made = b""
        if self._thought is None:
            self._thought = self._new("reasoning", content="")
            place = self._thought["id"]
            made = _event("REASONING_START", messageId=place)
            made += _event("REASONING_MESSAGE_START", messageId=place, role="reasoning")
        self._thoughts.append(piece)
        return made + _content(b"REASONING_MESSAGE_CONTENT", self._thought["id"], piece)

    def _end_reasoning(self) -> bytes:
        thought, self._thought = self._thought, None
        if thought is None:
            return b""
        thought["content"], self._thoughts = "".join(self._thoughts), []
        return _event("REASONING_MESSAGE_END", messageId=thought["id"]) + _event(
            "REASONING_END", messageId=thought["id"]
        )

    def _tool(self, tool: Tool) -> bytes:
        if tool.stage == "call":
            arguments = dumps(tool.arguments).decode()
            function = {"name": tool.name, "arguments": arguments}
            call = {"id": tool.id, "type": "function", "function": function}
            self._made.append({"id": tool.id, "role": "assistant", "toolCalls": [call]})
            made = _event("TOOL_CALL_START", toolCallId=tool.id, toolCallName=tool.name)
            made += _event("TOOL_CALL_ARGS", toolCallId=tool.id, delta=arguments)
            return made + _event("TOOL_CALL_END", toolCallId=tool.id)
        content = tool.result if isinstance(tool.result, str) else dumps(tool.result).decode()
        if tool.stage == "error":
            content = redacted(content)
        result = self._new("tool", toolCallId=tool.id, content=content)
        return _event("TOOL_CALL_RESULT", messageId=result["id"], toolCallId=tool.id, content=content, role="tool")

    def _share(self, field: str, value: Any) -> bytes:
        made = b""
        if not self._shares_state:
            self._shares_state = True
            state = self._given.state
            made = _event("STATE_SNAPSHOT", snapshot=state if isinstance(state, dict) else {})
        path = "/" + field.replace("~", "~0").replace("/", "~1")
        return made + _event("STATE_DELTA", delta=[{"op": "add", "path": path, "value": value}])

    def _new(self, role: str, **content: Any) -> dict[str, Any]:
        self._ids += 1  # no id is given again, whatever was taken back
        message = {"id": f"{self._run_id}-{self._ids}", "role": role, **content}
        self._made.append(message)
        return message


def _content(kind: bytes, message: str, piece: str) -> bytes:
    return b'data: {"type":"%b","messageId":"%b","delta":%b}\n\n' % (kind, message.encode(), text(piece))


def _event(kind: str, **content: Any) -> bytes:
    return b"data: %b\n\n" % dumps({"type": kind, **content})
