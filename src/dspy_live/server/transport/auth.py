"""Who asks: the keys of a server, found by their hashes, and what each may do and use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

from starlette.types import Scope

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, ConfigurationError, Unauthorized
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers.budget import Budget
from dspy_live.server.errors import Forbidden
from dspy_live.server.keys.admission import Admission
from dspy_live.server.keys.key import PLAIN, Key, KeyScope, Period, Quota
from dspy_live.server.keys.quota import PeriodBudget
from dspy_live.server.keys.rate_headers import Headers
from dspy_live.server.keys.shared_limits import SharedKeyLimits, SharedRun
from dspy_live.server.keys.token import digest_of

if TYPE_CHECKING:
    from dspy_live.server.keys.bookkeeper import Bookkeeper
    from dspy_live.server.served import ServedProgram

ANYONE = ""


class Keys:
    """The keys that may ask, and a layer that holds each to its limits.

    A key is found by the SHA-256 of what a request carries; see :mod:`dspy_live.server.keys.token` for why that is
    enough. The time that it takes to look a hash up tells nothing of any key.

    Args:
        keys: key by name, or the keys alone (they are then named ``key-1``, ``key-2``, …), with the scopes
            ``run`` and ``metrics`` and without limits; or
            :class:`~dspy_live.server.keys.key.Key` objects, each with its scopes and limits. Without any, everybody may
            ask and nobody has a name.
        bookkeeper: remembers what keys have used over the end of the process.
        required: ask for a key although there is none now.
        budget: makes the budget of a key's name, a period and a quota; one of this process by default.
        clock: the time in Unix seconds, for quotas.
        shared: makes the limits of a key that several servers share, from those before; by default each counts for
            itself.
    """

    kind: ClassVar[str] = "keys"

    def __init__(
        self,
        keys: Mapping[str, str] | Iterable[str | Key] = (),
        *,
        bookkeeper: Bookkeeper | None = None,
        required: bool = False,
        budget: Callable[[str, Period, Quota], Budget] | None = None,
        clock: Callable[[], float] = time.time,
        shared: Callable[[Key, SharedKeyLimits | None], SharedKeyLimits] | None = None,
    ) -> None:
        self._make_shared = shared
        self._make_budget = budget if budget is not None else partial(_make_budget, clock)
        self._bookkeeper = bookkeeper
        self._clock = clock
        self._required = required
        self._names: dict[str, str] = {}
        self._admissions: dict[str, Admission] = {}
        self._asked: dict[str, asyncio.Event] = {}
        self.replace(_keys_of(keys))

    def __len__(self) -> int:
        return max(len(self._names), int(self._required))

    def __repr__(self) -> str:
        return f"Keys({', '.join(self._admissions)})"

    def replace(self, keys: Iterable[Key], *, bookkeeper: Bookkeeper | None = None) -> None:
        """Take these keys in place of those before; what a key has used goes on counting. On the server's loop only.

        A server that has asked for a key goes on asking for one, though none be left. Runs under way go on.
        ``bookkeeper`` is taken where there was none before.
        """
        self._bookkeeper = self._bookkeeper or bookkeeper
        if self._bookkeeper is not None:
            self._bookkeeper.write()
        names: dict[str, str] = {}
        admissions: dict[str, Admission] = {}
        for key in keys:
            if key.name in admissions:
                raise ConfigurationError(f"two keys are called {key.name!r}; give each a name of its own")
            if key.digest in names:
                raise ConfigurationError(f"the keys {names[key.digest]!r} and {key.name!r} are the same")
            names[key.digest] = key.name
            admissions[key.name] = self._admission(key)
        self._required = self._required or bool(names)
        self._names, self._admissions = names, admissions
        if self._bookkeeper is not None:
            self._bookkeeper.keep(admissions.values())

    def close(self) -> None:
        """Write down what keys have used."""
        if self._bookkeeper is not None:
            self._bookkeeper.close()

    def check(self, scope: Scope, *, query: bool = False, wants: Sequence[KeyScope] = ("run",)) -> str:
        """Return the name of the key that a request carries; raise :class:`Unauthorized` or :class:`Forbidden`.

        A key comes as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; with ``query`` also as
        ``?access_token=KEY``, for what a browser can't give headers to (EventSource, WebSocket). It must have one of
        the scopes that are wanted.
        """
        if not self._required:
            return ANYONE
        given = _given(scope, query)
        if given is None:
            # In words: an example of a header would be taken for a key, and be put out of sight.
            raise Unauthorized("an API key is needed, in the header Authorization (Bearer) or in X-API-Key")
        name = self._names.get(digest_of(given))
        if name is None:
            raise Unauthorized("this API key is not known here")
        scopes = self._admissions[name].key.scopes
        if not any(scope in scopes for scope in wants):
            raise Forbidden(f"the key {name!r} has not the scope {wants[0]!r}; it has {', '.join(scopes) or 'none'}")
        return name

    def sees_all_usage(self, name: str) -> bool:
        """True where a key may see what all keys have used, and not its own usage only."""
        return not self._required or (name in self._admissions and "usage" in self._admissions[name].key.scopes)

    def may_run(self, name: str, program: str) -> bool:
        """True where the key of that name may run a program, for lists of programs."""
        admission = self._admissions.get(name)
        return admission is None or admission.key.programs is None or program in admission.key.programs

    def check_program(self, name: str, program: str) -> None:
        """Raise :class:`NotFound` for a program that the key of that name may not run."""
        admission = self._admissions.get(name)
        if admission is not None:
            admission.check_program(program)

    def headers(self, name: str) -> Headers:
        """Return the ``X-RateLimit-…`` headers of a key that has such limits."""
        admission = self._admissions.get(name)
        return admission.headers() if admission is not None else []

    def around(self, programs: Mapping[str, ServedProgram]) -> dict[str, ServedProgram]:
        """Return the programs inside of this layer, which stands outside of all others."""
        return {
            name: replace(program, service=self(program.service), layers=(self, *(program.layers or ())))
            for name, program in programs.items()
        }

    def __call__(self, service: Service) -> Service:
        """Wrap a program's service, as a layer: a run is counted, or refused, by the limits of ``call.key``."""

        def admitted(call: Call, sink: Sink) -> Coroutine[Any, Any, Result]:
            if not self._required:
                return service(call, sink)
            admission = self._admissions.get(call.key)
            if admission is None:
                raise Unauthorized("this API key is not known here any more")
            return self._limited(admission, service, call, sink) if admission.key.limited else service(call, sink)

        return admitted

    async def _limited(self, admission: Admission, service: Service, call: Call, sink: Sink) -> Result:
        meters, shared = admission.meters, admission.shared
        taken = None
        if shared is None:
            admission.admit(call.program)
        else:
            taken = await self._ask_store(admission, shared, call)
            meters = (*meters, taken)
        if meters:
            call = call.but(meters=(*call.meters, *meters))
        try:
            return await service(call, sink)
        except BudgetExceeded as exc:
            raise admission.error(exc) from exc.__cause__
        finally:
            if taken is not None:
                taken.leave()
            # The key may have other limits by now; this run is one of those that they count.
            self._admissions.get(call.key, admission).leave()

    async def _ask_store(self, admission: Admission, shared: SharedKeyLimits, call: Call) -> SharedRun:
        decided = self._asked[call.id] = asyncio.Event()
        try:
            return await admission.admit_shared(shared, call.program)
        finally:
            del self._asked[call.id]
            decided.set()

    async def decided(self, call_id: str) -> None:
        """Wait until the store of limits has told whether a run may begin, where it is being asked; else return."""
        if (decided := self._asked.get(call_id)) is not None:
            await decided.wait()

    def _budget(self, key: Key, period: Period, quota: Quota, before: Budget | None) -> Budget:
        """Return the budget of a quota: the one before where its limits are the same, else one that goes on with it."""
        if before is not None and quota.same_limits(before.limits):
            return before
        fresh = self._make_budget(key.name, period, quota)
        if isinstance(before, PeriodBudget) and isinstance(fresh, PeriodBudget):
            fresh.learn(before.stamp, dict(before.spent))
        return fresh

    def _admission(self, key: Key) -> Admission:
        before = self._admissions.get(key.name)
        budgets: list[tuple[Period, Budget]] = []
        for period, quota in key.quotas.items():
            kept = next((b for p, b in before.budgets if p == period), None) if before is not None else None
            budgets.append((period, self._budget(key, period, quota, kept)))
        admission = Admission(key, budgets, self._clock)
        if self._make_shared is not None and SharedKeyLimits.wanted(key):
            admission.shared = self._make_shared(key, before.shared if before is not None else None)
        if self._bookkeeper is not None:
            self._bookkeeper.restore(admission, minutes=before is None)
        if before is not None:
            admission.take_over(before)
        return admission


def _make_budget(clock: Callable[[], float], key: str, period: Period, quota: Quota) -> Budget:
    return PeriodBudget(key, period, name=f"the key {key!r}, by {period}", clock=clock, **quota.limits())


def _keys_of(keys: Mapping[str, str] | Iterable[str | Key]) -> list[Key]:
    if isinstance(keys, str):
        keys = (keys,)
    named = keys.items() if isinstance(keys, Mapping) else ((f"key-{i}", key) for i, key in enumerate(keys, 1))
    found = []
    for name, key in named:
        if isinstance(key, Key):
            found.append(key)
            continue
        if not name or not key or key != key.strip():
            raise ConfigurationError(f"the API key {name!r} is empty or has spaces around it")
        found.append(Key(name=name, digest=digest_of(key), scopes=PLAIN))
    return found


def _given(scope: Scope, query: bool) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, key = value.decode("utf-8", "surrogateescape").partition(" ")
            if kind.lower() == "bearer":
                return str(key.strip())
        elif name == b"x-api-key":
            return str(value.decode("utf-8", "surrogateescape").strip())
    if query and scope["query_string"]:
        values = parse_qs(scope["query_string"].decode("latin-1")).get("access_token")
        return values[0] if values else None
    return None
