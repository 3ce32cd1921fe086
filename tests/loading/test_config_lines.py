"""The line of each key, against ``tomllib``: whatever it finds in a text has a line, and the right one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.loading.config.lines import lines_of

TEXT = '''# a comment
a = 1
[b.c]
x.y = [1, 2,
  { z = "}" , w = 3}, "]", '#']  # more = 1
"q.r" = """
[no]
\\""" """
'lit' = \'\'\'
x = 1\'\'\'
[[d]]
e = 1979-05-27 07:32:00
[[d]]
[d.f]
g = { h = { i = 2 }, "j k" = [] }
[ t . "u v" ]
s = "a # \\" b"
'''


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from paths(entry, (*path, name))


def test_each_key_has_its_line() -> None:
    lines = lines_of(TEXT)
    assert set(paths(tomllib.loads(TEXT))) == set(lines)
    wanted = {("a",): 2, ("b", "c"): 3, ("b", "c", "x", "y", 2, "w"): 5, ("b", "c", "q.r"): 6, ("b", "c", "lit"): 9}
    wanted |= {("d", 0): 11, ("d", 1): 13, ("d", 1, "f", "g", "h", "i"): 15, ("t", "u v", "s"): 17}
    assert wanted.items() <= lines.items()


@pytest.mark.parametrize("text", ["", "\n", "# only\n", "a = 1", "\r\na = 1\r\n[b]\r\n", "[a]\n[a.b]\n"])
def test_texts_at_the_edge(text: str) -> None:
    assert set(paths(tomllib.loads(text))) == set(lines_of(text))


_KEY = st.sampled_from(["a", "b-c", '"d.e"', "'f g'", '"\\u00e9 \\" #"', "1"])
_SCALAR = st.sampled_from(["1", '"x # y"', "'a]b}'", '"""\nq = 1\n"""', "'''\n[z]'''", "true", "1.5e3", '"\\""', '""'])


def _values() -> st.SearchStrategy[str]:
    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        arrays = st.lists(inner, max_size=3).map(lambda entries: "[ # c ]\n" + ",\n".join(entries) + "\n]")
        tables = st.dictionaries(_KEY, inner, max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{name} = {value}" for name, value in pairs.items()) + "}"
        )
        return arrays | tables

    return st.recursive(_SCALAR, deeper, max_leaves=6)


@given(
    st.lists(st.tuples(st.sampled_from(["", "[", "[["]), st.lists(_KEY, min_size=1, max_size=2), _values()), max_size=6)
)
def test_the_line_of_every_valid_key_is_found(parts: list[tuple[str, list[str], str]]) -> None:
    written: list[int] = []
    text = ""
    for brackets, keys, value in parts:
        key = " . ".join(keys)
        line = f"{brackets}{key}{brackets.replace('[', ']')}" if brackets else f"{key} = {value}"
        try:
            tomllib.loads(f"{text}{line}\n")
        except tomllib.TOMLDecodeError:
            continue
        if brackets != "[":  # a table may have been named before, on the way to one inside of it
            written.append(text.count("\n") + 1)
        text += line + "\n"
    found = lines_of(text)
    assert set(paths(tomllib.loads(text))) == set(found)
    assert set(written) <= set(found.values())
