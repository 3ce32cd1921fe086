"""The server: any service over HTTP, server-sent events and WebSocket."""

from dspy_live.server.app import App, create_app
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.serve import LiveServer, serve

__all__ = ["App", "LiveServer", "ServedProgram", "create_app", "serve"]
