"""`regard compare`: variants of a training under one budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.cli.train import TaskName
from regard.errors import ConfigError

_SEVERAL = Parameter(consume_multiple=True, negative=())


def command(
    configs: list[str],
    /,
    *,
    data: Annotated[list[str], _SEVERAL],
    task: TaskName = "generate",
    valid: Annotated[list[str] | None, _SEVERAL] = None,
    minutes: float | None = None,
    tokens: OptionalCount = None,
    seeds: OptionalCount = 3,
    out: Path = Path("runs/compare"),
    setting: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Train variants under one budget with several seeds each, and compare them: a table with intervals and a plot.

    The same command goes on where it was stopped, and adds seeds where it has more of them.

    Parameters
    ----------
    configs
        Two or more: a preset, settings NAME=VALUE, or both (generate-small,position=alibi); or a JSON file of them. The
        others are compared with the first.
    data
        Files, folders or hub:owner/name, as for `regard train`.
    task
        What is learned: translate, generate, fill, denoise, classify, tag or chat.
    valid
        Held-out data of the same form; unset: the last tenth of the data.
    minutes
        The budget of each run: all of its time. What a variant leaves open is chosen for it, by the same rules for all.
    tokens
        The budget of each run: tokens that it trains on, in steps of the same size.
    seeds
        How often each variant is trained, with seeds 1 to this.
    out
        The folder of all runs, with compare.json and compare.svg.
    setting
        A setting that all variants have, NAME=VALUE, such as width=64 or vocab_size=2000.
    json
        Print one JSON object on standard output.
    """
    from regard.cli.display import Display
    from regard.lab.compare import compare, read_variant, read_variants

    output = Output(json)
    variants = read_variants(configs)
    common: dict[str, Any] = {}
    for text in setting or []:
        if "=" not in text:
            raise ConfigError(f"--set {text} is no setting; give NAME=VALUE, such as width=64.")
        common |= read_variant(text).settings
    with Display(output, f"compare {task}") as display:
        result = compare(
            task, variants, data, out=out, valid=valid, minutes=minutes, tokens=tokens, seeds=seeds or 0,
            common=common, report=display, told=output.note,
        )  # fmt: skip
    metric = result["metric"]
    output.table([_row(one, metric) for one in result["variants"]])
    better = "more" if result["higher_is_better"] else "less"
    seeds_ = f"{len(result['seeds'])} seed{'s' if len(result['seeds']) > 1 else ''}"
    output.line(
        f"{metric}: {better} is better; {seeds_}, {result['interval_of']}; plot: {out / 'compare.svg'}"
    )
    output.result({**result, "out": out})


def _row(one: dict[str, Any], metric: str) -> dict[str, Any]:
    from regard.lab.statistics import Estimate

    def text(value: dict[str, Any] | None) -> str:
        return "-" if value is None else Estimate(**value).text()

    return {
        "variant": one["name"], "weights": f"{one['parameters']:,}", metric: text(one["metrics"][metric]),
        "less the first": text(one["against_first"]), "steps": text(one["steps"]), "seconds": text(one["seconds"]),
    }  # fmt: skip
