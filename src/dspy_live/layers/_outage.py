"""What a shared limit does while its server does not answer."""

from __future__ import annotations

import logging
from typing import Literal

from dspy_live.core.errors import ConfigurationError

OnOutage = Literal["alone", "refuse"]


class Outage:
    """Whether the server answers, told by a warning when that changes.

    Args:
        name: what the warnings name.
        choice: ``"alone"`` goes on in each process alone, ``"refuse"`` lets nothing through.
        logger: gets the warnings.
    """

    def __init__(self, name: str, choice: OnOutage, logger: logging.Logger) -> None:
        if choice not in ("alone", "refuse"):
            raise ConfigurationError(f"on_outage must be 'alone' or 'refuse'; got {choice!r}")
        self._name, self._choice, self._logger = name, choice, logger
        self.down = False

    @property
    def refuses(self) -> bool:
        """True while nothing may pass for want of the server."""
        return self.down and self._choice == "refuse"

    def begins(self, error: Exception) -> None:
        """The server did not answer."""
        if not self.down:
            self.down = True
            does = "this process counts alone" if self._choice == "alone" else "calls are refused"
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._logger.warning(
                "%s can't be shared while its server does not answer (%s): %s", self._name, reason, does
            )

    def ends(self) -> None:
        """The server has answered."""
        if self.down:
            self.down = False
            self._logger.warning("%s is shared again", self._name)
