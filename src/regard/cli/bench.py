"""`regard bench`: the comparisons with other libraries, on the machine at hand."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, printable
from regard.errors import ConfigError, RegardError

if TYPE_CHECKING:
    from regard.bench.registry import Comparison


def command(
    names: list[str] | None = None,
    /,
    *,
    last: bool = False,
    every: Annotated[bool, Parameter(name="--all")] = False,
    rounds: OptionalCount = None,
    seed: OptionalCount = None,
    threads: OptionalCount = None,
    precision: str | None = None,
    setting: Annotated[list[str] | None, Parameter(name="--set")] = None,
    out: Path | None = None,
    models: Path | None = None,
    table: Path | None = None,
    tiny: Annotated[bool, Parameter(show=False)] = False,
    json: bool = False,
) -> int | None:
    """Compare Regard with other libraries on this machine; without a name, list the comparisons and their last results.

    Every side runs in turn, on the same weights and the same input; a peer that is not installed is left out, and it is
    said. `pip install "regard[bench]"` installs them all.

    Parameters
    ----------
    names
        What to run; with --json alone all that end within about three minutes.
    every
        Run every comparison, which takes hours.
    last
        Run nothing, and give the results of the last time.
    rounds
        How often each side runs; unset: as often as the comparison says.
    seed
        Of weights, data and prompts; unset: the comparison's.
    threads
        How many every side computes with; unset: one for each core.
    precision
        Of our weights: fp32, bf16, int8 or int4; unset: the comparison's.
    setting
        A setting of a comparison, NAME=VALUE, such as lengths=512,1024 of look.
    out
        Where results are written; unset: benchmarks/results in the project's folder, else the user's cache.
    models
        Keep the models that are made for it here; unset: they are made anew each time.
    table
        Put the table of the last results into this document, between its marks.
    json
        Print one JSON object on standard output.
    """
    from regard.bench.common import results_folder
    from regard.bench.registry import COMPARISONS, find
    from regard.bench.table import last_results, put_table

    output = Output(json)
    chosen = [find(name) for name in dict.fromkeys(names or [])]
    given = {
        "--rounds": rounds,
        "--threads": threads,
        "--precision": precision,
        "--set": setting,
        "--models": models,
    }
    stray = [flag for flag, value in given.items() if value is not None]
    kept = results_folder() if out is None else out
    if table is not None:
        if chosen or last or stray:
            raise ConfigError(
                "--table only writes a document; leave out names, --last and what a run is asked."
            )
        changed = put_table(table, kept)
        output.line(f"{table}: {'written' if changed else 'as it was'}")
        output.result({"table": str(table), "changed": changed})
        return None
    if every:
        if chosen or last:
            raise ConfigError("--all runs every comparison; leave out names and --last.")
        chosen = list(COMPARISONS.values())
    if last or not (chosen or json):
        if stray and not chosen:
            raise ConfigError(f"{stray[0]} needs the name of a comparison: {', '.join(COMPARISONS)}.")
        if stray:
            raise ConfigError(f"{stray[0]} has no effect with --last; leave one out.")
        results = last_results(kept, [one.name for one in chosen])
        _list(output, chosen or list(COMPARISONS.values()), results)
        output.result({"benchmarks": results})
        return None
    chosen = chosen or [one for one in COMPARISONS.values() if one.quick]
    if setting is not None and len(chosen) > 1:
        raise ConfigError("--set is for one comparison; name that one alone.")
    results, failed = [], {}
    with ExitStack() as stack:
        folder = models or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regard-bench-")))
        for one in chosen:
            try:
                results.append(
                    _run(output, one, folder, rounds, seed, threads, precision, setting, tiny=tiny, out=out)
                )
            except RegardError as error:
                if len(chosen) == 1:
                    raise
                failed[one.name] = str(error)
                output.note(f"{one.name}: {error}")
    output.result({"benchmarks": results, **({"failed": failed} if failed else {})})
    return 1 if failed else None


def _run(
    output: Output, one: Comparison, folder: Path, rounds: int | None, seed: int | None, threads: int | None,
    precision: str | None, setting: list[str] | None, *, tiny: bool, out: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Run one comparison, show its result and keep it."""
    from regard.bench.common import Options, cores, results_folder, write_result
    from regard.bench.registry import read_settings, run

    for name, value in (("rounds", rounds), ("threads", threads)):
        if value is not None and not 1 <= value <= 1000:
            raise ConfigError(f"--{name} {value} is not allowed; give a whole number from 1 to 1000.")
    if seed is not None and not 0 <= seed < 2**31:
        raise ConfigError(f"--seed {seed} is not allowed; give a whole number from 0 to {2**31 - 1}.")
    if precision is not None and precision not in ("fp32", "bf16", "int8", "int4"):
        raise ConfigError(f"--precision {precision} is not known; choose from fp32, bf16, int8, int4.")
    options = Options(
        rounds=one.rounds if rounds is None else rounds, seed=one.seed if seed is None else seed,
        threads=threads or cores(), work=folder, tiny=tiny, precision=precision,
        settings=read_settings(one, _words(setting)), report=output.note,
    )  # fmt: skip
    output.note(f"{one.name}: {one.about}")
    result = run(one, options)
    _show(output, result)
    if not tiny or out is not None:  # the figures of tiny models mean nothing
        output.note(f"written: {write_result(result, results_folder() if out is None else out)}")
    return result


def _words(setting: list[str] | None) -> dict[str, str]:
    """Split NAME=VALUE."""
    found = {}
    for text in setting or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {text} is no setting; give NAME=VALUE, such as lengths=512,1024.")
        found[name.strip()] = value.strip()
    return found


def _list(output: Output, chosen: list[Comparison], results: list[dict[str, Any]]) -> None:
    """Print the comparisons with their last results."""
    from regard.bench.table import comparisons, verdict

    by_name = {result["name"]: result for result in results}
    rows = []
    for one in chosen:
        result = by_name.get(one.name)
        aims = [f"{peer}: aim {_figure(aim)}" for peer, aim in one.aims.items()]
        rows.append(
            {
                "comparison": one.name,
                "of": one.about,
                "ours": f"{_figure(result['ours'])} {result['unit'].partition(' (')[0]}"
                if result
                else "not run here",
                "against": ", ".join(comparisons(result) if result else aims) or "-",
                "met": verdict(result) if result else "-",
            }
        )
    _print(output, None, rows)


def _show(output: Output, result: dict[str, Any]) -> None:
    """Print the sides of a result, and whether every aim is met."""
    from regard.bench.table import comparisons, side_rows, verdict

    rows = [
        {
            name: f"{100 * value:.0f} %" if name.startswith("of ") and value is not None else _figure(value)
            for name, value in row.items()
        }
        for row in side_rows(result)
    ]
    empty = {name for name in rows[0] if all(row[name] == "-" for row in rows)}
    _print(
        output,
        result["name"],
        [{name: cell for name, cell in row.items() if name not in empty} for row in rows],
    )
    for label, why in result.get("left_out", {}).items():
        output.line(f"left out: {label}, {why}")
    said = ", ".join(comparisons(result)) or "nothing to compare with"
    output.line(f"against {said}; more is better, met: {verdict(result)}")


def _print(output: Output, title: str | None, rows: list[dict[str, str]]) -> None:
    """Print rows as a table as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        words = name in ("comparison", "of", "side")
        table.add_column(name, justify="left" if words else "right", no_wrap=name in ("comparison", "side"))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row.values()))
    stream = output.stream
    console = Console(file=stream, width=None if stream.isatty() else 120, highlight=False, markup=False)
    console.print(table)


def _figure(value: Any) -> str:
    """Write a number short, text as it is, and nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
