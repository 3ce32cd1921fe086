"""A FastAPI application of one's own, with a program mounted under ``/qa`` and a route that uses it.

python examples/fastapi_app.py            # then: curl localhost:8000/qa/predict -d '{"question": "Why?"}'
"""

from __future__ import annotations

import sys

import dspy
import uvicorn
from fastapi import FastAPI

import dspy_live

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini"))

program = dspy.ChainOfThought("question -> answer")
answer = dspy_live.asyncify(program)

app = FastAPI(title="A service with a program in it")
app.mount("/qa", dspy_live.create_app(program))


@app.get("/short")
async def short(question: str) -> dict[str, str]:
    """Answer in a form of our own."""
    prediction = await answer(question=question)
    return {"answer": prediction.answer}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, log_level="warning")
