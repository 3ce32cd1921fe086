"""The server: any service over HTTP, server-sent events and WebSocket.

Running it is ``server.transport.serve``, which imports uvicorn; the application itself needs none of that.
"""

from dspy_live.server.app import App, create_app
from dspy_live.server.served import ServedProgram

__all__ = ["App", "ServedProgram", "create_app"]
