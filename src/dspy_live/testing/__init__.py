"""For tests of services, channels, stores and layers, ours and yours. Nothing in the product imports it."""

from dspy_live.testing.cancellation import Ending, explore_cancellation
from dspy_live.testing.conformance_channel import ChannelConformance
from dspy_live.testing.conformance_service import ServiceConformance
from dspy_live.testing.conformance_store import StoreConformance
from dspy_live.testing.schedules import explore
from dspy_live.testing.scripted import Attempt, Recorder, ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import Deadlock, VirtualLoop, run_virtual, virtual_time

__all__ = [
    "Attempt",
    "ChannelConformance",
    "Deadlock",
    "Ending",
    "Recorder",
    "ScriptedService",
    "ServiceConformance",
    "StoreConformance",
    "VirtualLoop",
    "Wait",
    "collect",
    "explore",
    "explore_cancellation",
    "run_virtual",
    "virtual_time",
]
