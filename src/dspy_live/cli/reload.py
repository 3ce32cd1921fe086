"""``serve --reload``: the process that serves is started again when a Python file has changed."""

from __future__ import annotations

from pathlib import Path

from uvicorn.supervisors.statreload import StatReload


class ReloadFromTheStart(StatReload):
    """Knows the files as they were before the process began that reads them.

    uvicorn's own looks at them for the first time a quarter of a second after that or, on a busy machine, much later:
    it took what was saved in between for what the process had read, and served the older program.
    """

    def startup(self) -> None:
        """Look, and start the first process."""
        self.mtimes = self._looked_at()
        super().startup()

    def restart(self) -> None:
        """Look, and start another process when the one before it has ended."""
        files = self._looked_at()
        super().restart()
        self.mtimes = files

    def _looked_at(self) -> dict[Path, float]:
        found = {}
        for file in self.iter_py_files():
            try:
                found[file] = file.stat().st_mtime
            except OSError:  # it has just been removed
                continue
        return found
