"""uvicorn's WebSocket, without a false alarm in the log."""

from __future__ import annotations

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket whose handshake may be answered with an HTTP error."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message. uvicorn takes a whole HTTP reply for none, and logs each as the application's mistake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True
