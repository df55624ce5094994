"""`regard lab`: what people are told about attention, as experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.errors import ConfigError, RegardError

Action = Literal["list", "run", "all"]
SizeName = Literal["laptop", "gpu", "smoke"]


def command(
    action: Action = "list",
    names: list[str] | None = None,
    /,
    *,
    size: SizeName | None = None,
    seeds: OptionalCount = None,
    out: Path | None = None,
    document: Annotated[Path | None, Parameter(name="--document")] = None,
    json: bool = False,
) -> int | None:
    """Measure what people are told about attention: a claim, an experiment, a verdict with its numbers.

    `list` gives the verdicts of the project's own results, or of those in --out. `run L5 L6` measures claims, anew or,
    where a run was stopped, the seeds that are missing. `all` measures every claim that has no result in --out.

    Parameters
    ----------
    action
        list, run or all.
    names
        For run: which claims; for list: which to show in full.
    size
        laptop (within ten minutes each on two cores), gpu, or smoke (seconds; the numbers mean nothing). Unset: laptop.
    seeds
        Measure with seeds 1 to this; unset: as many as the claim says for its size.
    out
        Where results are written, a folder for each claim; unset: runs/lab, runs/lab-gpu or runs/lab-smoke.
    document
        For list: put the table of the results into this document, between its marks.
    json
        Print one JSON object on standard output.
    """
    output = Output(json)
    if action == "list":
        stray = {"--size": size, "--seeds": seeds}
        for flag, value in stray.items():
            if value is not None:
                raise ConfigError(f"{flag} is for run and all; leave it out.")
        _list(output, names or [], out, document)
        return None
    if document is not None:
        raise ConfigError("--document is for list; leave it out.")
    if action == "all" and names:
        raise ConfigError(f"`all` takes no names; for these alone type: regard lab run {' '.join(names)}")
    if action == "run" and not names:
        raise ConfigError("name what to run, such as: regard lab run L5")
    return _measure(output, names or [], size or "laptop", seeds, out)


def _measure(output: Output, names: list[str], size: str, seeds: int | None, out: Path | None) -> int | None:
    """Run the claims that are named, or without names all that have no result; one that fails stops no other."""
    from regard.lab.registry import claims, find
    from regard.lab.runner import default_out, run, run_all

    chosen = [find(name) for name in dict.fromkeys(name.upper() for name in names)] or claims()
    folder = default_out(size) if out is None else out
    results, failed = [], {}
    for one in chosen:
        try:
            if names:
                result = run(one, size=size, seeds=seeds, out=folder, report=output.note)
            else:
                result = run_all([one], size=size, seeds=seeds, out=folder, report=output.note).results[
                    one.id
                ]
        except RegardError as error:
            if len(chosen) == 1:
                raise
            failed[one.id] = str(error)
            output.note(f"{one.id}: {error}")
            continue
        results.append(result)
        output.line(f"{one.id}: {result['verdict']}")
        output.note(f"{one.id}: written: {folder / one.id / 'index.html'}")
    short = [_short(result, folder) for result in results]
    output.result({"claims": short, **({"failed": failed} if failed else {})})
    return 1 if failed else None


def _list(output: Output, names: list[str], out: Path | None, document: Path | None) -> None:
    """Show verdicts; claims that are named are shown in full."""
    from regard.lab.kept import COMMITTED, read_result
    from regard.lab.registry import claims, find
    from regard.lab.table import put_table

    folder = COMMITTED if out is None else out
    if out is not None and not out.is_dir():
        raise ConfigError(f"{out} is no folder; name one with results of `regard lab run`.")
    if document is not None:
        if names:
            raise ConfigError("--document takes all claims; leave out their names.")
        changed = put_table(document, folder)
        output.line(f"{document}: {'written' if changed else 'as it was'}")
        output.result({"document": document, "changed": changed})
        return
    rows = []
    for one in [find(name) for name in names] or claims():
        result = read_result(one.id, folder)
        asked = {"id": one.id, "title": one.title, "question": one.question}
        rows.append({**asked, "verdict": None, "status": None} if result is None else _short(result, folder))
        output.line(f"{one.id:<4} {one.question}")
        output.line(f"     {result['verdict'] if result else f'Not measured here: regard lab run {one.id}'}")
        if names:
            _full(output, one, result)
    output.result({"claims": rows})


def _full(output: Output, claim: Any, result: dict[str, Any] | None) -> None:
    for name, text in (
        ("told", claim.said), ("method", claim.method), ("refuted by", claim.refuted_by), ("fair", claim.fair),
        ("tuning", claim.tuning),
    ):  # fmt: skip
        output.line(f"     {name}: {text}")
    if result is None:
        return
    output.line(f"     again: {result['command']}")
    for panel in result["figure"]["panels"]:
        output.line(f"\n{panel['title']}: {panel['y']}")
        output.table(
            [
                {"series": series["name"], panel["x"]: x, **{key: point[key] for key in ("mean", "low", "high", "n")}}
                for series in panel["series"]
                for x, point in zip(series["x"], series["points"], strict=True)
            ]
        )  # fmt: skip


def _short(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Leave out what is long: single runs and the figure's points, which result.json has."""
    long = ("runs", "figure", "settings", "machine", "versions", "method", "refuted_by", "fair", "tuning")
    return {
        **{key: value for key, value in result.items() if key not in long},
        "page": folder / result["id"] / "index.html",
    }
