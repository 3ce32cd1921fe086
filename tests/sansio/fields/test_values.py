"""Typed fields: a scalar once, a container as it grows, in every grammar."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from dspy_live.sansio.fields import FieldSpec, FieldValue, ReplyFormat, make_parser

FIELDS = (FieldSpec("a"), FieldSpec("n", "scalar"), FieldSpec("l", "container"), FieldSpec("m", "container"))
REPLIES: dict[ReplyFormat, str] = {
    "chat": (
        '[[ ## a ## ]]\nx\n\n[[ ## n ## ]]\n 12 \n[[ ## l ## ]]\n["one", {"two": [3, null]}, "it\'s ]"]\n\n'
        '[[ ## m ## ]]\n```json\n{"k": "v",\n "b": true}\n```\n[[ ## completed ## ]]'
    ),
    "json": (
        '{"a": "x", "n": 12, "l": ["one", {"two": [3, null]}, "it\'s ]"], '
        '"m" : {"k": "v",\n "b": true}}'
    ),
    "xml": (
        "<a>x</a><n> 12 </n><l><item>one</item><item><two><item>3</item><item>null</item></two></item>"
        "<item>it&apos;s ]</item></l><m><k>v</k><b>true</b></m>"
    ),
}  # fmt: skip
REPLIES["baml"] = REPLIES["json"]
LIST, MODEL = ["one", {"two": [3, None]}, "it's ]"], {"k": "v", "b": True}
GRAMMARS: tuple[ReplyFormat, ...] = ("chat", "json", "xml", "baml")


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_values_are_whole_and_final_at_the_end_at_any_chunking(
    grammar: ReplyFormat, reader: Any, all_chunkings: Any
) -> None:
    for chunks in all_chunkings(REPLIES[grammar]):
        reading = reader(grammar, chunks, FIELDS)
        assert reading.texts == {"a": "x"}
        assert reading.values["n"] == [FieldValue("n", 12, True)]
        assert reading.values["l"][-1] == FieldValue("l", LIST, True)
        assert reading.values["m"][-1] == FieldValue("m", MODEL, True)
        assert reading.ended == {"a", "n", "l", "m"}
        assert not any(event.final for event in reading.values["l"][:-1])


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_container_grows(grammar: ReplyFormat, reader: Any) -> None:
    values = [event.value for event in reader(grammar, list(REPLIES[grammar]), FIELDS).values["l"]]
    assert values[0] in ([], "", [""])
    assert any(value == ["one"] for value in values)
    assert all(before != after for before, after in pairwise(values[:-1])), "sent for nothing"


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_large_container_is_read_a_bounded_number_of_times(grammar: ReplyFormat, reader: Any, cut: Any) -> None:
    """Each reading costs its length, so that readings at a tenth more each time are linear in all."""
    items = [f"word {number}" for number in range(20_000)]
    reply = {
        "chat": f"[[ ## l ## ]]\n{json.dumps(items)}",
        "json": json.dumps({"l": items}),
        "xml": f"<l>{''.join(f'<item>{item}</item>' for item in items)}</l>",
        "baml": json.dumps({"l": items}),
    }[grammar]
    values = reader(grammar, cut(reply, 1), FIELDS).values["l"]
    assert values[-1] == FieldValue("l", items, True)
    assert 40 < len(values) < 160  # log(size) / log(1.1) is 133


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("True", True),
        ("None", None),
        ('"quoted"', "quoted"),
        ("very calm", "very calm"),
        ("12 apples", "12 apples"),
        ("", ""),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_a_scalar_is_json_if_it_can_be(text: str, value: Any, reader: Any) -> None:
    assert reader("chat", [f"[[ ## n ## ]]\n{text}\n"], FIELDS).values["n"] == [FieldValue("n", value, True)]
    assert reader("xml", [f"<n>\n{text}\n</n>"], FIELDS).values["n"] == [FieldValue("n", value, True)]


def test_a_json_string_is_a_scalar_as_it_is(reader: Any) -> None:
    assert reader("json", list('{"n": "1\\n2"}'), FIELDS).values["n"] == [FieldValue("n", "1\n2", True)]
    assert reader("json", list('{"n": "12"}'), FIELDS).values["n"] == [FieldValue("n", "12", True)]


def refuse(value: Any) -> Any:
    raise ValueError(value)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_scalar_goes_through_its_own_conversion(grammar: ReplyFormat, reader: Any) -> None:
    seen: list[Any] = []
    reading = reader(grammar, list(REPLIES[grammar]), (FieldSpec("n", "scalar", seen.append), FieldSpec("a")))
    assert seen == [12 if grammar in ("json", "baml") else "12"]
    assert reading.values["n"] == [FieldValue("n", None, True)]
    assert not reader(grammar, [REPLIES[grammar]], (FieldSpec("n", "scalar", refuse),)).events


@pytest.mark.parametrize("chunks", [["x"], list])
def test_text_that_is_no_value_is_not_streamed(chunks: Any, reader: Any) -> None:
    for grammar, reply in (
        ("chat", "[[ ## l ## ]]\nnone yet\n[[ ## m ## ]]\n[1, 2"),
        ("json", '{"m": [1, 2, x], "n": 1'),
        ("json", '{"n": nonsense, "m": []'),
    ):
        reading = reader(grammar, list(reply) if chunks is list else [reply], FIELDS)
        assert not reading.ended, reply


def test_a_typed_field_may_be_null_in_json(reader: Any) -> None:
    assert reader("json", list('{"l": null, "m": "no"}'), FIELDS).events == [
        FieldValue("l", None, True),
        FieldValue("m", "no", True),
    ]


def test_repeated_elements_are_a_list(reader: Any) -> None:
    values = reader("xml", list("<l>x</l><a>t</a><l>y</l>"), FIELDS).values["l"]
    assert values[-1] == FieldValue("l", ["x", "y"], True)
    assert FieldValue("l", "x") in values


def test_an_element_may_hold_json(reader: Any) -> None:
    values = reader("xml", list('<l>["x", "y"]</l><m/>'), FIELDS).values
    assert [event.value for event in values["l"]][-2:] == [["x", "y"]] * 2
    assert values["m"][-1] == FieldValue("m", [], True)


def test_a_scalar_with_elements_in_it_is_none(reader: Any) -> None:
    assert not reader("xml", list("<n>1<b/></n>"), FIELDS).events


def test_deep_nesting_is_no_error(reader: Any) -> None:
    deep = "[" * 100_000
    for grammar, reply in (
        ("chat", f"[[ ## l ## ]]\n{deep}\n[[ ## n ## ]]\n{deep}"),
        ("json", f'{{"n": 1, "l": {deep}'),
        ("json", f'{{"a": {deep}{"]" * 100_000}}}'),
        ("xml", f"<a>{'<i>' * 20_000}</i>"),
        ("xml", f"<l>{'<i>' * 20_000}"),
    ):
        reader(grammar, [reply], FIELDS)


def test_an_unknown_grammar_is_refused() -> None:
    with pytest.raises(ValueError, match="yaml"):
        make_parser("yaml", FIELDS)  # type: ignore[arg-type]
