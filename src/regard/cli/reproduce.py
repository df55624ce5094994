"""`regard reproduce`: a published result, trained for from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, plain
from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.reproduce import Reproduction


def command(
    name: str | None = None,
    /,
    *,
    data: Path | None = None,
    out: Path | None = None,
    size: Literal["laptop", "gpu"] = "laptop",
    minutes: float | None = None,
    epochs: OptionalCount = None,
    device: str | None = None,
    seed: int = 1,
    json: bool = False,
) -> int | None:
    """Train for a published result from nothing, and print ours beside it; without a name, list what there is.

    Parameters
    ----------
    name
        What to reproduce.
    data
        The folder with the data set's own files.
    out
        The run's folder; unset: runs/NAME.
    size
        For 2 cores, or for a GPU.
    minutes
        The most that training may take; unset: the recipe's.
    epochs
        Passes over the data; unset: the recipe's.
    device
        cpu, cuda, cuda:N or mps; unset: what is there.
    seed
        Of weights and order.
    json
        Print one JSON object on standard output.
    """
    from regard.recipes import RECIPES

    output = Output(json)
    if name is None:
        if data is not None or out is not None:
            raise ConfigError(f"name what to reproduce: {', '.join(RECIPES)}.")
        rows = [
            {"name": recipe.name, "task": recipe.task, "metric": recipe.metric, "about": recipe.about}
            for recipe in RECIPES.values()
        ]
        output.table(rows)
        output.result({"recipes": rows})
        return None
    from regard.cli import INTERRUPTED
    from regard.cli.display import Display
    from regard.reproduce import find_recipe, reproduce
    from regard.runs import read_run

    recipe = find_recipe(name)
    if data is None:
        raise ConfigError(f"--data is the folder with {', '.join(recipe.files)}; give it.")
    given = {"minutes": minutes, "epochs": epochs, "device": device}
    with Display(output, f"reproduce {name}") as display:
        try:
            found = reproduce(
                name, data, out=out, size=size, seed=seed, report=display,
                **{key: value for key, value in given.items() if value is not None},
            )  # fmt: skip
        except KeyboardInterrupt:
            display.close()
            output.note("the same command goes on from here.")
            raise
    if read_run(found.run)["result"]["reason"] == "interrupted":
        output.note("interrupted; the same command goes on from here.")
        return INTERRUPTED
    _show(output, found)
    output.result(plain(found))
    return None


def _show(output: Output, found: Reproduction) -> None:
    """Print a table of ours and theirs."""
    scale = 100 if found.percent else 1
    unit = " %" if found.percent else ""
    name = f"{found.metric}{unit}"
    rows = [{"": "ours", name: found.value * scale, "on": "the development data", "source": str(found.run)}]
    rows += [
        {"": "published", name: figure.value * scale, "on": figure.on, "source": figure.source}
        for figure in found.figures
    ]
    output.table(rows)
    ended = "its minutes ended it" if found.reason == "minutes" else f"ended by its {found.reason}"
    before = f", {found.pretraining:,.0f} s of it masked pre-training" if found.pretraining else ""
    output.line(f"{found.seconds:,.0f} s of training{before}; {ended}")
    if found.signature:
        output.line(f"signature: {found.signature}")
