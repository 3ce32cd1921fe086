"""Values that fit a JSON Schema, made up from a seed: what the simulated LM puts into typed fields."""

from __future__ import annotations

import math
import re
from random import Random
from typing import Any

from dspy_live.simulator.prose import CITIES, NAMES, SURNAMES, Prose
from dspy_live.simulator.typenames import JsonSchema

_DEEP = 4
"""Beyond this depth optional parts are left out, so that recursive types end."""
_LONG_TEXT = (
    "answer",
    "summary",
    "description",
    "reason",
    "text",
    "thought",
    "explanation",
    "comment",
    "content",
    "body",
)
_SHORT_TEXT = (
    "name",
    "title",
    "label",
    "city",
    "country",
    "street",
    "author",
    "tag",
    "category",
    "subject",
    "note",
    "unit",
)
_SHARE = ("score", "confidence", "probability", "ratio", "share", "similarity", "relevance", "weight")


class Values:
    """Makes values for schemas. ``defs`` are the ``$defs`` that references look into."""

    def __init__(self, rng: Random, prose: Prose, defs: JsonSchema | None = None) -> None:
        self._rng = rng
        self._prose = prose
        self._defs = defs or {}

    def make(self, schema: Any, name: str = "", depth: int = 0) -> Any:
        """A value for ``schema``; ``name`` is the field's, for text and numbers that suit it."""
        if not isinstance(schema, dict):
            return self._prose.phrase()
        if "$defs" in schema or "definitions" in schema:
            self._defs = {**self._defs, **schema.get("$defs", {}), **schema.get("definitions", {})}
        if "$ref" in schema:
            return self.make(self._defs.get(str(schema["$ref"]).rsplit("/", 1)[-1], {}), name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._rng.choice(schema["enum"])
        if "x-unknown" in schema:
            return self._unknown(name)
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self._one_of(schema[key], name, depth)
        if schema.get("allOf"):
            merged: JsonSchema = {k: v for k, v in schema.items() if k != "allOf"}
            for part in schema["allOf"]:
                merged |= part
            return self.make(merged, name, depth + 1)
        return self._typed(schema, name, depth)

    def _one_of(self, choices: list[Any], name: str, depth: int) -> Any:
        solid = [c for c in choices if not (isinstance(c, dict) and c.get("type") == "null")]
        kinds = [choice.get("type") for choice in solid if isinstance(choice, dict)]
        if "number" in kinds or "integer" in kinds:
            # A number that may also be written as text, as pydantic describes a Decimal.
            solid = [choice for choice in solid if choice != {"type": "string"}]
        if not solid or (depth >= _DEEP and len(solid) < len(choices)):
            return None
        return self.make(self._rng.choice(solid), name, depth + 1)

    def _typed(self, schema: JsonSchema, name: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._one_of([{**schema, "type": k} for k in kind], name, depth)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return self._integer(schema, name)
            case "number":
                return self._number(schema, name)
            case "boolean":
                return self._rng.random() < 0.5
            case "null":
                return None
            case "string":
                return self._string(schema, name)
        if "properties" in schema:
            return self._object(schema, depth)
        return self._array(schema, name, depth) if "items" in schema else self._prose.phrase()

    def _object(self, schema: JsonSchema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        value = {
            key: self.make(part, key, depth + 1)
            for key, part in properties.items()
            if key in required or (depth < _DEEP and self._rng.random() < 0.8)
        }
        extra = schema.get("additionalProperties", not properties)
        if extra and not properties:
            wanted = max(int(schema.get("minProperties", 0)), 0 if depth > _DEEP else self._rng.randint(1, 3))
            part = extra if isinstance(extra, dict) else {}
            for _ in range(wanted * 20):
                if len(value) >= wanted:
                    break
                key = self._key(schema.get("propertyNames"), len(value))
                value[key] = self.make(part, key, depth + 1)
        return value

    def _key(self, names: Any, number: int) -> str:
        if isinstance(names, dict) and names:
            return str(self.make(names, "key"))
        return self._prose.phrase(1) if number < 12 else f"{self._prose.phrase(1)}_{number}"

    def _array(self, schema: JsonSchema, name: str, depth: int) -> list[Any]:
        singular = name[:-1] if name.endswith("s") else name
        value = [self.make(part, singular, depth + 1) for part in schema.get("prefixItems") or ()]
        items = schema.get("items", {} if not value else False)
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", max(least, 4)))
        wanted = self._rng.randint(max(least, min(1, most)), max(least, min(most, least + 3)))
        if depth > _DEEP:
            wanted = least
        tries = 0
        while items is not False and len(value) < wanted and tries < wanted * 20:
            tries += 1
            made = self.make(items, singular, depth + 1)
            if not schema.get("uniqueItems") or made not in value:
                value.append(made)
        return value

    def _bounds(self, schema: JsonSchema, low: float, high: float, step: float) -> tuple[float, float]:
        least = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + step)
        most = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - step)
        if least == -math.inf:
            least = min(low, most if most < low else low)
        if most == math.inf:
            most = max(high, least + (high - low))
        return least, max(least, most)

    def _integer(self, schema: JsonSchema, name: str) -> int:
        low, high = self._bounds(schema, 0 if "min" in name else 1, 12, 1)
        step = int(schema.get("multipleOf", 1)) or 1
        first, last = math.ceil(low / step), math.floor(high / step)
        if last < first:
            last = first if "maximum" not in schema and "exclusiveMaximum" not in schema else last
        return self._rng.randint(min(first, last), max(first, last)) * step

    def _number(self, schema: JsonSchema, name: str) -> float:
        high = 1.0 if any(word in name.lower() for word in _SHARE) else 100.0
        low, high = self._bounds(schema, 0.0, high, 1e-6)
        if step := schema.get("multipleOf"):
            return round(self._rng.randint(math.ceil(low / step), math.floor(high / step)) * float(step), 9)
        value = low + (high - low) * self._rng.random()
        rounded = round(value, 2)
        return rounded if low <= rounded <= high else value

    def _unknown(self, name: str) -> str:
        """A type that is named only: "1" is a text, an integer, a number and a truth value at once."""
        lowered = name.lower()
        if any(word in lowered for word in _LONG_TEXT) or any(word in lowered for word in _SHORT_TEXT):
            return self._string({}, name)
        return "1"

    def _string(self, schema: JsonSchema, name: str) -> str:
        if "format" in schema and (text := self._format(str(schema["format"]))) is not None:
            return text
        if schema.get("examples"):
            return str(self._rng.choice(schema["examples"]))
        if "pattern" in schema and (found := self._matching(str(schema["pattern"]))) is not None:
            return found
        text = self._suited(name.lower())
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        while len(text) < least:
            text += " " + self._prose.phrase()
        return text if most is None else text[: max(int(most), 0)]

    def _matching(self, pattern: str) -> str | None:
        """A text of some usual shape that the pattern takes; ``None`` when none of them is."""
        rng = self._rng
        digits = "".join(str(rng.randint(1, 9)) for _ in range(16))
        letters = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(16))
        shapes = [
            kind for number in range(1, 17) for kind in (digits[:number], letters[:number], letters[:number].lower())
        ]
        shapes += [
            f"{letters[:i]}{mark}{digits[:j]}" for mark in ("", "-", "_") for i in range(1, 5) for j in range(1, 7)
        ]
        shapes += [f"+{digits[:11]}", f"{digits[:3]}-{digits[:4]}", f"#{digits[:6]}", f"{digits[:2]}.{digits[2:4]}"]
        shapes += [self._format(kind) or "" for kind in ("date", "date-time", "time", "uuid", "email", "uri", "ipv4")]
        try:
            known = re.compile(pattern)
        except re.error:
            return None
        shapes.insert(0, self._prose.phrase())
        # A pattern without anchors is found in almost anything: what fits it whole is likelier to be meant.
        whole = next((shape for shape in shapes if known.fullmatch(shape)), None)
        return whole or next((shape for shape in shapes if known.search(shape)), None)

    def _suited(self, name: str) -> str:
        rng = self._rng
        if any(word in name for word in _LONG_TEXT):
            return self._prose.sentence()
        if "email" in name:
            return f"{rng.choice(NAMES)}.{rng.choice(SURNAMES)}@example.org".lower()
        if "city" in name or "location" in name or "place" in name:
            return rng.choice(CITIES)
        if "query" in name or "question" in name or "search" in name:
            return self._prose.topic()
        if "author" in name or "person" in name or name == "name":
            return f"{rng.choice(NAMES)} {rng.choice(SURNAMES)}"
        if "url" in name or "link" in name:
            return f"https://example.org/{self._prose.phrase(1)}"
        return self._prose.phrase()

    def _format(self, kind: str) -> str | None:
        rng = self._rng
        day = f"20{rng.randint(10, 26)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        digits = f"{rng.getrandbits(128):032x}"
        known = {
            "date": day,
            "date-time": f"{day}T{clock}Z",
            "time": clock,
            "duration": f"PT{rng.randint(1, 59)}M",
            "uuid": f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}",
            "email": f"{rng.choice(NAMES)}.{rng.choice(SURNAMES)}@example.org".lower(),
            "uri": f"https://example.org/{self._prose.phrase(1)}",
            "ipv4": f"192.0.2.{rng.randint(1, 254)}",
            "ipv6": f"2001:db8::{rng.randint(1, 65535):x}",
            "hostname": "example.org",
        }
        return known.get(kind)
