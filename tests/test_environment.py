"""The tests run apart from the developer's own dspy cache, keys and price table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def test_dspy_keeps_its_cache_in_a_temporary_folder() -> None:
    import dspy

    wanted = Path(os.environ["DSPY_CACHEDIR"])
    assert wanted.is_relative_to(tempfile.gettempdir())
    assert Path(dspy.cache.disk_cache.directory).is_relative_to(wanted)


def test_no_key_of_the_developer_is_seen() -> None:
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "true"
