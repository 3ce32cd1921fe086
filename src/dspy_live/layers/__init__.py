"""One behaviour per file; each turns a service into a service. ``docs/guides/layers.md`` has their order."""

from dspy_live.layers.adaptive import Adaptive
from dspy_live.layers.breaker import Breaker
from dspy_live.layers.budget import Budget, per_call, per_key
from dspy_live.layers.cache import Cache
from dspy_live.layers.deadline import Deadline
from dspy_live.layers.detached import Detached
from dspy_live.layers.fallback import Fallback
from dspy_live.layers.limit import Limit
from dspy_live.layers.meter import meter
from dspy_live.layers.rate import Rate
from dspy_live.layers.retry import Retry
from dspy_live.layers.shared_budget import SharedBudget
from dspy_live.layers.shared_limit import SharedLimit
from dspy_live.layers.shared_rate import SharedRate
from dspy_live.layers.shared_single_flight import SharedSingleFlight
from dspy_live.layers.shed import Shed
from dspy_live.layers.single_flight import SingleFlight
from dspy_live.layers.timeouts import Timeouts
from dspy_live.sansio.limits.order import check_order

__all__ = [
    "Adaptive",
    "Breaker",
    "Budget",
    "Cache",
    "Deadline",
    "Detached",
    "Fallback",
    "Limit",
    "Rate",
    "Retry",
    "SharedBudget",
    "SharedLimit",
    "SharedRate",
    "SharedSingleFlight",
    "Shed",
    "SingleFlight",
    "Timeouts",
    "check_order",
    "meter",
    "per_call",
    "per_key",
]
