"""A load inside of one process: programs that call stock ``dspy.Parallel``, an LM with faults, callers that leave.

    python bench/soak_parallel.py LM_URL [--seconds 300] [--workers 60] [--seed 1] [--execution auto]

Started by ``bench/soak.py --load parallel``, which runs the LM. It prints a line a sample and one JSON object at the
end. A crash of the interpreter shows in its exit code, with the stacks of all threads before it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import dspy

from dspy_live import LM, Runtime, asyncify, streamify
from dspy_live.core.errors import LiveError
from dspy_live.layers import Deadline, Limit, Retry, Shed, Timeouts
from dspy_live.layers.detached import leaving
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.execution.execution import parked

RUNS = 40


class Fan(dspy.Module):  # type: ignore[misc,unused-ignore]
    """Asks three questions at the same time through DSPy's own Parallel, and sums the answers up."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.sum = dspy.ChainOfThought("text -> summary")

    def forward(self, question: str) -> Any:
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True, max_errors=10)
        answers = parallel([(self.ask, {"question": f"{question} {n}"}) for n in range(3)])
        return self.sum(text=" ".join(str(a.answer) for a in answers if a is not None))


class Counting:
    """Every run that begins must end, once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.open: set[str] = set()

    def run_started(self, call: Any) -> None:
        self.counts["started"] += 1
        self.open.add(call.id)

    def lm_call_ended(self, record: Any) -> None:
        self.counts["lm requests"] += 1
        self.counts[f"lm {record.error or 'ok'}"] += 1

    def run_ended(self, record: Any) -> None:
        self.counts["ended"] += 1
        self.counts["ended twice"] += record.call.id not in self.open
        self.open.discard(record.call.id)
        self.counts[f"run {type(record.error).__name__ if record.error is not None else 'ok'}"] += 1


class Load:
    """Workers, each of which asks, reads or leaves, again and again."""

    def __init__(self, lm_url: str, options: argparse.Namespace) -> None:
        self.random = random.Random(options.seed)
        self.seen = Counting()
        self.outcomes: Counter[str] = Counter()
        account, self.limit = Account(), Limit(RUNS, queue=15)
        account.observe(self.seen)
        runtime = Runtime(
            account=account,
            layers=[Shed(RUNS + 18), Deadline(6), self.limit],
            lm_layers=[Retry(2), Timeouts(first_token=2, idle=2)],
        )
        lm = LM("openai/gpt-4o-mini", api_base=lm_url, api_key="x", cache=False, num_retries=0)
        # Both keep the last 10,000, so that memory rises for ten minutes.
        dspy.configure(lm=lm, disable_history=True, trace=None)
        self.ask = asyncify(Fan(), runtime=runtime, execution=options.execution)
        self.stream = streamify(Fan(), runtime=runtime, execution=options.execution)

    async def worker(self, until: float) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            behaviour = self.random.choice(("ask", "stream", "cancel the ask", "leave the stream", "cancel the stream"))
            work = asyncio.ensure_future(self.one(behaviour, f"What is {number}?"))
            try:
                if behaviour.startswith("cancel"):
                    await asyncio.wait([work], timeout=self.random.random() * 1.5)
                    work.cancel()
                outcome = await work
            except asyncio.CancelledError:
                outcome = "cancelled"
            except LiveError as exc:
                outcome = type(exc).__name__
                await asyncio.sleep(0.05)  # one that was shed would ask without a pause
            except Exception as exc:
                outcome = type(exc).__name__
            self.outcomes[f"{behaviour}: {outcome}"] += 1

    async def one(self, behaviour: str, question: str) -> str:
        if behaviour.endswith("ask"):
            return "a result" if (await self.ask(question=question)).summary is not None else "no field"
        leave_after = self.random.randint(0, 12) if behaviour == "leave the stream" else None
        items = self.stream(question=question)
        last = None
        async with contextlib.aclosing(items):
            count = 0
            async for item in items:
                last, count = item, count + 1
                if leave_after is not None and count > leave_after:
                    return "left"
        return "a result" if isinstance(last, dspy.Prediction) else "NO RESULT"

    def look(self) -> dict[str, Any]:
        """What there is in this process now."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "slots": self.limit.statistics().active,
            "leaving": leaving(),
            "parked": parked(),
            "counts": dict(self.seen.counts),
        }

    async def run(self, seconds: float, workers: int) -> dict[str, Any]:
        before, began = self.look(), time.monotonic()
        tasks = [asyncio.ensure_future(self.worker(began + seconds)) for _ in range(workers)]
        samples: list[tuple[float, float]] = []
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=min(5.0, seconds / 20))
            found = self.look()
            samples.append((time.monotonic() - began, found["rss_mb"]))
            counts = found["counts"]
            print(
                f"{samples[-1][0]:6.1f} s  {found['rss_mb']:6.1f} MB  {found['threads']} threads  "
                f"{counts.get('started', 0)} started, {counts.get('ended', 0)} ended  "
                f"{counts.get('lm requests', 0)} LM requests",
                flush=True,
            )
        await asyncio.gather(*tasks)
        for _ in range(200):
            after = self.look()
            busy = after["slots"] or after["leaving"] or after["parked"] or after["tasks"] > before["tasks"] + 3
            if not busy and after["counts"]["started"] == after["counts"]["ended"]:
                break
            await asyncio.sleep(0.1)
        gc.collect()
        return {"before": before, "after": self.look(), "samples": samples, "outcomes": dict(self.outcomes)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lm_url")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--workers", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--execution", default="auto")
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    load = Load(options.lm_url, options)
    print(json.dumps(asyncio.run(load.run(options.seconds, options.workers))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
