"""How many replicas there should be, by the runs that are under way.

Ray counts requests. A WebSocket that waits for its next question is one, and a run of ``POST /runs`` that nobody reads
is none. So each replica tells its own number, and this policy divides it.
"""

from __future__ import annotations

from typing import Any

ACTIVE = "active_runs"


class RunsPerReplica:
    """Ray Serve's custom policy: as many replicas as the runs need.

    Ray itself keeps the result between the least and the most, and applies the delays. See
    https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html

    Args:
        active: the runs per replica that are aimed at.
    """

    def __init__(self, active: int) -> None:
        self._active = active

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Return the number wanted, which Ray rounds up, and the state that the policy keeps: none."""
        per_replica = (context.aggregated_metrics or {}).get(ACTIVE) or {}
        running = sum(per_replica.values())
        waiting = context.total_queued_requests or 0.0
        return (running + waiting) / self._active, {}
