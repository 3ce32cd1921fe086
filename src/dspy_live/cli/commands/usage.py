"""``dspy-live usage``: the usage and cost of runs, from the ledger."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from cyclopts import Parameter

from dspy_live.loading.lm_settings import load_dotenv

if TYPE_CHECKING:
    from dspy_live.observe.ledger import Filter, Ledger

Group = Literal["day", "hour", "model", "program", "predictor", "key", "error"]
Figure = Literal["cost", "tokens", "calls", "runs"]

_LONG = 200
"""Rows of a table that is printed as it is, without rich."""


def usage(
    *,
    by: Group = "day",
    since: str | None = None,
    until: str | None = None,
    program: str | None = None,
    model: str | None = None,
    predictor: str | None = None,
    key: str | None = None,
    run: str | None = None,
    runs: int | None = None,
    calls: int | None = None,
    ledger: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    export: Path | None = None,
    plot: Annotated[bool, Parameter(negative="")] = False,
    png: Path | None = None,
    figure: Figure = "cost",
    prune: str | None = None,
) -> int:
    """Show what runs used and cost: a table by day, model, program or key, or single runs.

    Args:
        by: what the rows are.
        since: only from then on: 7d, 24h, today, 2026-11-20, 2026-11-20T08:30 (UTC).
        until: only before then.
        program: only this program.
        model: only this model.
        predictor: only this predictor.
        key: only the runs of this API key, by its name.
        run: only this run, by its id.
        runs: show so many runs, the newest first, in place of sums.
        calls: show so many LM calls, the newest first, in place of sums.
        ledger: a file or a postgresql:// address; DSPY_LIVE_LEDGER, or the one in ~/.dspy_live, otherwise.
        json: print JSON.
        export: write the rows to a .json, .jsonl or .csv file.
        plot: draw the rows in the terminal.
        png: draw them into this PNG file.
        figure: what is drawn.
        prune: remove the runs and LM calls older than this, such as 90d, in place of showing any.
    """
    import time

    from dspy_live.core.errors import ConfigurationError
    from dspy_live.observe.ledger import Filter
    from dspy_live.observe.time_ranges import unix_time

    for name, count in (("--runs", runs), ("--calls", calls)):
        if count is not None and count < 1:
            raise ConfigurationError(f"{name} says how many are shown, at least 1; got {count}")
    if prune is not None:
        return _prune(ledger, prune)
    now = time.time()
    choice = Filter(
        since=unix_time(since, now) if since else None,
        until=unix_time(until, now) if until else None,
        program=program,
        model=model,
        predictor=predictor,
        key=key,
        run=run,
    )
    book = _open(ledger)
    try:
        if runs is not None:
            rows, title = book.runs(choice, limit=runs), "run"
        elif calls is not None:
            rows, title = book.calls(choice, limit=calls), "LM call"
        else:
            rows, title = book.summary(by, choice), by
        _deliver(book, choice, rows, title, by, json=json, export=export, plot=plot, png=png, figure=figure)
    finally:
        book.close()
    return 0


def _prune(place: str | None, age: str) -> int:
    from dspy_live.core.errors import ConfigurationError
    from dspy_live.sansio.quantities import seconds_of

    try:
        seconds = seconds_of(age)
    except ConfigurationError as exc:
        raise ConfigurationError(f"--prune takes the age of what goes, such as 90d or 12h: {exc}") from None
    if seconds <= 0:
        raise ConfigurationError(f"--prune takes the age of what goes, such as 90d or 12h; got {age!r}")
    book = _open(place)
    try:
        print(f"removed {book.prune(seconds):,} runs older than {age} from {book.backend.name}")
    finally:
        book.close()
    return 0


def _deliver(
    book: Ledger,
    choice: Filter,
    rows: list[dict[str, Any]],
    title: str,
    by: Group,
    *,
    json: bool,
    export: Path | None,
    plot: bool,
    png: Path | None,
    figure: Figure,
) -> None:
    if export is not None:
        from dspy_live.observe.export import write_table

        print(f"wrote {len(rows)} rows to {write_table(export, rows)}", file=sys.stderr)
    if png is not None and rows:
        from dspy_live.cli.screens.usage_plot import draw_png

        draw_png(png, book.summary(by, choice), by, figure)
        print(f"drew {png}", file=sys.stderr)
    if json:
        import orjson

        print(orjson.dumps({"totals": book.totals(choice), "rows": rows}, option=orjson.OPT_INDENT_2).decode())
        return
    if export is not None or (png is not None and rows):
        return
    if not rows:
        print(f"nothing is written down in {book.backend.name} for that; `dspy-live serve` and `run` write there")
        return
    if plot:
        from dspy_live.cli.screens.usage_plot import draw_terminal

        draw_terminal(book.summary(by, choice), by, figure, sys.stdout)
        return
    if title == by:
        show_summary(rows, by, book.totals(choice), sys.stdout)
    else:
        show_list(rows, sys.stdout)


def show_summary(rows: list[dict[str, Any]], by: str, totals: dict[str, Any], out: TextIO) -> None:
    """Print sums as a table with a last row for all of them."""
    from rich.table import Table

    counts_runs = any(row["runs"] is not None for row in rows)
    table = Table(box=None, pad_edge=False, show_footer=True, header_style="bold", footer_style="bold")
    table.add_column(by, footer="all")
    for name, text in _columns(totals, counts_runs).items():
        table.add_column(name, justify="right", footer=text)
    for row in rows:
        table.add_row(one_line(row[by] or "(none)"), *_columns(row, counts_runs).values())
    _print(table, out)
    if totals["unpriced_calls"]:
        print(f"{totals['unpriced_calls']} LM calls have no known price and are not in the cost", file=out)


def show_list(rows: list[dict[str, Any]], out: TextIO) -> None:
    """Print runs or LM calls as a table."""
    from datetime import UTC, datetime

    from rich.table import Table

    time = "started" if "started" in rows[0] else "ended"
    names = [time, "id" if time == "started" else "run", "program", "key", "model", "predictor", "error"]
    names = [n for n in names if n in rows[0] and (n in (time, "id", "run", "program") or any(r[n] for r in rows))]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name)
    for name in ("seconds", "first token", "tokens", "cost"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [
            datetime.fromtimestamp(row[n], UTC).strftime("%Y-%m-%d %H:%M:%S") if n == time else one_line(row[n] or "")
            for n in names
        ]
        cost = "?" if row["cost"] is None or row["unpriced_calls"] else f"${row['cost']:.4f}"
        seconds = row["duration"] if time == "started" else row["latency"]
        table.add_row(*cells, _seconds(seconds), _seconds(row["ttft"]), f"{row['total_tokens']:,}", cost)
    _print(table, out)


def one_line(name: Any) -> str:
    """Return a name as a terminal can show it in one line, whatever is in it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(name))


def _columns(row: dict[str, Any], counts_runs: bool) -> dict[str, str]:
    runs = {
        "runs": f"{row['runs'] or 0:,}",
        "failed": f"{row['failed_runs'] or 0:,}",
        "mean s": _seconds(row["mean_duration"]),
        "first token s": _seconds(row["mean_ttft"]),
    }
    return {
        **(runs if counts_runs else {}),
        "LM calls": f"{row['api_calls']:,}",
        "cached": f"{row['cache_hits']:,}",
        "errors": f"{row['errors']:,}",
        "tokens in": f"{row['prompt_tokens']:,}",
        "out": f"{row['completion_tokens']:,}",
        "cost": f"${row['total_cost']:,.4f}",
    }


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _print(table: Any, out: TextIO) -> None:
    from rich.console import Console

    if table.row_count > _LONG:
        _print_long(table, out)
        return
    # In a pipe no line is cut to a terminal's width that is not there.
    Console(file=out, highlight=False, markup=False, emoji=False, width=None if out.isatty() else 250).print(table)


def _print_long(table: Any, out: TextIO) -> None:
    """Print a table's text alone, in the same columns: rich takes a second for 2000 rows."""
    from rich.cells import cell_len, set_cell_size

    columns = []
    for column in table.columns:
        cells = [column.header, *column.cells, *([column.footer] if table.show_footer else [])]
        width = max(map(cell_len, cells))
        right = column.justify == "right"
        columns.append([" " * (width - cell_len(c)) + c if right else set_cell_size(c, width) for c in cells])
    print("\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True)), file=out)


def _open(place: str | None) -> Ledger:
    from dspy_live.core.errors import ConfigurationError
    from dspy_live.observe.ledger import default_place, open_ledger

    load_dotenv(Path(".env"), os.environ)
    where = place or default_place()
    if "://" not in where and not Path(where).expanduser().is_file():
        raise ConfigurationError(
            f"there is no ledger at {where}; `dspy-live serve` and `run` write one, or name --ledger"
        )
    return open_ledger(where)
