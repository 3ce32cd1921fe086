"""The chat-completions wire: requests to bytes, replies and streams to deltas and one whole reply.

Arithmetic only: no clock (``now`` is an argument), no socket, nothing shared between calls.
"""

from dspy_live.sansio.openai.delta import Delta
from dspy_live.sansio.openai.errors import (
    ErrorReply,
    MalformedReply,
    ProviderFailed,
    ReplyError,
    StreamCut,
    error_from_reply,
    refuses_n,
    refuses_stream_options,
    retry_after,
)
from dspy_live.sansio.openai.reply import PlainParser, ReplyParser, parse_reply, reply_deltas
from dspy_live.sansio.openai.request import chat_body, chat_headers, chat_url
from dspy_live.sansio.openai.stream import StreamParser

__all__ = [
    "Delta",
    "ErrorReply",
    "MalformedReply",
    "PlainParser",
    "ProviderFailed",
    "ReplyError",
    "ReplyParser",
    "StreamCut",
    "StreamParser",
    "chat_body",
    "chat_headers",
    "chat_url",
    "error_from_reply",
    "parse_reply",
    "refuses_n",
    "refuses_stream_options",
    "reply_deltas",
    "retry_after",
]
