"""Books the usage of LM objects that are not ours inside a run: it stands in for DSPy's usage tracker."""

from __future__ import annotations

import time
from typing import Any

from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import BudgetExceeded, Stop
from dspy_live.core.usage import NOTHING, LMUsage
from dspy_live.programs.internals import overrides
from dspy_live.programs.lm.booking import lm_record, usage_event
from dspy_live.programs.run.run import Run


class ForeignUsage:
    """Stands in for DSPy's usage tracker while an adapter asks a foreign LM, and tells the real one too.

    Raises :class:`Stop` when it is made while a budget is spent.
    """

    def __init__(self, run: Run, lm: Any) -> None:
        self._run = run
        self._model = str(getattr(lm, "model", None) or type(lm).__name__)
        self._outer = overrides().get("usage_tracker")
        modules = overrides().get("caller_modules")
        self._predictor, self._around = run.names.of_callers(modules) if modules else ("lm", ())
        self._began = time.monotonic()
        self._told = False
        try:
            self._meters = run.runtime.account.admit(run.call.meters)
        except BudgetExceeded as exc:
            run.stop(exc)
            raise Stop(exc) from exc

    def __deepcopy__(self, _: Any) -> ForeignUsage:
        return self  # dspy.Parallel gives each of its threads a copy, whose counts are lost

    def add_usage(self, lm: str, usage: dict[str, Any]) -> None:
        """The LM has answered; DSPy calls this for a reply that did not come from its cache."""
        self._told = True
        if self._outer is not None:
            self._outer.add_usage(lm, usage)
        self._book(LMUsage.parse(usage) or NOTHING, None)

    def ended(self, error: BaseException | None) -> None:
        """The adapter has its reply, or has failed. Without a word on usage, that came from DSPy's cache."""
        if self._told:
            return
        if error is not None:
            self._book(NOTHING, type(error).__name__)
        else:
            self._book(NOTHING, None, cached=True)

    def _book(self, usage: LMUsage, error: str | None, *, cached: bool = False) -> None:
        run, account = self._run, self._run.runtime.account
        origin = Origin(run.id, run.program, self._predictor, self._around, next(run.numbers))
        call = Call(model=self._model, key=run.call.key, origin=origin)
        cost = account.price(self._model, usage) if usage else None
        latency = time.monotonic() - self._began
        use = "hit" if cached else "off"
        record = lm_record(call, self._model, usage, cost, use, error=error, latency=latency)  # type: ignore[arg-type]
        account.record(record, self._meters)
        if error is None:
            run.push(usage_event(call, self._model, usage, 0.0 if cached else cost, cached=cached))
