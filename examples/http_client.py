"""Ask a running server from Python: one answer, a stream, and a run that is left and read on later.

make serve                                # in another terminal
python examples/http_client.py
"""

from __future__ import annotations

import sys

from dspy_live.client import Client

client = Client(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")

if __name__ == "__main__":
    reply = client.predict(question="Why do rivers bend?")
    print("answer:", reply.answer)

    with client.stream(question="Why do rivers bend?") as run:
        for piece in run.text("answer"):
            print(piece, end="", flush=True)
        print()

    with client.start(question="Why do rivers bend?") as run:
        next(iter(run))
        run_id, position = run.detach()
    print(f"left run {run_id} after event {position}; it goes on for a while without us")
    with client.resume(run_id, position) as run:
        print("confidence:", run.result().confidence)
