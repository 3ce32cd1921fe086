"""DSPy's usage tracker, right in threads too, and the tokens of each prediction."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import dspy
from dspy.utils.usage_tracker import UsageTracker as DspyUsageTracker

from dspy_live.programs.internals import ACTIVE_CALL_ID, BaseCallback, settings
from dspy_live.runtime.forks import process_lock

# One for all trackers that are not ours: two runs may have the same one around them.
_theirs = process_lock()


class SharedUsageTracker(DspyUsageTracker):
    """DSPy's tracker, one for all threads: ``dspy.Parallel`` makes a deep copy for each of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> SharedUsageTracker:
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Book one LM call."""
        with self._lock:
            super().add_usage(lm, usage_entry)

    def get_total_tokens(self) -> dict[str, dict[str, Any]]:
        """Return the counts by LM."""
        with self._lock:
            totals: dict[str, dict[str, Any]] = super().get_total_tokens()
            return totals


class RunUsageTracker(SharedUsageTracker):
    """The tracker of one run: it counts for the run, for the tracker around the run, and for each prediction.

    Args:
        around: the tracker of the block that the run is made in, or of the run around it; ``None`` where there is none.
    """

    def __init__(self, around: Any) -> None:
        super().__init__()
        self.usage_data = _UsageData(self)
        self._around = around
        self.predictions = None if isinstance(around, RunUsageTracker) else PredictionUsage()

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Book one LM call, made by the code that calls this."""
        super().add_usage(lm, usage_entry)
        if self.predictions is not None:
            self.predictions.add_usage(lm, usage_entry)
        if isinstance(self._around, SharedUsageTracker):
            self._around.add_usage(lm, usage_entry)
        elif self._around is not None:
            with _theirs:
                self._around.add_usage(lm, usage_entry)


class _UsageData(defaultdict[str, list[Any]]):
    """A tracker's entries by LM. ``dspy.track_usage()`` in a program extends them at its end, and so books them."""

    def __init__(self, tracker: RunUsageTracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __missing__(self, lm: str) -> list[Any]:
        entries = self[lm] = _Entries(self._tracker, lm)
        return entries


class _Entries(list[Any]):
    def __init__(self, tracker: RunUsageTracker, lm: str) -> None:
        super().__init__()
        self._tracker = tracker
        self._lm = lm

    def extend(self, entries: Iterable[Any]) -> None:
        for entry in list(entries):
            self._tracker.add_usage(self._lm, entry)


class PredictionUsage(BaseCallback):  # type: ignore[misc,unused-ignore]
    """Tells each prediction of a run what its module call has used, the calls inside of that one included.

    DSPy tells the outermost module's prediction only. Which calls are around an LM call is known by DSPy's ids of them,
    which it hands on to the threads of ``dspy.Parallel``.
    """

    def __init__(self) -> None:
        # By the id of a call that goes on: the call around it, and for a module what it has used.
        self._calls: dict[str, tuple[str | None, SharedUsageTracker | None]] = {}

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Book an LM call for every module call around the code that calls this."""
        call_id = ACTIVE_CALL_ID.get()
        while call_id is not None:
            call_id, tracker = self._calls.get(call_id, (None, None))
            if tracker is not None:
                tracker.add_usage(lm, usage_entry)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._calls[call_id] = (ACTIVE_CALL_ID.get(), SharedUsageTracker())

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        _, tracker = self._calls.pop(call_id, (None, None))
        prediction = outputs[0] if isinstance(outputs, tuple) and outputs else outputs
        # In a dspy.track_usage() of the program's own, its tracker has counted.
        counted = isinstance(settings.usage_tracker, SharedUsageTracker)
        if tracker is not None and counted and isinstance(prediction, dspy.Prediction):
            prediction.set_lm_usage(tracker.get_total_tokens())

    def _begin(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._calls[call_id] = (ACTIVE_CALL_ID.get(), None)

    def _end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._calls.pop(call_id, None)

    on_lm_start = on_tool_start = on_evaluate_start = on_compile_start = _begin
    on_lm_end = on_tool_end = on_evaluate_end = on_compile_end = _end
    on_interpreter_execute_start = on_interpreter_tool_call_start = _begin
    on_interpreter_execute_end = on_interpreter_tool_call_end = _end
