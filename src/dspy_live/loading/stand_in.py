"""The endpoint of the LM that commands ask where no other LM is configured."""

from __future__ import annotations

from dspy_live.simulator.endpoint import SimulatedEndpoint


class StandIn(SimulatedEndpoint):
    """The simulated LM that nobody asked for: it gives way to any LM that a program or the settings name."""

    stand_in = True
