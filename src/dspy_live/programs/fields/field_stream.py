"""One LM call's words on their way to the reader: raw text in, events of named fields out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dspy_live.core.errors import Stop, StreamBroken
from dspy_live.core.events import Partial, Reasoning, Restart, TextDelta, Token
from dspy_live.programs.fields.formats import parser_for, text_fields_of
from dspy_live.sansio.fields import FieldText

if TYPE_CHECKING:
    from dspy_live.programs.run.run import Run


class Speech:
    """What one LM call says. Made when the call is made; used by one loop at a time.

    ``text`` and ``reasoning`` return False when the reader is slow: pause the source, and go on when
    ``on_room`` calls.
    """

    __slots__ = ("_adapter", "_channel", "_given", "_parser", "_push", "_right", "_run", "_said", "_signature",
                 "_thinking", "_thought", "_verify", "foreign", "length", "lm_call", "predictor")  # fmt: skip

    def __init__(
        self,
        run: Run,
        predictor: str,
        lm_call: int,
        adapter: Any,
        signature: Any,
        verify: Callable[[str], Mapping[str, Any]] | None = None,
        thinking: str | None = None,
    ) -> None:
        self._run = run
        self._push = run.push
        self._channel = run.words
        self._adapter = adapter
        self._signature = signature
        self._parser = parser_for(adapter, signature)
        # What was said of a field in the end, beside or in place of the parser's; None for what was taken back.
        self._right: dict[str, str | None] = {}
        self._said = False
        self._given = False
        self._verify = verify
        # The output field that DSPy fills from the model's own reasoning, and what was said of it; None at its end.
        self._thinking = thinking
        self._thought: list[str] | None = []
        self.predictor = predictor
        self.lm_call = lm_call
        self.length = 0
        # True while a loop that is not the run's own does the I/O: it never waits for room.
        self.foreign = False

    @property
    def said(self) -> bool:
        """True when something was said that a restart would have to take back."""
        return self._said

    def text(self, text: str) -> bool:
        """Take a piece of the reply's text."""
        self.length += len(text)
        if self._run.raw:
            self._said = True
            self._push(TextDelta(text, self.lm_call, self.predictor))
        parser = self._parser
        if parser is not None:
            for event in parser.feed(text):
                self._emit(event)
        return self.foreign or not self._channel.full

    def reasoning(self, text: str) -> bool:
        """Take a piece of the model's own reasoning."""
        self._said = True
        self._run.first_token()
        self._push(Reasoning(text, self.predictor, self.lm_call))
        if self._thinking is not None and self._thought is not None:
            self._thought.append(text)
            self._push(Token(text, self._thinking, self.predictor, self.lm_call))
        return self.foreign or not self._channel.full

    def on_room(self, callback: Callable[[], object]) -> None:
        """Call back once when the reader has caught up."""
        self._channel.on_room(callback)

    async def room(self) -> None:
        """Wait until the reader has caught up."""
        await self._channel.room()

    def finish(self, reply: str) -> None:
        """The reply is complete: release what was held back.

        Where nobody will tell us how the adapter reads it (an adapter that is not ours), it is read here.
        """
        if self._thinking is not None and self._thought:
            # Only now: a model may think again after its first words.
            self._thought = None
            self._push(Token("", self._thinking, self.predictor, self.lm_call, True))
        if self._parser is None:
            return
        for event in self._parser.finish():
            self._emit(event)
        if self._verify is not None:
            try:
                values = self._verify(reply)
            except Exception:
                return  # the adapter will meet the same failure, and fall back or raise
            self.compare(values)

    def restart(self, reason: str) -> None:
        """Take back everything that was said, and begin anew under the same number. As :meth:`void`."""
        self.void(reason)
        self._thought = []
        self._right = {}
        self._parser = parser_for(self._adapter, self._signature)

    def void(self, reason: str) -> None:
        """Take back everything that was said.

        Behind a door that has given it out for good the run ends instead: raises :class:`Stop`, with a
        :class:`StreamBroken` for the caller.
        """
        if self._given:
            error = StreamBroken(
                f"{reason}, but the beginning of its answer was given out and this door can't take words back; "
                "ask again, or use a door that understands Restart"
            )
            self._run.root.scope.cancel(error)
            raise Stop(error)
        if self._said:
            self._push(Restart(self.predictor, self.lm_call, reason))
        self._said = False

    def compare(self, values: Mapping[str, Any]) -> None:
        """Compare what was said with what the adapter has read; say it right where they differ.

        It may be called again, as it is for an adapter that asks another: what is right by then is left alone.
        """
        if self._parser is None:
            return
        said, ended = {**self._parser.texts(), **self._right}, self._parser.ended() | self._right.keys()
        for field in text_fields_of(self._signature):
            value = values.get(field)
            words = said.get(field)
            if value is None:
                if words is not None:
                    self._repair(field)
                continue
            true = value if isinstance(value, str) else str(value)
            if words == true and field in ended:
                continue
            if words is None:
                self._say(field, true)
            elif field not in ended and true.startswith(words):
                self._say(field, true[len(words) :])
            else:
                self._repair(field)
                self._say(field, true)
            self._right[field] = true

    def _repair(self, field: str) -> None:
        self._right[field] = None
        self._push(Restart(self.predictor, self.lm_call, "the adapter has repaired the reply", (field,)))

    def _say(self, field: str, text: str) -> None:
        self._said = True
        self._run.first_token()
        if not self._run.call.restartable:
            self._given = self._given or self._run.gives(field, text, self.lm_call)
        self._push(Token(text, field, self.predictor, self.lm_call, True))

    def _emit(self, event: Any) -> None:
        self._said = True
        self._run.first_token()
        if isinstance(event, FieldText):
            if not self._run.call.restartable:
                self._given = self._given or self._run.gives(event.field, event.text, self.lm_call)
            self._push(Token(event.text, event.field, self.predictor, self.lm_call, event.last))
        else:
            self._push(Partial(event.value, event.field, self.predictor, self.lm_call, event.final))
