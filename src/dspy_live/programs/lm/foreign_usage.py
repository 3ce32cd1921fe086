"""Books what LM objects that are not ours use inside a run: DSPy tells its usage tracker, and that is us."""

from __future__ import annotations

import time
from typing import Any

from dspy_live.core.errors import BudgetExceeded, Stop
from dspy_live.core.events import Usage
from dspy_live.core.usage import NOTHING, LMRecord, LMUsage
from dspy_live.programs.internals import overrides
from dspy_live.programs.run.run import Run


class ForeignBooks:
    """Stands in for DSPy's usage tracker while an adapter asks a foreign LM, and tells the real one too.

    Raises :class:`Stop` when it is made while a budget is spent.
    """

    def __init__(self, run: Run, lm: Any) -> None:
        self._run = run
        self._model = str(getattr(lm, "model", None) or type(lm).__name__)
        self._outer = overrides().get("usage_tracker")
        modules = overrides().get("caller_modules")
        self._path, self._around = run.names.of_callers(modules) if modules else ("lm", ())
        self._began = time.monotonic()
        self._told = False
        try:
            self._meters = run.runtime.account.admit(run.meters)
        except BudgetExceeded as exc:
            raise Stop(exc) from exc

    def __deepcopy__(self, _: Any) -> ForeignBooks:
        return self  # dspy.Parallel gives each of its threads a copy, whose figures are lost

    def add_usage(self, lm: str, usage: dict[str, Any]) -> None:
        """The LM has answered; DSPy calls this for what did not come from its cache."""
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
        run = self._run
        account = run.runtime.account
        cost = account.price(self._model, usage) if usage else None
        number = next(run.numbers)
        record = LMRecord(
            model=self._model,
            run=run.call.id,
            program=run.program,
            predictor=self._path,
            modules=self._around,
            lm_call=number,
            usage=usage,
            cost=cost,
            cache="hit" if cached else "off",
            error=error,
            latency=time.monotonic() - self._began,
            key=str(run.call.attributes.get("key", "")),
        )
        account.record(record, self._meters)
        if error is None:
            run.push(
                Usage(
                    self._model, self._path, number, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens,
                    usage.cached_tokens, usage.reasoning_tokens, 0.0 if cached else cost, cached,
                )
            )  # fmt: skip
