"""Several choices for one request: as many runs of the program, at once."""

from __future__ import annotations

import asyncio

from dspy_live.core.call import Call, new_id
from dspy_live.core.events import Predicted
from dspy_live.server.encoders.sinks import UsageSink
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.served import ServedProgram


async def run_choices(
    program: ServedProgram, call: Call, n: int, totals: RunTotals
) -> list[tuple[Predicted, RunTotals]]:
    """Run the program ``n`` times and return each prediction with its own totals; ``totals`` has the sum.

    Each run but the first has a ``rollout_id`` of its own: from the cache all would be the same. The first failure ends
    the others and is raised; so does a cancellation.
    """
    if n == 1:
        return [(await program.run(call, UsageSink(totals), totals), totals)]
    before = call.config.get("rollout_id")
    calls = [call]
    for i in range(1, n):
        rollout = i if before is None else f"{before}-{i}"
        calls.append(call.but(id=new_id(), config={**call.config, "rollout_id": rollout}))

    async def one(call: Call) -> tuple[Predicted, RunTotals]:
        own = RunTotals()
        return await program.run(call, UsageSink(own, totals), own), own

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each)) for each in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
