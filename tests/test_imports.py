"""What an import of the package takes along: heavy libraries come where they are used."""

from __future__ import annotations

import subprocess
import sys

LATER = ("concurrent_log_handler", "psycopg", "ray", "redis", "rich", "structlog", "uvicorn", "websockets")


def test_all_names_of_the_package_import_no_library_that_only_some_use() -> None:
    code = f"""
import sys
import dspy
before = set(sys.modules)
from dspy_live import *
print([name for name in {LATER!r} if name in sys.modules and name not in before])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
