"""The same program on DSPy's own asynchronous path behind FastAPI, at its best.

Its LM has engine objects of its own, so that DSPy's limit of 100 connections does not hold it back.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import dspy
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from dspy.lm15 import RouterConfig
from dspy.streaming import StreamListener, StreamResponse
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

config = RouterConfig(
    api_keys={"openai-chat": "none"}, base_urls={"openai-chat": os.environ["BENCH_LM"]}, max_connections=4000
)
dspy.configure(
    lm=dspy.LM("openai/gpt-4o-mini", cache=False, engine=LM15Engine(config), async_engine=AsyncLM15Engine(config)),
    disable_history=True,
)
program = dspy.Predict("question -> answer")
app = FastAPI()


class Question(BaseModel):
    """The program's input."""

    question: str


@app.post("/predict")
async def predict(asked: Question) -> dict[str, str]:
    """One answer."""
    return {"answer": (await program.acall(question=asked.question)).answer}


@app.post("/predict/stream")
async def stream(asked: Question) -> StreamingResponse:
    """One answer, token by token; DSPy's listener keeps the state of one stream, so each has its own."""
    listener = StreamListener(signature_field_name="answer")
    streamed = dspy.streamify(program, stream_listeners=[listener], is_async_program=True)

    async def events() -> AsyncIterator[bytes]:
        async for item in streamed(question=asked.question):
            if isinstance(item, StreamResponse):
                yield b"event: token\ndata: " + json.dumps({"text": item.chunk}).encode() + b"\n\n"
            elif isinstance(item, dspy.Prediction):
                yield b"event: prediction\ndata: " + json.dumps(item.toDict()).encode() + b"\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
