"""The compiled part is taken where it fits, and left alone with one line in the log where it does not."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from dspy_live.runtime.native import INTERFACE, SWITCH, find_native, native


@pytest.fixture(autouse=True)
def looked_for_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(SWITCH, raising=False)
    native.cache_clear()
    yield
    native.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **content: object) -> ModuleType:
    module = ModuleType("dspy_live_native")
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, "dspy_live_native", module)
    return module


@pytest.mark.skipif(sys.platform != "linux", reason="there is no compiled part but for Linux")
def test_the_one_that_setup_builds_is_taken() -> None:
    found = find_native()
    assert found.state == "installed", f"{found.detail}: make setup, with cargo"
    assert native() is found.module
    assert found.module.INTERFACE == INTERFACE
    assert found.module.__version__ == importlib.metadata.version("dspy-live-native")


def test_one_that_fits_is_taken_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    module = install(monkeypatch, INTERFACE=INTERFACE, __version__="0.1.9")
    assert native() is module
    assert find_native().detail == "dspy-live-native 0.1.9"
    monkeypatch.setenv(SWITCH, "0")
    native.cache_clear()
    assert native() is None
    assert find_native().detail == "switched off by DSPY_LIVE_NATIVE=0"


def test_one_of_another_interface_is_left_alone_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The two are released apart, so that an update of one leaves the other behind."""
    install(monkeypatch, INTERFACE=INTERFACE + 1, __version__="0.2.0")
    with caplog.at_level(logging.WARNING, "dspy_live"):
        assert native() is native() is None
    (line,) = [record.getMessage() for record in caplog.records]
    ours = importlib.metadata.version("dspy-live")
    assert f"dspy-live-native 0.2.0 has interface {INTERFACE + 1}, dspy-live {ours} needs {INTERFACE}" in line
    assert "pip install -U 'dspy-live[native]'" in line


def test_one_that_says_nothing_of_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Splicer=object)
    found = find_native()
    assert found.state == "other"
    assert found.detail.startswith("dspy-live-native unknown has interface none, ")


def test_none_is_no_reason_for_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "dspy_live_native", None)
    assert native() is None
    assert find_native().state == "missing"
    assert not caplog.records


def test_one_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Loader:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "dspy_live_native":
                raise ImportError("GLIBC_2.17 not found")

    monkeypatch.delitem(sys.modules, "dspy_live_native", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Loader(), *sys.meta_path])
    with caplog.at_level(logging.WARNING, "dspy_live"):
        assert native() is None
    assert "can't be loaded: GLIBC_2.17 not found" in caplog.text
