"""One run of a program on a terminal, in a pipe, or as JSON Lines: sinks that print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import Event, Partial, Predicted, Restart, Status, Token, Tool
from dspy_live.core.schema import Schema
from dspy_live.runtime.scope import Room, Scope
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.payload import payload


def print_outputs(outputs: Mapping[str, Any], out: TextIO) -> None:
    """Print a single output bare, several as ``name: value``."""
    if len(outputs) == 1:
        print(_text(next(iter(outputs.values()))), file=out)
        return
    for name, value in outputs.items():
        print(f"{name}: {_text(value)}", file=out)


def print_json(outputs: Mapping[str, Any], out: TextIO) -> None:
    """Print the outputs as one JSON object on one line."""
    print(dumps(outputs).decode(), file=out)


class Screen:
    """A sink that prints the events of one run; this one prints none.

    Printing that fails, as into a pipe that nobody reads, ends the run.

    Args:
        scope: of the run.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._room = Room()

    def push(self, event: Event) -> bool:
        if self._room.open:
            try:
                self.show(event)
            except Exception as exc:
                self.fail(exc)
        return self._room.open

    async def room(self) -> None:
        await self._room.wait()

    def fail(self, error: Exception) -> None:
        """End the run. There is no room from here on: a source that waits for it asks no LM again before the end."""
        self._scope.fail(error)
        self._room.set(False)

    def show(self, event: Event) -> None:
        """Print one event."""

    def finish(self, result: Predicted) -> None:
        """Print the result."""

    def close(self) -> None:
        """The run is over, well or not."""


class JsonLines(Screen):
    """Every event as one line: ``{"event": NAME, …}`` with the fields that the server's streams have."""

    def __init__(self, scope: Scope, out: TextIO) -> None:
        super().__init__(scope)
        self._out = out

    def show(self, event: Event) -> None:
        name, data = payload(event)
        self._line({"event": name, **data})

    def finish(self, result: Predicted) -> None:
        self._line({"event": "prediction", "outputs": result.outputs})

    def _line(self, data: Mapping[str, Any]) -> None:
        print(dumps(data).decode(), file=self._out, flush=True)


class Terminal(Screen):
    """Tokens as they come. A heading names the field where a program streams more than one.

    Words that are on the terminal can't be taken back. When the LM call that said them begins again, the run ends with
    :class:`StreamBroken`; when one of its fields is repaired, the rest of the field is held until the outputs say what
    it is.

    Args:
        scope: of the run.
        schema: the program's; one with a single output gets no headings.
        out: where the tokens and the outputs go.
        notes: where status messages and tool calls go; ``None`` leaves them out.
    """

    def __init__(self, scope: Scope, schema: Schema, out: TextIO, notes: TextIO | None = None) -> None:
        super().__init__(scope)
        self._out = out
        self._notes = notes
        self._only = schema.outputs[0].name if len(schema.outputs) == 1 else None
        self._source: tuple[str, str, int] | None = None
        self._printed: dict[str, str] = {}
        self._printed_calls: set[tuple[int, str]] = set()
        self._held: set[tuple[int, str]] = set()
        self._at_start = True
        self._waiting: list[str] = []

    def show(self, event: Event) -> None:
        match event:
            case Token():
                self._token(event)
            case Partial(final=True) if (event.lm_call, event.field) not in self._held:
                self._printed[event.field] = _text(event.value)
                self._printed_calls.add((event.lm_call, event.field))
                self._line(f"{self._label(event.field)}{_text(event.value)}")
            case Restart():
                self._restart(event)
            case Status():
                self._note(f"[{event.message}]")
            case Tool():
                value = event.arguments if event.stage == "call" else event.result
                self._note(f"[{event.name} {event.stage}: {_text(value)}]")
            case _:
                pass

    def finish(self, result: Predicted) -> None:
        for name, value in result.outputs.items():
            if self._printed.get(name) != _text(value):
                self._line(f"{self._label(name)}{_text(value)}")

    def close(self) -> None:
        """End the last line, and print the notes that came in the middle of it."""
        if not self._at_start:
            print(file=self._out, flush=True)
            self._at_start = True
        waiting, self._waiting = self._waiting, []
        for note in waiting:
            print(note, file=self._notes, flush=True)

    def _note(self, text: str) -> None:
        """Print a note, but not in the middle of an answer: there it waits for the end of the field."""
        if self._notes is not None:
            self._waiting.append(text)
            if self._at_start:
                self.close()

    def _token(self, token: Token) -> None:
        if (token.lm_call, token.field) in self._held:
            return
        source = (token.predictor, token.field, token.lm_call)
        if source != self._source:
            self.close()
            self._source = source
            self._printed[token.field] = ""
            self._write(self._label(token.field))
        if token.text:
            self._printed_calls.add((token.lm_call, token.field))
        self._printed[token.field] += token.text
        self._write(token.text)
        if token.last:
            self.close()

    def _restart(self, restart: Restart) -> None:
        printed = {field for lm_call, field in self._printed_calls if lm_call == restart.lm_call}
        if restart.fields:
            self._held |= {(restart.lm_call, field) for field in printed.intersection(restart.fields)}
        elif printed:
            self.fail(
                StreamBroken(
                    f"the LM begins its answer again ({restart.reason}), and a terminal can't take printed words back; "
                    "run it again, or use --json, which tells the new beginning"
                )
            )

    def _label(self, field: str) -> str:
        # Bare where it is all that there is to read: intermediate fields of other predictors have names.
        bare = field == self._only and not any(name != field for name in self._printed)
        return "" if bare else f"{field}: "

    def _line(self, text: str) -> None:
        self.close()
        print(text, file=self._out, flush=True)
        self._source = None

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._at_start = text.endswith("\n")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode()
