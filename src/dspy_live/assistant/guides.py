"""The guides: the documentation's own pages, read where they are installed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dspy_live.core.errors import ConfigurationError, NotFound

ALIASES: dict[str, str] = {
    "install": "start",
    "upgrade": "start",
    "licence": "start",
    "license": "start",
    "production": "going-live",
    "jwt": "going-live",
    "memory": "going-live",
    "shell": "assistant",
    "convert": "assistant",
    "conversion": "assistant",
    "help": "assistant",
    "asynchronous": "async",
    "asyncify": "async",
    "await": "async",
    "checkpoint": "batch",
    "stream": "streaming",
    "streamify": "streaming",
    "status": "streaming",
    "tokens": "usage",
    "cost": "usage",
    "budget": "usage",
    "cache": "caching",
    "redis": "caching",
    "log": "logging",
    "logs": "logging",
    "buffer": "backpressure",
    "overflow": "backpressure",
    "timeout": "timeouts",
    "cancel": "timeouts",
    "cancellation": "timeouts",
    "deadline": "timeouts",
    "retry": "retries",
    "limits": "retries",
    "fallback": "retries",
    "server": "serving",
    "serve": "serving",
    "http": "serving",
    "sse": "serving",
    "fastapi": "serving",
    "ws": "websocket",
    "metrics": "observability",
    "tracing": "observability",
    "prometheus": "observability",
    "opentelemetry": "observability",
    "tests": "testing",
    "pytest": "testing",
    "simulator": "testing",
    "threads": "execution",
    "inline": "execution",
    "layer": "layers",
    "runtime": "layers",
    "k8s": "kubernetes",
    "https": "tls",
    "cli": "command-line",
    "commands": "command-line",
    "config": "configuration",
    "keys": "configuration",
    "mcp": "front-ends",
    "openai": "serving",
    "session": "sessions",
    "history": "sessions",
    "jupyter": "interfaces",
    "notebook": "interfaces",
    "notebooks": "interfaces",
    "streamlit": "interfaces",
    "gradio": "interfaces",
    "langchain": "interfaces",
    "ollama": "models",
    "vllm": "models",
    "optimised": "programs",
    "optimized": "programs",
    "evaluation": "programs",
    "images": "programs",
    "alternatives": "comparison",
    "workers": "scale",
    "ray": "scale",
    "errors": "troubleshooting",
}
"""Other words for a page, as people type them."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One section of a guide: the text under one heading."""

    page: str
    heading: str
    text: str

    @property
    def code(self) -> list[str]:
        """The section's Python examples."""
        return _CODE.findall(self.text)

    @property
    def prose(self) -> str:
        """The section without its code blocks."""
        return _FENCE.sub("", self.text).strip()

    @property
    def is_error(self) -> bool:
        """True for a section about an error: its heading is the message, in backticks."""
        return self.heading.startswith("`")

    @property
    def place(self) -> str:
        """The section's name for a person: its page and its heading."""
        return f"{self.page}: {self.heading}"


@dataclass(frozen=True, slots=True)
class Guide:
    """One page.

    Args:
        name: its file's name without the suffix: the topic of ``/explain``.
        title: its first heading.
        text: the whole page, in Markdown.
        passages: its sections; the first ends at the second heading.
    """

    name: str
    title: str
    text: str
    passages: tuple[Passage, ...]

    @property
    def summary(self) -> str:
        """The first sentence of the page."""
        prose = self.passages[0].prose if self.passages else ""
        return re.split(r"(?<=[.:])\s", " ".join(prose.split()), maxsplit=1)[0]

    @property
    def example(self) -> str | None:
        """The page's first Python example: it stands alone."""
        return next((code for passage in self.passages for code in passage.code), None)


_FENCE = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```python[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


MORE = ("command-line", "comparison", "compatibility", "migration", "scale", "troubleshooting")
"""Pages for users that stand beside the guides' folder."""

FOLDERS = ("cookbook", "deploy")
"""Folders of pages beside the guides' own; the package has them, and the pages of MORE, in the guides' folder."""


def folder() -> Path:
    """Return where the guides are: in the installed package, or in the working copy's ``docs``.

    Raises :class:`ConfigurationError` when they are in neither.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "_guides", package.parents[1] / "docs" / "guides"):
        if place.is_dir():
            return place
    raise ConfigurationError("the guides are not installed; install dspy-live again")


def _files() -> list[Path]:
    """Return the files of all pages, by name."""
    place = folder()
    around = place if place.name == "_guides" else place.parent
    found = [*place.glob("*.md"), *(around / f"{name}.md" for name in MORE)]
    found += [path for folder in FOLDERS for path in (around / folder).glob("*.md")]
    return sorted({path for path in found if path.stem != "index" and path.is_file()}, key=lambda path: path.stem)


def parse(name: str, text: str) -> Guide:
    """Split a page of Markdown into its sections; headings inside code blocks are code."""
    fenced = [match.span() for match in _FENCE.finditer(text)]
    heads = [
        match
        for match in re.finditer(r"^(#{1,3}) +(.+?) *$", text, re.MULTILINE)
        if not any(start <= match.start() < end for start, end in fenced)
    ]
    title = next((match[2] for match in heads if match[1] == "#"), name)
    passages = []
    for match, following in zip(heads, [*heads[1:], None], strict=True):
        body = text[match.end() : following.start() if following else None].strip()
        if body:
            passages.append(Passage(name, match[2], body))
    return Guide(name, title, text, tuple(passages))


@lru_cache(maxsize=1)
def guides() -> tuple[Guide, ...]:
    """Return all guides, by name. The index is not one of them."""
    return tuple(parse(path.stem, path.read_text("utf-8")) for path in _files())


def find_guide(topic: str, among: Sequence[Guide] | None = None) -> Guide:
    """Return the guide of a topic.

    Raises :class:`NotFound` with the nearest topics when there is none of that name.
    """
    pages = {guide.name: guide for guide in (guides() if among is None else among)}
    plain = re.sub(r"[\s_]+", "-", topic.strip().lower())
    for word in (plain, plain.rstrip("s"), *plain.split("-")):
        name = ALIASES.get(word, word)
        if name in pages:
            return pages[name]
    raise NotFound(f"there is no topic {topic.strip()!r}; {suggest(plain, [*pages, *ALIASES], pages)}")


def suggest(word: str, known: Iterable[str], all_of: Iterable[str]) -> str:
    """Return ``did you mean 'x'?``, or the list of all names."""
    near = difflib.get_close_matches(word, sorted(set(known)), n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    return f"there are: {', '.join(sorted(all_of))}"
