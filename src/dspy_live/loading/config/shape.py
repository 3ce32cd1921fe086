"""The tables and keys of ``dspy-live.toml``, with their types and defaults.

``None`` stands for a key that is not there. Its default then belongs to the flag of the same meaning, to the
environment, or to the layer that the key would make.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Meta(ge=1)] | str
"""Bytes, or a text such as ``"10 MB"``."""
SECRET = {"secret": True}
"""Marks a value that no message may show."""
Secret = Annotated[str, Meta(min_length=1, extra=SECRET)]
Text = Annotated[str, Meta(min_length=1)]


class Table(Struct, frozen=True, kw_only=True):
    """A table of the file."""


class ServerTable(Table, frozen=True, kw_only=True):
    """``[server]``: the address, and limits for all programs together."""

    host: Text | None = None
    port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    title: str | None = None
    playground: bool | None = None
    no_auth: bool | None = None
    sim: bool = False
    max_active: Count | None = None
    max_body: Size | None = None
    timeout: Seconds | None = None
    drain: NotNegative | None = None
    lame_duck: NotNegative | None = None
    ready_lm: Seconds | None = None
    grace: NotNegative | None = None
    keep_runs: NotNegative | None = None
    heartbeat: Seconds | None = None
    origins: list[Text] | None = None
    workers: Count | None = None


class LimitTable(Table, frozen=True, kw_only=True):
    """A limit of calls at once."""

    concurrency: Count
    queue: Annotated[int, Meta(ge=0)] = 100


class AdaptiveTable(Table, frozen=True, kw_only=True):
    """A limit of calls at once that moves."""

    low: Count = 1
    high: Count = 1000
    start: Count | None = None
    slow: Seconds | None = None
    queue: Annotated[int, Meta(ge=0)] = 100


class RateTable(Table, frozen=True, kw_only=True):
    """Requests and tokens in any minute."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_wait: NotNegative = 60.0
    burst: Share = 1.0


class RetryTable(Table, frozen=True, kw_only=True):
    """Tries of a call, and the waits between them in seconds."""

    tries: Count = 3
    base: Seconds | None = None
    cap: Seconds | None = None


class BreakerTable(Table, frozen=True, kw_only=True):
    """When a failing service is left alone."""

    failures: Share = 0.5
    minimum: Count = 20
    window: Seconds = 30.0
    open_for: Seconds = 10.0
    probes: Count = 1


class BudgetTable(Table, frozen=True, kw_only=True):
    """Limits in US dollars, tokens and LM calls."""

    max_cost: Positive | None = None
    max_tokens: Count | None = None
    max_calls: Count | None = None
    alert_at: Share = 0.8
    unpriced: Literal["refuse", "allow"] = "refuse"
    period: Literal["run", "day", "month", "ever"] = "ever"


class CacheTable(Table, frozen=True, kw_only=True):
    """Kept results of whole runs."""

    max_bytes: Size | None = None
    seconds: Seconds | None = None


class LMLayersTable(Table, frozen=True, kw_only=True):
    """Layers around one LM; their order is fixed, see :mod:`dspy_live.loading.config.layers`."""

    single_flight: bool = False
    retry: Count | RetryTable | None = None
    breaker: bool | BreakerTable | None = None
    rate: RateTable | None = None
    limit: Count | LimitTable | None = None
    adaptive: bool | AdaptiveTable | None = None
    budget: BudgetTable | None = None


class LayersTable(LMLayersTable, frozen=True, kw_only=True):
    """Layers around one program."""

    deadline: Seconds | None = None
    cache: bool | CacheTable | None = None


class LMTable(Table, frozen=True, kw_only=True):
    """``[lm]`` and ``[lms.NAME]``: one LM."""

    model: Text | None = None
    api_base: Text | None = None
    api_key: Secret | None = None
    api_key_env: Text | None = None
    temperature: NotNegative | None = None
    top_p: Share | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None
    model_type: Literal["chat", "text", "responses"] | None = None
    cache: bool | None = None
    num_retries: Annotated[int, Meta(ge=0)] | None = None
    timeout: Seconds | None = None
    first_token_timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    stream: Literal["auto", "always", "never"] | None = None
    capabilities: list[Literal["function_calling", "reasoning", "response_schema"]] | None = None
    options: dict[str, Any] = {}
    fallback: list[Text] = []
    layers: LMLayersTable = LMLayersTable()


class ProgramTable(Table, frozen=True, kw_only=True):
    """``[programs.NAME]``: one program; the first one is behind ``/predict``."""

    target: Text
    lm: Text | None = None
    state: Text | None = None
    allow_pickle: bool = False
    execution: Literal["auto", "native", "thread", "inline"] | None = None
    hold_text: bool = False
    layers: LayersTable = LayersTable()


class QuotaTable(Table, frozen=True, kw_only=True):
    """Limits of one day or month."""

    max_cost: Positive | None = None
    max_tokens: Count | None = None
    max_calls: Count | None = None


Scope = Literal["run", "metrics", "usage"]


class KeyTable(Table, frozen=True, kw_only=True):
    """``[keys.NAME]``: one key, by its hash or by the variable that holds it."""

    hash: Secret | None = None
    env: Text | None = None
    programs: list[Text] | None = None
    scopes: list[Scope] | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    concurrency: Count | None = None
    day: QuotaTable | None = None
    month: QuotaTable | None = None


class KeyStoreTable(Table, frozen=True, kw_only=True):
    """``[key_store]``: the file of the keys that ``dspy-live keys`` makes, and of what all keys have spent."""

    file: Text | None = None
    enabled: bool = True


class ProxiesTable(Table, frozen=True, kw_only=True):
    """``[proxies]``: the proxies in front of the server, and the path that they serve it under."""

    root_path: str | None = None
    trusted: list[Text] | None = None


class TLSTable(Table, frozen=True, kw_only=True):
    """``[tls]``: files in PEM."""

    certfile: Text
    keyfile: Text | None = None
    password_file: Text | None = None


class LoggingTable(Table, frozen=True, kw_only=True):
    """``[logging]``: where logs go, and what they hold."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = None
    file: Text | None = None
    json: bool | None = None
    rotate: Size | None = None
    hide_prompts: bool | None = None
    access: bool | None = None
    access_rate: Share | None = None


class MetricsTable(Table, frozen=True, kw_only=True):
    """``[metrics]``: Prometheus' metrics at ``/metrics``."""

    enabled: bool = True


class TracingTable(Table, frozen=True, kw_only=True):
    """``[tracing]``: spans for a collector."""

    endpoint: Text | None = None
    service_name: Text | None = None
    per_second: Positive | Literal["all"] | None = None
    contents: bool = False


class LedgerTable(Table, frozen=True, kw_only=True):
    """``[ledger]``: the record of all runs."""

    place: Annotated[str, Meta(min_length=1, extra=SECRET)] | None = None
    place_env: Text | None = None
    enabled: bool | None = None
    contents: bool = False
    keep: Text | None = None


class SessionsTable(Table, frozen=True, kw_only=True):
    """``[sessions]``: the conversations that the server keeps."""

    place: Annotated[str, Meta(min_length=1, extra=SECRET)] | None = None
    place_env: Text | None = None
    keep: Text | None = None
    turns: Count | None = None


class StoreTable(Table, frozen=True, kw_only=True):
    """``[store]``: a Redis or Valkey that several servers share."""

    url: Secret | None = None
    url_env: Text | None = None
    name: str = ""
    on_outage: Literal["alone", "refuse"] = "alone"
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    runs: bool = True
    run_bytes: Size | None = None


class PriceTable(Table, frozen=True, kw_only=True):
    """``[prices."MODEL"]``: US dollars per million tokens."""

    input: NotNegative
    output: NotNegative
    cached_input: NotNegative | None = None
    cache_write: NotNegative | None = None
    reasoning: NotNegative | None = None


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    server: ServerTable = ServerTable()
    lm: LMTable | None = None
    lms: dict[str, LMTable] = {}
    programs: dict[str, ProgramTable] = {}
    keys: dict[str, KeyTable] = {}
    key_store: KeyStoreTable = KeyStoreTable()
    proxies: ProxiesTable = ProxiesTable()
    tls: TLSTable | None = None
    logging: LoggingTable = LoggingTable()
    metrics: MetricsTable = MetricsTable()
    tracing: TracingTable = TracingTable()
    ledger: LedgerTable = LedgerTable()
    sessions: SessionsTable = SessionsTable()
    store: StoreTable = StoreTable()
    prices: dict[str, PriceTable] = {}
