"""The path of every predictor and module in a program, found once, for copies too.

A path is what ``named_predictors()`` calls it (``"rag.answer"``); a program that is itself a
predictor is ``"self"``. A module that is not part of the program as it was wrapped, such as the
copies that BestOfN and Refine make, is named after the only child of the same shape, else after its class.
"""

from __future__ import annotations

from typing import Any

import dspy


class Names:
    """The names of one program's modules. Made when the program is wrapped; read by any number of runs."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self._paths: dict[int, str] = {}
        # A module with a path is kept alive: an id is reused once its object has gone.
        self._kept: list[Any] = []
        self._shapes: dict[tuple[Any, ...], set[str]] = {}
        if isinstance(program, dspy.Module):
            for path, module in program.named_sub_modules(dspy.Module):
                self._add(_short(path), module)
            for path, predictor in program.named_predictors():
                self._add(path, predictor)

    def _add(self, path: str, module: Any) -> None:
        self._kept.append(module)
        self._paths[id(module)] = path
        self._shapes.setdefault(_shape(module), set()).add(path)

    def has(self, module: Any) -> bool:
        """True for a module that belongs to the program as it was wrapped."""
        return id(module) in self._paths

    def path(self, module: Any) -> str:
        """Return the module's path; 1 µs when it belongs to the program as it was wrapped."""
        found = self._paths.get(id(module))
        if found is not None:
            return found
        same = self._shapes.get(_shape(module))
        if same is not None and len(same) == 1:
            return next(iter(same))
        return type(module).__name__

    def of_callers(self, modules: list[Any]) -> tuple[str, tuple[str, ...]]:
        """Return the path of the innermost of ``caller_modules`` and those of the modules around it."""
        *around, innermost = modules
        return self.path(innermost), tuple(map(self.path, around))


def _short(path: str) -> str:
    return path.removeprefix("self.") or path


def _shape(module: Any) -> tuple[Any, ...]:
    signature = getattr(module, "signature", None)
    fields = tuple(signature.fields) if signature is not None and hasattr(signature, "fields") else ()
    return (type(module), fields)
