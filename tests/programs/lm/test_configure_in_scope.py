"""``dspy.configure`` inside a usage scope is seen there, as it is outside."""

from __future__ import annotations

from collections.abc import Iterator

import dspy
import pytest

from dspy_live import UsageTracker
from dspy_live.programs.internals import main_thread_config


@pytest.fixture
def unchanged() -> Iterator[None]:
    before = dict(main_thread_config)
    yield
    main_thread_config.update(before)


@pytest.mark.usefixtures("unchanged")
def test_a_setting_changed_inside_a_scope_counts_at_once() -> None:
    with UsageTracker():
        dspy.configure(provide_traceback=True)
        assert dspy.settings.provide_traceback is True
        with UsageTracker(), dspy.context(provide_traceback=False):
            assert dspy.settings.provide_traceback is False
        assert dspy.settings.provide_traceback is True
