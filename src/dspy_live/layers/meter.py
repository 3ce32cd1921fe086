"""Books the usage of a service that does not book its own: a remote server, a scripted service.

Around ``dspy_live.LM`` or a program of ours it is not needed and would count twice: their engine books.
"""

from __future__ import annotations

from dspy_live.core.call import Call
from dspy_live.core.events import Result, Usage
from dspy_live.core.service import Layer, Service
from dspy_live.core.sink import Sink
from dspy_live.core.usage import NOTHING, LMRecord, LMUsage, Meter
from dspy_live.layers._first_word import FirstWord
from dspy_live.layers._now import loop_now
from dspy_live.layers._usages import Usages
from dspy_live.runtime.books.account import Account, process_account


def meter(account: Account | None = None) -> Layer:
    """Return a layer that books every ``Usage`` event that passes, with the account and the meters in force.

    The meters (trackers, budgets) in force where the call is made, and those of ``call.meters``, are asked before it
    is handed on. A run that ends without any ``Usage`` is booked as one exchange that used nothing.

    Args:
        account: gets the records; the process's own by default.
    """
    account = account if account is not None else process_account()

    def layer(service: Service) -> Service:
        async def metered(call: Call, sink: Sink) -> Result:
            booking = _Booking(call, account, await account.admit_async(call.meters))
            try:
                result = await service(call, FirstWord(Usages(sink, booking.book), booking.first_word))
            except BaseException as exc:
                booking.end(type(exc).__name__)
                raise
            booking.end(None)
            return result

        return metered

    return layer


class _Booking:
    """The records of one call."""

    def __init__(self, call: Call, account: Account, meters: tuple[Meter, ...]) -> None:
        self._call = call
        self._account = account
        self._meters = meters
        self._began = loop_now()
        self._ttft: float | None = None
        self._booked = False

    def first_word(self) -> None:
        self._ttft = loop_now() - self._began

    def book(self, event: Usage) -> None:
        self._booked = True
        usage = LMUsage(
            event.prompt_tokens,
            event.completion_tokens,
            event.total_tokens,
            event.cached_tokens,
            reasoning_tokens=event.reasoning_tokens,
            estimated=event.estimated,
        )
        cost = self._account.price(event.model, usage) if event.cost is None and usage else event.cost
        self._account.record(
            LMRecord(
                model=event.model,
                run=self._call.id,
                program=self._call.program,
                predictor=event.predictor,
                lm_call=event.lm_call,
                usage=usage,
                cost=cost,
                cache="hit" if event.cached else "off",
                latency=loop_now() - self._began,
                ttft=self._ttft,
                key=self._call.key,
            ),
            self._meters,
        )

    def end(self, error: str | None) -> None:
        """Book the exchange that has reported no tokens, or that failed."""
        if self._booked and error is None:
            return
        self._account.record(
            LMRecord(
                model=self._call.model,
                run=self._call.id,
                program=self._call.program,
                usage=NOTHING,
                error=error,
                latency=loop_now() - self._began,
                ttft=self._ttft,
                key=self._call.key,
            ),
            self._meters,
        )
