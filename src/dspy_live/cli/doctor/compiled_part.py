"""The compiled part: is it installed, does it fit, and what does it give?"""

from __future__ import annotations

import sys

from dspy_live.cli.doctor.finding import Finding
from dspy_live.runtime.native import SWITCH, UPDATE, find_native

_NAME = "native"
_USE = "about half of the CPU per chunk of streams whose LM is reached over plain HTTP"


def compiled_part() -> Finding:
    """Look at the distribution ``dspy-live-native``; streams go without it too."""
    if sys.platform != "linux":
        return Finding("ok", _NAME, "the compiled part is for Linux only")
    found = find_native()
    if found.state == "installed":
        return Finding("ok", _NAME, f"{found.detail}: {_USE}")
    if found.state == "missing":
        return Finding(
            "ok", _NAME, f"not installed, and not needed; it gives {_USE}", "pip install 'dspy-live[native]'"
        )
    if found.state == "switched off":
        return Finding("note", _NAME, f"{found.detail}; it gives {_USE}", f"unset {SWITCH}")
    return Finding("note", _NAME, f"{found.detail}; streams go without it", UPDATE)
