"""The server: any service over HTTP, server-sent events and WebSocket.

Running it is ``server.transport.serve``, which imports uvicorn; the application itself needs none of that.
"""

from dspy_live.server.app import App, create_app
from dspy_live.server.keys.key import Key, Quota
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.auth import Keys

__all__ = ["App", "Key", "Keys", "Quota", "ServedProgram", "create_app"]
