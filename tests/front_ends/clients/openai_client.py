"""What OpenAI's Python client makes of the server: ``python openai_client.py URL`` prints one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
SLOW = "Why? [sim tps=50 length=2000]"


class Typed(BaseModel):
    answer: str
    score: int
    tags: list[str]


def whole() -> Any:
    response = client.responses.create(model="qa", input="Why?", instructions="Be brief.", temperature=0.5)
    return {"text": response.output_text, "response": response.model_dump(mode="json")}


def streamed() -> Any:
    with client.responses.stream(model="agent", input="Why? [sim reasoning=5 tps=500]") as stream:
        events = [event.model_dump(mode="json", warnings=False) for event in stream]
        final = stream.get_final_response()
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    return {
        "types": [e["type"] for e in events],
        "numbers": [e["sequence_number"] for e in events],
        "joined": "".join(deltas),
        "deltas": len(deltas),
        "final": final.model_dump(mode="json", warnings=False),
        "text": final.output_text,
    }


def strict() -> Any:
    """Check every event and the whole response against the client's types, which it does not do by itself."""
    event_type: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    question = "Why? [sim reasoning=5 tps=500]"
    with client.responses.with_streaming_response.create(model="agent", input=question, stream=True) as reply:
        datas = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    broken = "x [sim fault=cut after=14 length=40]"
    with client.responses.with_streaming_response.create(model="qa", input=broken, stream=True) as reply:
        datas += [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    whole = client.responses.with_raw_response.create(
        model="typed", input="Why?", text={"format": {"type": "json_object"}}
    )
    wrong = []
    for data in datas:
        if data != "[DONE]":
            try:
                event_type.validate_json(data)
            except ValidationError as exc:
                wrong.append([json.loads(data)["type"], [error["loc"] for error in exc.errors()][:5]])
    return {"events": len(datas), "wrong": wrong, "whole": Response.model_validate_json(whole.content).status}


def parsed() -> Any:
    response = client.responses.parse(model="typed", input="Why?", text_format=Typed)
    found = response.output_parsed
    return found.model_dump() if found is not None else None


def follows() -> Any:
    first = client.responses.create(model="chat", input="First.")
    second = client.responses.create(model="chat", input="Second.", previous_response_id=first.id)
    branch = client.responses.create(model="chat", input="Branch.", previous_response_id=first.id)
    third = client.responses.create(model="chat", input="Third.", previous_response_id=second.id)
    named = [client.responses.create(model="chat", input=text, conversation="talk").conversation for text in "ab"]
    return {
        "texts": [one.output_text for one in (first, second, branch, third)],
        "previous": third.previous_response_id,
        "store": third.store,
        "conversations": [one.id if one else None for one in named],
    }


def truncated() -> Any:
    response = client.responses.create(model="chat", input="Why? [sim length=60]", max_output_tokens=40)
    return {
        "status": response.status,
        "details": response.incomplete_details.model_dump(),
        "text": response.output_text,
    }


def image() -> Any:
    part: Any = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
    ]
    return client.responses.create(model="see", input=[{"role": "user", "content": part}]).status


def errors() -> Any:
    found: dict[str, Any] = {}
    for name, ask in {
        "unknown": lambda: client.responses.create(model="gpt", input="x"),
        "previous": lambda: client.responses.create(model="chat", input="x", previous_response_id="resp_no"),
        "stateless": lambda: client.responses.create(model="qa", input="x", previous_response_id="resp_no"),
        "tools": lambda: client.responses.create(
            model="qa", input="x", tools=[{"type": "function", "name": "f", "parameters": {}, "strict": True}]
        ),
        "fails": lambda: client.responses.create(model="fails", input="x"),
        "lm": lambda: client.responses.create(model="qa", input="x [sim fault=500]"),
    }.items():
        try:
            ask()
        except openai.APIStatusError as exc:
            found[name] = {"class": type(exc).__name__, "code": exc.code, "param": exc.param, "text": str(exc)}
    return found


def fails_in_the_middle() -> Any:
    events = list(client.responses.create(model="qa", input="x [sim fault=cut after=14 length=40]", stream=True))
    last = events[-1]
    return {
        "types": [event.type for event in events],
        "error": last.response.error.model_dump() if last.type == "response.failed" and last.response.error else None,
        "output": [item.model_dump(mode="json") for item in last.response.output] if hasattr(last, "response") else [],
    }


def leaves() -> Any:
    stream = client.responses.create(model="qa", input=SLOW, stream=True)
    seen = [event.type for event, _ in zip(stream, range(8), strict=False)]
    stream.close()
    return seen


def chats() -> Any:
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    messages: Any = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": parts}]
    reply = client.chat.completions.create(model="see", messages=messages)
    stream = client.chat.completions.create(model="qa", messages=[{"role": "user", "content": SLOW}], stream=True)
    seen = [chunk.choices[0].delta.content for chunk, _ in zip(stream, range(5), strict=False)]
    stream.close()
    return {"text": reply.choices[0].message.content, "extra": reply.model_extra, "seen": seen}


SCENARIOS = (whole, streamed, strict, parsed, follows, truncated, image, errors, fails_in_the_middle, leaves, chats)
print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
