"""The program's text for wires that can take words back: as it comes, and anew where it turns out to be another."""

from __future__ import annotations

from dspy_live.core.events import Predicted, Restart, Token
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.plain import plain_value


class LiveText:
    """Follows the program's last ``str`` output. The pieces since the last void ones, joined, are its value.

    Text of the predictor that the schema names for the output is given out as it comes. When another LM call writes to
    the output, what the one before has said is void: the last one counts, as in the program's result.

    Args:
        schema: the program's.
        hold: give nothing out before the result.
    """

    __slots__ = ("_given", "_held", "_lm_call", "_predictor", "field")

    def __init__(self, schema: Schema, *, hold: bool = False) -> None:
        self.field = schema.last_text_output
        self._predictor = schema.live.get(self.field or "") if schema.live is not None else None
        self._held = hold or (schema.live is not None and self._predictor is None)
        self._lm_call: int | None = None
        self._given: list[str] = []

    def token(self, token: Token) -> tuple[bool, str]:
        """Return whether what was given out is void, and the piece that follows; often none."""
        if token.field != self.field or not token.text or self._held:
            return False, ""
        if self._predictor is not None and token.predictor != self._predictor:
            return False, ""
        void = self._lm_call != token.lm_call and bool(self._given)
        if void:
            self._given.clear()
        self._lm_call = token.lm_call
        self._given.append(token.text)
        return void, token.text

    def restart(self, restart: Restart) -> bool:
        """Return whether what was given out is void."""
        concerns = not restart.fields or self.field in restart.fields
        if restart.lm_call != self._lm_call or not concerns or not self._given:
            return False
        self._given.clear()
        return True

    def rest(self, result: Predicted) -> tuple[bool, str]:
        """Return whether what was given out is void, and what is missing of the value."""
        given = "".join(self._given)
        if given and self.field not in result.outputs:
            return False, ""  # a predictor's field that the program does not give on
        value = plain_value(self.field, result.outputs)
        if value.startswith(given):
            return False, value[len(given) :]
        return True, value
