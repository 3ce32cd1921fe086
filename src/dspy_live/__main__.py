"""``python -m dspy_live`` is the command ``dspy-live``."""

from __future__ import annotations

import sys

from dspy_live.cli import main

if __name__ == "__main__":
    sys.exit(main())
