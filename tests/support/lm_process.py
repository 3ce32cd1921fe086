"""Runs llama.cpp's own HTTP server until standard input ends: ``python lm_process.py MODEL SLOTS``.

Prints one line of JSON with the address. It ends with its parent, however that ends: the pipe closes.
"""

from __future__ import annotations

import json
import os
import sys

import xllamacpp


def main() -> None:
    """Serve the model that the command line names, with so many slots."""
    model, slots = sys.argv[1], int(sys.argv[2])
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = 8192 * slots
    params.n_gpu_layers = 0
    params.fit_params = False
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.warmup = False
    params.ui = False
    params.ctx_shift = True  # as many tokens as are asked for, however many: a test may want a reply without an end
    params.cache_ram_mib = 0
    params.n_threads_http = 2 * slots + 4
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.read()
    # The library's own shutdown waits for streams that nobody reads any more.
    os._exit(0)


if __name__ == "__main__":
    main()
