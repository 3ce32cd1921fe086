"""Programs with fields of every kind, scripted so that the tests reach each state at will."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Literal, Optional

import dspy
import pydantic
from tests.server.support import USAGE, Scripted, Tape

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError, LMFailed
from dspy_live.core.events import Custom, Partial, Predicted, Reasoning, Restart, Started, Status, Token, Tool
from dspy_live.core.schema import Field, Schema
from dspy_live.programs.run.schema import schema_of
from dspy_live.server import ServedProgram


class Kind(Enum):
    CITY = "city"
    TOWN = "town"
    VILLAGE = "village"
    HAMLET = "hamlet"


class Place(pydantic.BaseModel):
    """A place by the river."""

    name: str = pydantic.Field(description="as the people there call it")
    people: int | None = pydantic.Field(None, description="how many live there")
    kind: Kind = Kind.CITY
    bridges: list[str] = []
    upstream: Optional[Place] = pydantic.Field(None, description="the next place up the river")  # noqa: UP045


class Rivers(dspy.Signature):  # type: ignore[misc]
    """Answers questions on rivers."""

    question: str = dspy.InputField(desc="What you would like to know")
    style: Literal["short", "long"] = dspy.InputField()
    k: int = dspy.InputField(desc="How many sources", default=3)
    tags: list[str] | None = dspy.InputField(desc="as in dspy.LM('openai/gpt-4o-mini')", default=None)
    note: str | None = dspy.InputField(default=None)
    answer: str = dspy.OutputField()
    cities: list[str] = dspy.OutputField()


class Survey(dspy.Signature):  # type: ignore[misc]
    """Looks at places."""

    place: Place = dspy.InputField(desc="where to begin")
    others: list[Place] | None = dspy.InputField(default=None)
    counts: dict[str, int] | None = dspy.InputField(default=None)
    span: tuple[int, int] | None = dspy.InputField(default=None)
    code: int | str | None = dspy.InputField(default=None)
    quick: bool = dspy.InputField(default=True)
    photo: dspy.Image | None = dspy.InputField(desc="a picture of it", default=None)
    sound: dspy.Audio | None = dspy.InputField(default=None)
    report: dspy.File | None = dspy.InputField(default=None)
    summary: str = dspy.OutputField()
    places: list[Place] = dspy.OutputField()
    rating: float = dspy.OutputField()


class Talk(dspy.Signature):  # type: ignore[misc]
    """Talks about rivers, and remembers what was said."""

    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


MARKDOWN = """# The Danube

It rises in the **Black Forest** and ends in the *Black Sea*, after `2,850 km`.

1. Ulm
2. Regensburg
   - the stone bridge

| city | people |
|------|-------:|
| Vienna | 2,000,000 |
| Linz | 210,000 |

> A river <b>knows</b> its way.

```python
def length() -> int:
    return 2850  # km
```

See [the map](https://example.org/map) or [nothing](javascript:alert(1)). ![](https://example.org/spy.png)"""


async def rivers(call: Call, tape: Tape) -> None:
    question = call.inputs["question"]
    if question == "nothing":
        raise LMFailed("the LM at http://127.0.0.1:9 can't be reached")
    if question == "odd":
        raise InputError("field 'tags' must be list[str]: no odd ones", field="tags")
    await tape.push(Started(call.id, "rivers"), Status("Looking it up", "rag", "starting"))
    if question == "endless":
        for i in range(100_000):
            await tape.push(Token(f"{i} ", "answer", "p", 1))
            await asyncio.sleep(0.005)
    await tape.push(Reasoning("The user wants a river. ", "inner", 1), Reasoning("Which one?", "inner", 1))
    await tape.push(Tool("search", "call", "1", {"q": question, "limit": 3}))
    await tape.push(Tool("search", "result", "1", result=["Danube"], duration_ms=41.0))
    await tape.push(Tool("weather", "call", "2", {"at": "Linz"}), Tool("weather", "error", "2", result="no station"))
    await tape.push(Token("An inner thought", "thought", "inner", 1, True), Custom("note", {"sources": 2}))
    text = MARKDOWN if question == "markdown" else "The <b>Danube</b> & the Wien"
    await tape.tokens("wrong words", lm_call=2)
    await tape.push(Restart("p", 2, "retry"))
    await tape.tokens(text, lm_call=2, pause=0.001)
    await tape.push(Partial(["Vienna"], "cities", "p", 2), USAGE)
    if question == "late":
        raise LMFailed("the LM closed the connection")
    await tape.push(Predicted({"answer": text, "cities": ["Vienna", "Linz"]}))


async def survey(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id, "survey"))
    await tape.tokens("Two places were seen.", field="summary")
    places = [
        {"name": "Vienna", "people": 2_000_000, "kind": "city", "bridges": ["Reichsbrücke", "Nordbrücke"]},
        {"name": "Dürnstein", "people": 830, "kind": "town", "bridges": []},
    ]
    deep = [each | {"upstream": {"name": "Linz", "upstream": {"name": "Passau"}}} for each in places]
    wanted = deep if call.inputs["place"].name == "deep" else places
    await tape.push(
        USAGE, Predicted({"summary": "Two places were seen.", "places": wanted, "rating": 0.5, "beside": 1})
    )


async def talk(call: Call, tape: Tape) -> None:
    turns = len(call.inputs["history"].messages)
    text = f"Answer {turns + 1} to: {call.inputs['question']}"
    await tape.push(Started(call.id, "talk"))
    if call.inputs["question"] == "nothing":
        raise LMFailed("the LM at http://127.0.0.1:9 can't be reached")
    if call.inputs["question"] == "endless":
        for i in range(100_000):
            await tape.push(Token(f"{i} ", "answer", "p", 1))
            await asyncio.sleep(0.005)
    await tape.tokens(text)
    await tape.push(USAGE, Predicted({"answer": text}))


def schema(signature: type[dspy.Signature], *demos: dspy.Example) -> Schema:
    program = dspy.Predict(signature)
    program.demos = list(demos)
    return schema_of(program, signature.__name__)


DEMO = dspy.Example(question="Where does the Inn rise?", style="long", tags=["Alps", "Engadin"], answer="At Maloja.")


ANYTHING = Schema("Anything", (), (Field("answer"),), "Takes anything.", open=True)


async def anything(call: Call, tape: Tape) -> None:
    await tape.push(Predicted({"answer": str(dict(call.inputs))}))


def programs() -> dict[str, ServedProgram]:
    """The programs by name; the first is the one that the page shows."""
    made = [
        ServedProgram("rivers", Scripted(rivers), schema(Rivers, DEMO), simulated=True),
        ServedProgram("survey", Scripted(survey), schema(Survey)),
        ServedProgram("talk", Scripted(talk), schema(Talk)),
        ServedProgram("anything", Scripted(anything), ANYTHING),
    ]
    return {program.name: program for program in made}
