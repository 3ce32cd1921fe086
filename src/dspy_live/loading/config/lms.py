"""The LMs of the file: what each is made with, and the layers around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.service import Layer, Service, compose
from dspy_live.layers import Fallback, SingleFlight
from dspy_live.loading.config.layers import LayerMaker
from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.shape import LMTable
from dspy_live.loading.lm_settings import LMSettings

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM

DEFAULT = ""
"""Stands for the table ``[lm]`` among the names of LMs."""
_NUM_RETRIES = 3
"""The retries of a ``dspy.LM`` by default."""
_NO_OPTIONS = frozenset({"model", "api_key_env", "options", "fallback", "layers"})


def lm_options(table: LMTable, file: ConfigFile) -> dict[str, Any]:
    """Return the keywords of an LM that a table gives, without the model's name."""
    given = {name: value for name, value in msgspec.structs.asdict(table).items() if value is not None}
    options = {name: value for name, value in given.items() if name not in _NO_OPTIONS}
    if table.api_key_env is not None:
        options["api_key"] = file.secret(None, table.api_key_env)
    return {**table.options, **options}


class LMs:
    """The LMs of one file; layers are made once, so that programs with one LM share its limits.

    Args:
        file: the file.
        maker: makes the layers.
    """

    def __init__(self, file: ConfigFile, maker: LayerMaker) -> None:
        self._file = file
        self._maker = maker
        self._layers: dict[str, list[Layer]] = {}

    def settings(self, name: str) -> LMSettings:
        """Return what the LM of a name of ``[lms]`` is made with."""
        table = self._table(name)
        return LMSettings(
            table.model, lm_options(table, self._file), explicit=True, source=f"{self._file.path}, lms.{name}"
        )

    def make(self, name: str) -> LM:
        """Make the LM of a name of ``[lms]``. Raises :class:`ConfigurationError` where it can't be made."""
        from dspy_live.programs.lm.lm import LM

        settings = self.settings(name)
        try:
            return LM(str(settings.model), **settings.options)
        except Exception as exc:
            raise ConfigurationError(f"no LM {settings.model!r} ({settings.source}): {exc}") from exc

    def layers(self, name: str) -> list[Layer]:
        """Return the layers around an LM, :data:`DEFAULT` or a name, the outermost first."""
        table = self._table(name)
        own = self._own(name, retried=bool(table.fallback))
        if not table.fallback:
            return own
        flight = [layer for layer in own if isinstance(layer, SingleFlight)]
        others = Fallback(*(self._other(other) for other in table.fallback))
        return [*flight, others, *(layer for layer in own if layer not in flight)]

    def _own(self, name: str, *, retried: bool) -> list[Layer]:
        """Return an LM's layers but for the others that answer when it fails.

        ``retried``: its own ``num_retries`` would stand outside of those others, so that every try would ask them all.
        """
        if name not in self._layers:
            table = self._table(name)
            layers = table.layers
            if retried and layers.retry is None:
                tries = 1 + (_NUM_RETRIES if table.num_retries is None else table.num_retries)
                layers = msgspec.structs.replace(layers, retry=tries)
            self._layers[name] = self._maker.lm(name or "lm", layers)
        return self._layers[name]

    def _other(self, name: str) -> Service:
        """Return an LM that answers when another one fails, inside of its own limits; its own fallback is not asked."""
        return compose(self.make(name).service(), self._own(name, retried=True))

    def _table(self, name: str) -> LMTable:
        if name == DEFAULT:
            return self._file.config.lm or LMTable()
        return self._file.config.lms[name]
