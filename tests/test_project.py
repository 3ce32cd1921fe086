"""The project itself: its public names, its versions, its lock file, and what must stand nowhere in the tree."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

import dspy_live
from dspy_live.runtime.native import INTERFACE

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "dspy_live"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names_of(path: Path) -> list[str] | None:
    """The ``__all__`` of a package as its text has it, ``None`` where it has none."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


PACKAGES = {
    ".".join(("dspy_live", *path.parent.relative_to(SOURCE).parts)): names
    for path in sorted(SOURCE.rglob("__init__.py"))
    if (names := names_of(path)) is not None
}


@cache
def package(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_exist_are_documented_and_are_listed_once(name: str) -> None:
    names = PACKAGES[name]
    assert names == sorted(set(names), key=_as_ruff_sorts), "not in order, or listed twice"
    for public in names:
        found = getattr(package(name), public)
        if inspect.isclass(found) or inspect.isroutine(found):
            assert _documentation(found), f"{name}.{public} says nothing of itself"


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def _documentation(found: Any) -> str:
    text = inspect.getdoc(found) or ""
    # What a dataclass or a struct writes by itself is no documentation, nor is what is inherited.
    own = found.__dict__.get("__doc__") if inspect.isclass(found) else text
    return "" if not own or own.startswith(f"{getattr(found, '__name__', '')}(") else own


# create_app: dspy_live's takes programs, the server's takes services. Reply: a server's to its client, the
# simulated LM's own. main: where a process begins.
_TWICE = {"create_app", "Reply", "main"}


def test_a_name_that_two_packages_export_is_the_same_thing() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for name, names in PACKAGES.items():
        for public in names:
            found = getattr(package(name), public)
            if public in seen and public not in _TWICE:
                other, first = seen[public]
                assert found is first, f"{public} is one thing in {other} and another in {name}"
            seen[public] = (name, found)


def test_the_front_page_of_the_package_agrees_with_itself() -> None:
    assert set(dspy_live.__all__) == set(dspy_live._HOMES)
    text = (SOURCE / "__init__.py").read_text()
    typed = text.partition("if TYPE_CHECKING:")[2].partition("\n\n")[0]
    imported = {part.strip(" (),\n") for line in re.findall(r"import ([^\n]+)", typed) for part in line.split(",")}
    assert set(dspy_live.__all__) <= imported, "a type checker does not see every public name"
    assert set(dspy_live.__all__) <= set(dir(dspy_live))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        dspy_live.nothing_of_the_kind  # noqa: B018


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == dspy_live.__version__
    assert f"## {dspy_live.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_extra_takes_the_compiled_part_that_is_made_here() -> None:
    (extra,) = map(Requirement, PROJECT["project"]["optional-dependencies"]["native"])
    crate = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["package"]
    assert extra.name == crate["name"] == "dspy-live-native"
    assert extra.specifier.contains(crate["version"], prereleases=True)
    assert f"{extra.name}==" not in (ROOT / "requirements.lock").read_text(), "the lock can't have what is built here"
    number = re.search(r"const INTERFACE: u32 = (\d+);", (ROOT / "native" / "src" / "python.rs").read_text())
    assert number is not None
    assert int(number[1]) == INTERFACE


def test_the_lock_file_satisfies_every_requirement() -> None:
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.M):
        locked.setdefault(re.sub(r"[-_.]+", "-", name).lower(), []).append(version)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["dependency-groups"]["dev"],
        *(item for extra in extras.keys() - {"ray", "native"} for item in extras[extra]),
    ]
    for item in wanted:
        requirement = Requirement(item)
        found = locked.get(re.sub(r"[-_.]+", "-", requirement.name).lower(), [])
        assert any(requirement.specifier.contains(v, prereleases=True) for v in found), f"{item}: locked is {found}"


def test_every_locked_version_has_hashes() -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text().strip())
    for entry in entries:
        if not entry.startswith("#"):
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


@cache
def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


# Put together here, so that this file does not have what it looks for.
_HOSTS = ["pypi" + ".org", "pythonhosted" + ".org", "crates" + ".io", "npmjs" + ".org", "proxy.golang" + ".org"]
_PLACES = ["/work" + "/main", "/work" + "/shared", "/work" + "/.library", "/root" + "/"]


@pytest.mark.parametrize("word", [*_HOSTS, *_PLACES])
def test_no_registry_and_no_place_of_one_machine_is_named(word: str) -> None:
    found = [path for path in tracked() if word.encode() in path.read_bytes()]
    assert not found, f"{word} stands in {', '.join(str(p.relative_to(ROOT)) for p in found)}"


def test_scripts_can_be_executed() -> None:
    for script in (ROOT / ".ci/run", *(ROOT / "scripts").glob("*.sh")):
        assert os.access(script, os.X_OK), script
        assert "set -euo pipefail" in script.read_text(), script


def test_classifiers_name_the_pythons_that_a_release_is_tried_with() -> None:
    named = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if ":: Python :: 3." in text]
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    tried = re.search(r'make wheel PYTHONS="([^"]+)"', workflow)
    assert tried is not None
    assert [f"python{version}" for version in named] == tried[1].split()
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_the_wheel_has_everything_that_is_no_python(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for guide in (ROOT / "docs" / "guides").glob("*.md"):
        assert f"dspy_live/_guides/{guide.name}" in names
    for path in SOURCE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(SOURCE.parent)) in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
