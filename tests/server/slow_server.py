"""A server process for the tests of the shutdown: `python slow_server.py DRAIN`. Its runs end at SIGUSR1."""

from __future__ import annotations

import asyncio
import signal
import sys

from tests.server.support import Tape, qa

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started
from dspy_live.server import create_app
from dspy_live.server.transport.serve import serve


def main() -> None:
    async def script(call: Call, tape: Tape) -> None:
        may_end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, may_end.set)
        await tape.push(Started(call.id))
        await may_end.wait()
        await tape.push(Predicted({"answer": "in time"}))

    serve(create_app(qa(script)), port=0, drain=float(sys.argv[1]), on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
