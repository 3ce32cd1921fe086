"""Conversations that the server keeps: what they are, where they are kept, and how a program is told of them."""

from dspy_live.server.sessions.opened import open_sessions
from dspy_live.server.sessions.sessions import Sessions
from dspy_live.server.sessions.store import Session, SessionInfo, SessionStore, Turn

__all__ = ["Session", "SessionInfo", "SessionStore", "Sessions", "Turn", "open_sessions"]
