"""A run on a terminal, in a pipe, or as JSON Lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from dspy_live.core.events import Event, Partial, Predicted, Reasoning, Restart, Started, Status, Token, Tool
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.payload import payload


def show_outputs(outputs: Mapping[str, Any], out: TextIO) -> None:
    """Print a single output bare, several as ``name: value``."""
    if len(outputs) == 1:
        print(_text(next(iter(outputs.values()))), file=out)
        return
    for name, value in outputs.items():
        print(f"{name}: {_text(value)}", file=out)


def show_json(outputs: Mapping[str, Any], out: TextIO) -> None:
    """Print the outputs as one JSON object on one line."""
    print(dumps(outputs).decode(), file=out)


class JsonLines:
    """Every event as one line: ``{"event": NAME, …}`` with the fields that the server's streams have."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, event: Event) -> None:
        """Print one event."""
        name, data = payload(event)
        print(dumps({"event": name, **data}).decode(), file=self._out, flush=True)

    def end(self) -> None:
        """Nothing is left to say: the last event was the end."""


class Terminal:
    """Tokens as they come. A heading names the field where a program streams more than one.

    Args:
        schema: the program's; one with a single output gets no headings.
        out: where the tokens and the outputs go.
        notes: where status, tool calls and reasoning go; ``None`` leaves them out.
    """

    def __init__(self, schema: Schema, out: TextIO, notes: TextIO | None = None) -> None:
        self._out = out
        self._notes = notes
        self._only = schema.outputs[0].name if len(schema.outputs) == 1 else None
        self._speaking: tuple[str, str, int] | None = None
        self._said: dict[str, str] = {}
        self._at_start = True

    def show(self, event: Event) -> None:
        """Print what of one event is for people."""
        match event:
            case Token():
                self._token(event)
            case Partial(final=True):
                self._said[event.field] = _text(event.value)
                self._line(f"{self._label(event.field)}{_text(event.value)}")
            case Restart():
                self._line(f"[begun again: {event.reason}]")
                self._speaking = None
            case Predicted():
                self._outputs(event.outputs)
            case Status() | Tool() | Reasoning() | Started():
                self._note(event)
            case _:
                pass

    def end(self) -> None:
        """Close the last line."""
        if not self._at_start:
            print(file=self._out, flush=True)
            self._at_start = True

    def _token(self, token: Token) -> None:
        speaker = (token.predictor, token.field, token.lm_call)
        if speaker != self._speaking:
            self.end()
            self._speaking = speaker
            self._said[token.field] = ""
            self._write(self._label(token.field))
        self._said[token.field] += token.text
        self._write(token.text)

    def _label(self, field: str) -> str:
        # Bare where it is all that there is to read: intermediate fields of other predictors have names.
        bare = field == self._only and not any(name != field for name in self._said)
        return "" if bare else f"{field}: "

    def _outputs(self, outputs: Mapping[str, Any]) -> None:
        for name, value in outputs.items():
            if self._said.get(name) != _text(value):
                self._line(f"{self._label(name)}{_text(value)}")

    def _line(self, text: str) -> None:
        self.end()
        print(text, file=self._out, flush=True)
        self._speaking = None

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._at_start = text.endswith("\n")

    def _note(self, event: Status | Tool | Reasoning | Started) -> None:
        if self._notes is None:
            return
        if isinstance(event, Status):
            print(f"[{event.message}]", file=self._notes, flush=True)
        elif isinstance(event, Tool):
            shown = event.arguments if event.stage == "call" else event.result
            print(f"[{event.name} {event.stage}: {_text(shown)}]", file=self._notes, flush=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode()
