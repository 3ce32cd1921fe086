"""The same program as DSPy's deployment tutorial serves it: ``dspy.asyncify`` and ``dspy.streamify`` behind FastAPI."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import dspy
import orjson
from dspy.streaming import StreamListener, StreamResponse
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

lm = dspy.LM("openai/gpt-4o-mini", cache=False, api_base=os.environ["BENCH_LM"], api_key="none")
dspy.configure(lm=lm)
program = dspy.Predict("question -> answer")
answer = dspy.asyncify(program)
app = FastAPI()


class Question(BaseModel):
    """The program's input."""

    question: str


@app.post("/predict")
async def predict(asked: Question) -> dict[str, str]:
    """One answer."""
    return {"answer": (await answer(question=asked.question)).answer}


@app.post("/predict/stream")
async def stream(asked: Question) -> StreamingResponse:
    """One answer, token by token. The tutorial shares one listener; here each stream has its own, or they would mix."""
    listener = StreamListener(signature_field_name="answer")
    streamed = dspy.streamify(answer, stream_listeners=[listener])

    async def events() -> AsyncIterator[bytes]:
        async for item in streamed(question=asked.question):
            if isinstance(item, StreamResponse):
                yield b"event: token\ndata: " + orjson.dumps({"text": item.chunk}) + b"\n\n"
            elif isinstance(item, dspy.Prediction):
                yield b"event: prediction\ndata: " + orjson.dumps(item.toDict()) + b"\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
