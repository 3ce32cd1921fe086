"""A relay of bytes between clients and an LM server, with no look at what they say: the least that any server costs.

python bench/relay.py --port 8210 --to 9210
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop


class Peer(asyncio.Protocol):
    """One of the two ends: what it receives goes to the other one. What comes before that is there waits."""

    def __init__(self) -> None:
        self.other: Peer | None = None
        self.transport: asyncio.Transport | None = None
        self.waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.other is not None:
            for data in self.other.waiting:
                self.data_sent(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def data_sent(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Client(Peer):
    """A client; its connection to the LM server is made with its own."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self.to = to

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.dialling = asyncio.ensure_future(self.dial())

    async def dial(self) -> None:
        server = Peer()
        server.other, self.other = self, server
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", self.to)
        except OSError:
            if self.transport is not None:
                self.transport.abort()


async def serve(port: int, to: int) -> None:
    """Listen until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(to), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True, help="the LM server's port")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(args.port, args.to))


if __name__ == "__main__":
    main()
