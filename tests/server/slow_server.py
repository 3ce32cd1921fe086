"""A server process for the tests of the shutdown: `python slow_server.py DRAIN [LAME_DUCK]`.

Its runs end at SIGUSR1; one that is asked "quick" ends at once.
"""

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
        quick = call.inputs["question"] == "quick"
        may_end = asyncio.Event()
        if not quick:  # before the client is told that the run has begun: it may send the signal then
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, may_end.set)
        await tape.push(Started(call.id))
        if not quick:
            await may_end.wait()
        await tape.push(Predicted({"answer": "in time"}))

    drain, lame_duck = float(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    app = create_app(qa(script))
    serve(app, port=0, drain=drain, lame_duck=lame_duck, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
