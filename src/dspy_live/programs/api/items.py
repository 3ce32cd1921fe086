"""What a stream yields: DSPy's own item types, with more in them."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias

import orjson
from dspy.streaming import StatusMessage, StreamResponse

from dspy_live.core.events import Custom, Reasoning, Restart, Started, TextDelta, Tool, Usage
from dspy_live.programs.internals import attributes


class StreamToken(str, StreamResponse):
    """A piece of an output field's text: a ``str``, and a ``dspy.streaming.StreamResponse``.

    Attributes:
        predict_name: the predictor's path in the program.
        signature_field_name: the output field.
        chunk: the same text as a plain ``str``.
        is_last_chunk: true for the field's last token, whose text may be empty.
        lm_call: the number of the LM call within the run, counted from 1.
        choices: the text as an OpenAI chunk has it: ``token.choices[0].delta.content``.
    """

    predict_name: str
    signature_field_name: str
    is_last_chunk: bool
    lm_call: int

    def __new__(cls, text: str, predictor: str, field: str, lm_call: int, last: bool) -> StreamToken:
        made = str.__new__(cls, text)
        made.predict_name = predictor
        made.signature_field_name = field
        made.is_last_chunk = last
        made.lm_call = lm_call
        return made

    def __init__(self, *_: Any) -> None:
        pass

    # The dataclass's own comparison and repr would hide those of the text.
    __eq__ = str.__eq__
    __hash__ = str.__hash__
    __repr__ = str.__repr__

    @property
    def chunk(self) -> str:
        return str.__str__(self)

    @cached_property
    def choices(self) -> Any:
        return attributes([{"index": 0, "delta": {"content": self.chunk}, "finish_reason": None}])

    def json(self) -> str:
        """Return the token as the JSON of an OpenAI chunk, with its predictor and field."""
        return orjson.dumps(
            {
                "predict_name": self.predict_name,
                "signature_field_name": self.signature_field_name,
                "choices": [{"index": 0, "delta": {"content": self.chunk}, "finish_reason": None}],
            }
        ).decode()

    def __reduce__(self) -> Any:
        return (
            StreamToken,
            (self.chunk, self.predict_name, self.signature_field_name, self.lm_call, self.is_last_chunk),
        )


class PartialValue(StreamResponse):
    """A typed output field so far: it takes the place of the one before it.

    ``value`` is the value as JSON has it, ``chunk`` its JSON text; ``is_last_chunk`` says that it is complete.
    """

    def __init__(self, value: Any, predictor: str, field: str, lm_call: int, final: bool) -> None:
        super().__init__(predictor, field, orjson.dumps(value).decode(), final)
        self.value = value
        self.lm_call = lm_call


StreamItem: TypeAlias = (
    StreamToken | PartialValue | StatusMessage | Restart | Custom | Started | Reasoning | Tool | Usage | TextDelta
)
"""What a stream yields beside the program's own result; those from ``Started`` on only with ``events=True``."""

__all__ = ["PartialValue", "StatusMessage", "StreamItem", "StreamResponse", "StreamToken"]
