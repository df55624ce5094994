"""`regard evaluate`: measure a trained run on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from regard.cli.details import show_details
from regard.cli.numbers import OptionalCount
from regard.cli.show import Output


def command(
    run: Path,
    data: list[str],
    /,
    *,
    beams: OptionalCount = None,
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
        For texts that are written: hypotheses kept at each step; unset: 4.
    lowercase
        For texts that are written: score them lower-cased; a run that was trained lower-cased does so anyway.
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
    show_details(out, found.details)
    out.result({"run": run, "data": data, "metrics": found.metrics, "details": found.details})
