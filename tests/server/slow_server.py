"""A server process for the tests of the shutdown: `python slow_server.py DRAIN SECONDS_PER_RUN`."""

from __future__ import annotations

import asyncio
import sys

from tests.server.support import Tape, qa

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started
from dspy_live.server import create_app
from dspy_live.server.transport.serve import serve


def main() -> None:
    drain, seconds = float(sys.argv[1]), float(sys.argv[2])

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.sleep(seconds)
        await tape.push(Predicted({"answer": "in time"}))

    serve(create_app(qa(script)), port=0, drain=drain, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
