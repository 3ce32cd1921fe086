"""A server process for the tests of the shutdown: `python slow_server.py DRAIN [LAME_DUCK [PORT [HEAD_SECONDS]]]`.

Its runs end at SIGUSR1; one that is asked "quick" ends at once, one that is asked "brief" after some tokens. Its
proxies are on this machine.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from tests.server.support import Tape, qa

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started
from dspy_live.server import create_app
from dspy_live.server.transport import last_clients
from dspy_live.server.transport.serve import serve


def main() -> None:
    async def script(call: Call, tape: Tape) -> None:
        quick = call.inputs["question"] in ("quick", "brief")
        may_end = asyncio.Event()
        if not quick:  # before the client is told that the run has begun: it may send the signal then
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, may_end.set)
        await tape.push(Started(call.id))
        if call.inputs["question"] == "brief":
            await tape.tokens("a few words that come one by one", pause=0.02)
        if not quick:
            await may_end.wait()
        await tape.push(Predicted({"answer": "in time"}))

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have been started by nohup
    drain, lame_duck = float(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if len(sys.argv) > 4:
        last_clients.HEAD_SECONDS = float(sys.argv[4])
    app = create_app(qa(script), forwarded_allow_ips=["127.0.0.1"])
    serve(app, port=port, drain=drain, lame_duck=lame_duck, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
