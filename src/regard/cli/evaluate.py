"""`regard evaluate`: measure a trained run on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from regard.cli.numbers import Count
from regard.cli.show import Output

_WIDEST_CONFUSION = 12  # labels; a larger table is in the JSON alone


def command(
    run: Path,
    data: list[str],
    /,
    *,
    beams: Count = 4,
    lowercase: bool = False,
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    documents: Literal["file", "line", "blank"] | None = None,
    split: str | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    skip_long: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Measure a trained run on data of the form that it was trained on, by its task's own measures.

    Parameters
    ----------
    run
        The run's folder.
    data
        Files, folders, - for standard input or hub:owner/name.
    beams
        For texts that are written: hypotheses kept at each step.
    lowercase
        Score texts lower-cased; a run that was trained lower-cased does so anyway.
    columns
        The columns that hold the task's fields, in their order.
    documents
        What a document of plain text is; unset: a file.
    split
        Of a hub data set.
    encoding
        Of text files.
    skip_bad_rows
        Leave broken rows out, counted.
    skip_long
        Leave texts out that are longer than the context, counted.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    from regard.runs import evaluate
    from regard.tasks.preparation import Reading

    out = Output(json)
    reading = Reading(columns, documents, split, encoding, skip_bad_rows, skip_long)
    found = evaluate(run, data, beams=beams, lowercase=lowercase, reading=reading, device=device)
    out.table([{"metric": name, "value": value} for name, value in found.metrics.items()])
    for name, value in found.details.items():
        if isinstance(value, (str, int, float)):
            out.line(f"{name}: {value}")
        elif isinstance(value, list) and all(isinstance(row, dict) for row in value):
            out.line(f"\n{name.replace('_', ' ')}:")
            out.table(value)
    labels = found.details.get("labels", [])
    if 2 <= len(labels) <= _WIDEST_CONFUSION:
        out.line("\ntrue label (rows), answer (columns):")
        rows = zip(labels, found.details["confusion"], strict=True)
        out.table([{"": label, **dict(zip(labels, counts, strict=True))} for label, counts in rows])
    out.result({"run": run, "data": data, "metrics": found.metrics, "details": found.details})
