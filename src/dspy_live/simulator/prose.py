"""Plausible English without end: templates and word lists, seeded, about the question's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from dspy_live.simulator.tokens import pieces

NOUNS = (
    "pattern detail measure habit method signal margin habitat climate design purpose source limit process change "
    "market system season resource custom language structure texture context memory distance reason question "
    "balance rhythm surface shape story rule number place path bridge border cycle tradition mixture contrast tension "
    "pause turn"
).split()
ADJECTIVES = (
    "clear careful steady gradual common simple reliable recent local broad narrow direct gentle visible practical "
    "familiar modest strong quiet general particular regular useful natural hidden distant patient subtle central"
).split()
VERBS = "shapes follows limits supports explains changes reveals guides improves balances affects reflects".split()
ABOUT = (
    "when it comes to {t}, a {a} {n} matters more than a {a2} {n2}|anyone who looks at {t} closely finds a {a} {n}"
    "|behind {t} there is usually a {a} {n}|most of what is said about {t} comes down to a {a} {n}"
    "|with {t}, the {n} {v} the {n2}|in the case of {t}, the {n} {v} the {n2}"
    "|what we know about {t} rests on a {a} {n} and a {a2} {n2}|{t} is best seen as a {a} {n}"
    "|for {t}, a {a} {n} is enough to begin with|the {n} of {t} {v} its {n2}"
    "|people who work with {t} speak of a {a} {n}|without a {a} {n}, {t} would be hard to explain"
).split("|")
ASIDES = (
    "the {n} is more {a} than it seems|a {a} {n} rarely comes alone|every {n} has its {n2}"
    "|the {a} {n} {v} the {n2}|it takes time before the {n} {v} the {n2}|a {n} of this kind tends to be {a}"
    "|the {n} and the {n2} go together|this is less a {n} than a {a} {n2}|one {n} leads to another"
    "|the same holds for a {a} {n}|there is a {a} {n} as well, and it {v} the {n2}|none of this makes the {n} less {a}"
).split("|")
TAILS = (
    "because the {n} is {a}|while the {n} stays {a}|and the {n} follows|even if the {n} is {a}|as long as the {n} holds"
    "|which is why the {n} matters|though not every {n} does|so the {n} stays {a}"
).split("|")
OPENERS = (
    "In short,|On the whole,|In practice,|As a rule,|More often than not,|For most people,|Seen from nearby,"
    "|Over a longer time,|At the same time,|Even so,|By contrast,|To begin with,"
).split("|")
LEADS = "About,On,As for,Regarding,Concerning,With regard to".split(",")
NAMES = "Ada Noor Ravi Mira Jonas Leila Tomas Ines Kofi Yuki Elena Omar Sara Pavel Amara Hugo".split()
SURNAMES = "Lindqvist Okafor Moreau Tanaka Silva Novak Haddad Berg Castillo Ivanova Mensah Keller".split()
CITIES = "Lisbon Oslo Kyoto Accra Montreal Vienna Nairobi Valparaiso Tallinn Bergen Porto Hanoi".split()

BLOCK = 4096
"""Characters of one block of a big reply; see :func:`blocks`."""

_STOP = frozenset(
    "a an the is are was were be been do does did of to in on at for from by with and or but not no what why how when "
    "where who whom which whose that this these those it its as if then than can could should would will shall may "
    "might must have has had i you we they he she me my your our their please tell give show write explain describe "
    "about into over under between there here so such very more most some any all each every".split()
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PER_PARAGRAPH = 6
_VARIED = 60
"""After so many sentences the text repeats them, numbered by paragraph: a long reply then costs next to nothing."""


def keywords(text: str, most: int = 6) -> list[str]:
    """The words of a question that carry its meaning, in order, without repeats."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text[:4000]):
        word = match.group()
        if word.lower() not in _STOP and (len(word) > 1 or word.isdigit()):
            found.setdefault(word, None)
            if len(found) == most:
                break
    return list(found)


class Prose:
    """A source of text about ``topic``, the same for the same ``rng`` state and topic."""

    def __init__(self, rng: Random, topic: list[str]) -> None:
        self._rng = rng
        self._topic = topic

    def topic(self) -> str:
        """The question's first words, as a subject of a sentence."""
        return " ".join(self._topic[:3]) or "the question"

    def phrase(self, words: int = 2) -> str:
        """A short name of something: ``"steady margin"``."""
        rng = self._rng
        return " ".join([*(rng.choice(ADJECTIVES) for _ in range(words - 1)), rng.choice(NOUNS)])

    def sentence(self, *, first: bool = False) -> str:
        """One sentence with a capital letter and a full stop; the first of a text refers to none before it."""
        rng = self._rng
        word = rng.choice
        subject = word(self._topic) if self._topic and rng.random() < 0.55 else None
        form = word(ABOUT if subject else ASIDES)
        if rng.random() < 0.4:
            form += ", " + word(TAILS)
        noun, other = rng.sample(NOUNS, 2)
        adjective, second = rng.sample(ADJECTIVES, 2)
        text = form.format(t=subject, a=adjective, a2=second, n=noun, n2=other, v=word(VERBS))
        if not first and rng.random() < 0.25:
            return f"{word(OPENERS)} {text}."
        return f"{text[0].upper()}{text[1:]}."

    def sentences(self) -> Iterator[str]:
        """Sentences without end, the first of which names the question's words, with the space between them."""
        topic = " and ".join([", ".join(self._topic[:-1]), self._topic[-1]] if len(self._topic) > 1 else self._topic)
        yield f"{self._rng.choice(LEADS)} {topic}: {self.sentence(first=True)}" if topic else self.sentence(first=True)
        said: list[str] = []
        for number in range(1, _VARIED):
            said.append(self.sentence())
            yield ("\n\n" if number % _PER_PARAGRAPH == 0 else " ") + said[-1]
        paragraphs = [" ".join(said[i : i + _PER_PARAGRAPH]) for i in range(0, len(said), _PER_PARAGRAPH)]
        number = _VARIED // _PER_PARAGRAPH
        while True:
            number += 1
            yield f"\n\n({number}) {paragraphs[number % len(paragraphs)]}"

    def tokens(self, length: int) -> Iterator[str]:
        """Exactly ``length`` tokens of text, the last of which is a full stop."""
        left = length - 1
        for sentence in self.sentences():
            parts = pieces(sentence)
            if len(parts) == left + 1:
                yield from parts
                return
            if len(parts) >= left:
                yield from _cut(parts, left)
                break
            left -= len(parts)
            yield from parts
        if length > 0:
            yield "."

    def about(self, length: int) -> Iterator[str]:
        """Whole sentences, until they have at least ``length`` tokens."""
        said = 0
        for sentence in self.sentences():
            parts = pieces(sentence)
            yield from parts
            said += len(parts)
            if said >= length:
                return


def _cut(parts: list[str], length: int) -> list[str]:
    """The first ``length`` tokens of a sentence, so ended that a full stop can follow."""
    kept = parts[:length]
    if kept and not kept[-1][-1].isalnum():
        kept[-1] = " Indeed" if len(kept) == 1 else " indeed"
    return kept


def blocks(size: int) -> Iterator[str]:
    """Numbered blocks of :data:`BLOCK` characters, ``size`` characters in all.

    For replies of many megabytes: they cost no thinking, and a reader can tell that none is missing.
    """
    filler = " ".join(NOUNS + ADJECTIVES) + ". "
    filler *= BLOCK // len(filler) + 1
    whole, rest = divmod(size, BLOCK)
    for number in range(whole):
        head = f"({number:08}) "
        yield head + filler[: BLOCK - len(head)]
    if rest:
        yield filler[:rest]
