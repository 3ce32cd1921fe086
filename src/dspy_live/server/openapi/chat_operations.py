"""Front ends of other protocols: OpenAI's, the Vercel AI SDK's, AG-UI, MCP."""

from __future__ import annotations

from typing import Any

from dspy_live.server.openapi.parts import (
    About,
    Describe,
    JSONObject,
    body,
    either,
    event_stream,
    flag,
    in_header,
    in_path,
    list_of,
    object_of,
    or_null,
    ref,
    reply,
    text,
    whole,
)
from dspy_live.server.openapi.run_operations import HEADERS
from dspy_live.server.routes.inputs import CONFIG_OPTIONS

_OPENAI = "OpenAI-compatible"
_ANY: JSONObject = {"type": "object"}
_SAID = "What would you like to know?"


def components() -> JSONObject:
    """Return the schemas of these protocols, as far as a program goes; their own descriptions say more."""
    content = {"anyOf": [text(), list_of(_ANY), {"type": "null"}]}
    message = object_of(required=["role"], role=text(), content=content)
    usage = object_of(prompt_tokens=whole(), completion_tokens=whole(), total_tokens=whole())
    told = object_of(role=text(const="assistant"), content=text())
    finish = text(enum=["stop", "length"])
    choice = object_of(index=whole(), message=told, finish_reason=finish)
    delta = object_of(index=whole(), delta=_ANY, finish_reason=or_null(text()))
    head = {"id": text(), "created": whole("Unix seconds."), "model": text()}
    model = object_of(id=text(), object=text(const="model"), created=whole(), owned_by=text())
    return {
        "ChatMessage": message,
        "ChatCompletion": object_of(
            "", head, object=text(const="chat.completion"), choices=list_of(choice), usage=usage
        ),
        "ChatChunk": object_of(
            "",
            head,
            required=[*head, "object", "choices"],
            object=text(const="chat.completion.chunk"),
            choices=list_of(delta),
            usage=usage,
        ),
        "Model": model,
        "Response": object_of(
            required=["id", "object", "status", "output", "created_at"],
            id=text(),
            object=text(const="response"),
            created_at=whole("Unix seconds."),
            status=text(enum=["completed", "incomplete", "failed", "in_progress"]),
            output=list_of(_ANY),
            usage=or_null(_ANY),
        ),
    }


def _model(about: About) -> JSONObject:
    return text("A program's name.", enum=list(about.programs))


def _chat(about: About) -> JSONObject:
    options = {name: or_null(_ANY) if name == "logit_bias" else {} for name in CONFIG_OPTIONS if name != "n"}
    asked = object_of(
        "",
        options,
        required=["model", "messages"],
        model=_model(about),
        messages=list_of(ref("ChatMessage")) | {"minItems": 1},
        stream=or_null(flag("Reply in chunks.")),
        stream_options=or_null(_ANY),
        n=or_null(whole("How many choices.", minimum=1, maximum=16)),
        response_format=or_null(_ANY),
    )
    example = {"model": about.program.name, "messages": [{"role": "user", "content": _SAID}]}
    chunks = event_stream("Chunks, where `stream` is true.", ref("ChatChunk"), "data: [DONE]\n\n")
    return {
        "summary": "Chat completion: a program is a model",
        "description": "The last user message is the program's input. What a program can't do is refused by its name.",
        "tags": [_OPENAI],
        "requestBody": body(asked, {"whole": example, "streaming": example | {"stream": True}}),
        "responses": {"200": either(reply("A completion.", ref("ChatCompletion")), chunks)},
    }


def _responses(about: About) -> JSONObject:
    asked = object_of(
        required=["model", "input"],
        model=_model(about),
        input={"anyOf": [text(), list_of(_ANY)]},
        instructions=or_null(text()),
        stream=or_null(flag("Reply with events.")),
        previous_response_id=or_null(text("The response that this one goes on from.")),
        store=or_null(flag("Keep the turn, for a program with a dspy.History.")),
    )
    example = {"model": about.program.name, "input": _SAID}
    events = event_stream("OpenAI's events, where `stream` is true.", object_of(type=text()), "data: [DONE]\n\n")
    return {
        "summary": "Response: a program is a model",
        "tags": [_OPENAI],
        "requestBody": body(asked, {"whole": example, "streaming": example | {"stream": True}}),
        "responses": {"200": either(reply("A response.", ref("Response")), events)},
    }


def _models(about: About) -> JSONObject:
    listed = object_of(object=text(const="list"), data=list_of(ref("Model")))
    return {"summary": "The programs as models", "tags": [_OPENAI], "responses": {"200": reply("The models.", listed)}}


def _one_model(about: About) -> JSONObject:
    return {
        "summary": "One program as a model",
        "tags": [_OPENAI],
        "parameters": [in_path("program", "The program's name.")],
        "responses": {"200": reply("The model.", ref("Model"))},
    }


def _streamed(about: About, protocol: str, asked: JSONObject, example: JSONObject) -> JSONObject:
    events = event_stream(f"The run, in {protocol}.", object_of(type=text()), 'data: {"type":"…"}\n\n')
    return {
        "summary": f"Run the program for {protocol}",
        "description": "The last message is the program's input; those before it fill a dspy.History.",
        "tags": [about.program.name],
        "parameters": [header for header in HEADERS if header["name"] != "X-Config"],
        "requestBody": body(asked, {"example": example}),
        "responses": {"200": events},
    }


def _ui_chat(about: About) -> JSONObject:
    message = object_of(required=["role", "parts"], id=text(), role=text(), parts=list_of(_ANY))
    asked = object_of(required=[], id=text(), messages=list_of(message), message=message, trigger=text(), config=_ANY)
    said = {"id": "1", "role": "user", "parts": [{"type": "text", "text": _SAID}]}
    example = {"id": "chat", "trigger": "submit-message", "messages": [said]}
    return _streamed(about, "the Vercel AI SDK's UI message stream", asked, example)


def _agui(about: About) -> JSONObject:
    asked = object_of(
        required=["messages"],
        threadId=text(),
        runId=text(),
        messages=list_of(object_of(required=["role"], id=text(), role=text(), content={})),
        tools=list_of(_ANY),
        context=list_of(_ANY),
        state={},
        forwardedProps={},
    )
    said = {"id": "1", "role": "user", "content": _SAID}
    empty: dict[str, Any] = {"tools": [], "context": [], "state": {}, "forwardedProps": {}}
    return _streamed(about, "AG-UI", asked, {"threadId": "thread", "runId": "run", "messages": [said]} | empty)


def _mcp(about: About) -> JSONObject:
    version = in_header("MCP-Protocol-Version", "The revision that the client speaks.")
    asked = object_of(
        required=["jsonrpc", "method"],
        jsonrpc=text(const="2.0"),
        id={"type": ["string", "integer"]},
        method=text(),
        params=_ANY,
    )
    answer = object_of(required=["jsonrpc"], jsonrpc=text(const="2.0"), id={}, result={}, error=_ANY)
    example = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    stream = event_stream("The messages of a call, its answer the last.", answer, "data: {}\n\n")
    replies = {"200": either(reply("The answer.", answer), stream), "202": {"description": "A notification was taken."}}
    return {
        "summary": "One message of MCP: a program is a tool",
        "tags": ["MCP"],
        "parameters": [version],
        "requestBody": body(asked, {"ping": example}),
        "responses": replies,
    }


def _leave_mcp(about: About) -> JSONObject:
    return {
        "summary": "End a client's session of MCP 2025",
        "tags": ["MCP"],
        "responses": {"204": {"description": "Done."}},
    }


def _resume_chat(about: About) -> JSONObject:
    return {
        "summary": "Resume a chat of the Vercel AI SDK",
        "tags": [about.program.name],
        "parameters": [in_path("id", "The chat's id.")],
        "responses": {"204": {"description": "There is nothing to resume: an answer ends with its reply."}},
    }


PER_PROGRAM: dict[tuple[str, str], Describe] = {
    ("POST", "/ui/chat"): _ui_chat,
    ("GET", "/ui/chat/{id}/stream"): _resume_chat,
    ("POST", "/agui"): _agui,
}
OPERATIONS: dict[tuple[str, str], Describe] = {
    ("POST", "/v1/chat/completions"): _chat,
    ("POST", "/v1/responses"): _responses,
    ("GET", "/v1/models"): _models,
    ("GET", "/v1/models/{program}"): _one_model,
    ("POST", "/mcp"): _mcp,
    ("DELETE", "/mcp"): _leave_mcp,
}
RUNS = {("POST", "/v1/chat/completions"), ("POST", "/v1/responses"), ("POST", "/mcp")}
MORE_ERRORS = {("GET", "/v1/models/{program}"): ("404",)}
