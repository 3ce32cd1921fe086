"""A server process for the tests of the shutdown while a stream is spliced: `python spliced_server.py LM DRAIN`.

It prints its address, a line once a stream is spliced, and at its end how many events passed by Python.
"""

from __future__ import annotations

import sys

import dspy
from tests.server.splice_lm import Answerer

import dspy_live
from dspy_live.runtime.http.splice import LoopSplicer, Splice
from dspy_live.server.transport.serve import serve


def main() -> None:
    """Serve one predictor until a signal."""
    lm, drain = sys.argv[1], float(sys.argv[2])
    splicers: set[LoopSplicer] = set()
    plain_begin = Splice.begin

    def told(self: Splice) -> None:
        plain_begin(self)
        splicers.add(self._splicer)
        if len(self._splicer):
            print("spliced", flush=True)

    Splice.begin = told  # type: ignore[method-assign]
    program = Answerer(dspy.ChatAdapter())
    program.set_lm(dspy_live.LM("openai/tiny", api_base=lm, api_key="x", cache=False, num_retries=0))
    serve(dspy_live.create_app(program), port=0, drain=drain, on_ready=lambda url: print(url, flush=True))
    print("passed", sum(ours.passed for ours in splicers), flush=True)


if __name__ == "__main__":
    main()
