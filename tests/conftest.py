"""What every test relies on. The environment is set here, before anything imports dspy."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

_HOME = tempfile.mkdtemp(prefix="dspy-live-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# dspy opens its disk cache, and litellm its price table, when they are imported.
os.environ["DSPY_CACHEDIR"] = os.path.join(_HOME, "cache")  # noqa: PTH118
os.environ["DSPY_LIVE_HOME"] = os.path.join(_HOME, "live")  # noqa: PTH118
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

# A developer's own keys, proxies and settings must never decide what a test does.
for _name in list(os.environ):
    if _name.endswith("_API_KEY") or _name.startswith(("DSPY_LIVE_LM", "DSPY_LIVE_API", "OPENAI_")):
        del os.environ[_name]
    elif _name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
        del os.environ[_name]

# How fast a machine draws examples is no property of the code; CI's is shared and slow at times. The suite draws the
# same examples each time, so that it judges a change and not its luck; `make search` draws others.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=1000, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# The real LM server: the fixture ``lm_server``, started only where a test asks for it.
pytest_plugins = ["tests.support.lm_server", "tests.support.databases"]


@pytest.fixture(autouse=True)
def _dspy_is_configured_as_before() -> Iterator[None]:
    """What a test gives to ``dspy.configure`` ends with it; a module's own fixtures have done theirs by now."""
    before = _configuration()
    kept = dict(before) if before is not None else None
    yield
    after = _configuration()
    if after is not None:
        defaults = sys.modules["dspy.dsp.utils.settings"].DEFAULT_CONFIG
        after.clear()
        after.update(kept if kept is not None else defaults)


def _configuration() -> dict[str, object] | None:
    module = sys.modules.get("dspy.dsp.utils.settings")
    return None if module is None else module.main_thread_config


@pytest.fixture(autouse=True)
def _settings_stay() -> Iterator[None]:
    """What a test configures in DSPy is that test's own."""
    config = getattr(sys.modules.get("dspy.dsp.utils.settings"), "main_thread_config", None)
    before = dict(config) if config is not None else None
    yield
    if config is not None and before is not None:
        config.clear()
        config.update(before)
