"""Variants of a training under one budget, with several seeds each: a table with intervals and a plot.

    OUT/begun.json                what is compared, so that the same call goes on
    OUT/VARIANT/seed-1            a run as `regard train` leaves it
    OUT/compare.json, .svg        the result

With tokens as the budget every variant takes the same number of steps of the same size. With minutes each gets the same
time, all of it, and what a variant leaves open is chosen for that time by the rules of `regard train --minutes`, which
are the same for all.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regard.bench.common import commit, machine, versions
from regard.checkpoints.files import atomic_file, read_json, write_json_atomic
from regard.config import ModelConfig
from regard.config_recurrent import config_from
from regard.errors import CheckpointError, ConfigError
from regard.lab.claim import Figure, Panel, Series
from regard.lab.drawing import svg
from regard.lab.statistics import INTERVAL, Estimate, difference, estimate
from regard.models.families import preset
from regard.runs import Report, read_run, train
from regard.tasks.record import Data
from regard.tasks.registry import get_task
from regard.tasks.settings import split_settings
from regard.training.config import TrainConfig

__all__ = ["BATCH_TOKENS", "Compared", "Variant", "compare", "read_variant", "read_variants"]

BATCH_TOKENS = 4096
"""Tokens of a step under a budget of tokens, unless they are set."""
_BUDGET = ("steps", "epochs", "minutes", "patience", "seed")
_UNITS = {"bleu": "BLEU", "chrf": "chrF", "accuracy": "part that is right", "nll": "nats a token", "f1": "F1"}
_RUN = ("tokenizer", "vocab_size", "lowercase")


@dataclass(frozen=True)
class Variant:
    """Name one side of a comparison.

    Attributes:
        name: what it is called in the table.
        model: a preset's name or a whole configuration; None: what suits the task and the data.
        settings: fields of ModelConfig and TrainConfig, tokenizer, vocab_size and lowercase, that it has for itself.
    """

    name: str
    model: str | ModelConfig | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Give the name of its folder."""
        return re.sub(r"[^\w.=+-]+", "_", self.name).strip("._")[:80] or "variant"


@dataclass(frozen=True)
class Compared:
    """Hold what one variant came to.

    Attributes:
        name: the variant's.
        parameters: weights of its model.
        metrics: each measure on the held-out data, over seeds.
        values: the deciding metric of each seed, in the order of the seeds.
        against_first: its difference from the first variant, seed by seed; None for the first.
        steps, seconds, tokens: of training, over seeds.
    """

    name: str
    parameters: int
    metrics: Mapping[str, Estimate]
    values: tuple[float, ...]
    against_first: Estimate | None
    steps: Estimate
    seconds: Estimate
    tokens: Estimate


def read_variant(text: str) -> Variant:
    """Read a variant as it is typed.

    It is a preset's name, settings NAME=VALUE, or both with commas between (`generate-small,position=alibi`); or a JSON
    file with `name` and `model` (a preset or a configuration), both optional, and settings beside them.

    Raises:
        ConfigError: it can't be read, or names a setting or a preset that there isn't.
    """
    values: dict[str, Any]
    if text.endswith(".json"):
        try:
            values = json.loads(Path(text).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it holds no JSON"
            raise ConfigError(f"{text} can't be read: {why}.") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{text} holds no settings: it must be an object of names and values.")
        name = str(values.pop("name", Path(text).stem))
    else:
        name, values = text, {}
        for place, part in enumerate(text.split(",")):
            key, equals, value = (word.strip() for word in part.partition("="))
            if not equals and place == 0 and key:
                values["model"] = key
            elif not equals or not key or not value:
                raise ConfigError(f"{part!r} in {text!r} is no setting; give NAME=VALUE.")
            else:
                values[key] = _value(value)
    model = values.pop("model", None)
    if isinstance(model, dict):
        model = config_from(model)
    elif model is not None:
        preset(str(model))
    split_settings({key: value for key, value in values.items() if key not in _RUN})
    for key in _BUDGET:
        if key in values:
            raise ConfigError(f"{key} is the comparison's own, the same for all; take it out of {text}.")
    return Variant(name, model, values)


def read_variants(texts: Sequence[str]) -> list[Variant]:
    """Read several; raises ConfigError as `read_variant`, for two of one name, or for fewer than two."""
    if len(texts) < 2:
        raise ConfigError("a comparison needs two variants at least, such as num_heads=1 num_heads=8.")
    found = [read_variant(text) for text in texts]
    folders = [one.folder for one in found]
    for one in found:
        if folders.count(one.folder) > 1:
            raise ConfigError(f"two variants are called {one.name}; give each a name of its own.")
    return found


def compare(
    task: str,
    variants: Sequence[Variant],
    data: Data,
    *,
    out: Path,
    valid: Data | None = None,
    minutes: float | None = None,
    tokens: int | None = None,
    seeds: int | Sequence[int] = 3,
    common: Mapping[str, Any] | None = None,
    report: Report = lambda event: None,
    told: Any = lambda line: None,
) -> dict[str, Any]:
    """Train every variant with every seed, and give means, intervals and differences; compare.json holds the same.

    The same call goes on where one was stopped. Seeds take turns: all variants with the first, then with the second.

    Args:
        task: of `regard train`.
        variants: two or more; the others are compared with the first.
        data: as for `regard train`.
        out: the folder of the comparison.
        valid: held-out data; None: the last tenth.
        minutes: of each run, everything included; or
        tokens: of each run's training.
        seeds: how many, from 1 on, or which.
        common: settings that all have, unless a variant sets them otherwise.
        report: told what happens in each run.
        told: told which run it is, as a line.

    Raises:
        ConfigError: not exactly one budget, or `out` holds something else.
        As `regard.runs.train`.
        KeyboardInterrupt: a run was interrupted.
    """
    if (minutes is None) == (tokens is None):
        raise ConfigError("give a budget, the same for all: either minutes or tokens.")
    if tokens is not None and tokens < 1:
        raise ConfigError(f"tokens={tokens} train nothing; give at least 1.")
    if isinstance(seeds, int) and not 1 <= seeds <= 100:
        raise ConfigError(f"seeds={seeds} is not allowed; give a whole number from 1 to 100.")
    numbers = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    chosen, shared = get_task(task), dict(common or {})
    for key in _BUDGET:
        if key in shared:
            raise ConfigError(f"{key} is the comparison's own; leave it out.")
    budget = {"minutes": minutes} if minutes is not None else {"tokens": tokens}
    asked = {
        "task": task, "data": repr(data), "valid": repr(valid), **budget, "common": shared,
        "variants": [{**dataclasses.asdict(one), "model": repr(one.model)} for one in variants],
    }  # fmt: skip
    _begin(out, json.loads(json.dumps(asked)))
    runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in variants}
    for place, seed in enumerate(numbers, 1):
        for one in variants:
            told(f"{one.name}, seed {seed} ({place} of {len(numbers)})")
            settings = {**shared, **one.settings, "seed": seed}
            if tokens is not None:
                size = settings.setdefault("batch_tokens", BATCH_TOKENS)
                settings["steps"] = max(1, round(tokens / size))
            else:
                settings["minutes"] = minutes
            run = out / one.folder / f"seed-{seed}"
            runs[one.name].append(_train(task, one, data, valid, run, settings, report))
    compared = [_compared(one, runs, variants[0].name, chosen.metric) for one in variants]
    figure = _figure(compared, chosen.metric, chosen.higher_is_better, budget)
    result = {
        "task": task, "budget": budget, "metric": chosen.metric, "higher_is_better": chosen.higher_is_better,
        "seeds": numbers, "interval_of": INTERVAL, "variants": [dataclasses.asdict(one) for one in compared],
        "figure": figure.to_dict(), "commit": commit(), "machine": machine(), "versions": versions(),
    }  # fmt: skip
    result = json.loads(json.dumps(result))
    try:
        with atomic_file(out / "compare.svg") as temporary:
            temporary.write_text(svg(result["figure"], title=f"regard compare: {task}"), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{out} can't be written: {error.strerror or error}") from error
    write_json_atomic(out / "compare.json", result)
    return result


def _train(
    task: str, variant: Variant, data: Data, valid: Data | None, run: Path, settings: dict[str, Any], report: Report
) -> dict[str, Any]:  # fmt: skip
    """Train one run, or go on with it; a run that has ended is taken as it is. Gives its record."""
    ended = "interrupted"
    if (run / "regard.json").is_file():
        ended = read_run(run).get("result", {}).get("reason", "interrupted")
        if ended == "interrupted":
            ended = train(task, out=run, resume=True, report=report).training.reason
    else:
        result = train(task, data, out=run, valid=valid, model=variant.model, report=report, **settings)
        ended = result.training.reason
    if ended == "interrupted":
        raise KeyboardInterrupt
    return read_run(run)


def _begin(out: Path, asked: dict[str, Any]) -> None:
    """Make the folder, or go on in one that the same call began; only the number of seeds may differ."""
    note = out / "begun.json"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not note.is_file():
            raise ConfigError(
                f"{out} holds something else than a comparison; name another folder with --out."
            )
        before = read_json(note)
        differing = sorted(name for name in {*before, *asked} if before.get(name) != asked.get(name))
        if differing:
            raise ConfigError(
                f"{out} was begun with another {', '.join(differing)}; give what was given then, or another --out."
            )
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{out} can't be made: {error.strerror or error}") from error
    write_json_atomic(note, asked)


def _compared(
    variant: Variant, runs: Mapping[str, Sequence[Mapping[str, Any]]], first: str, metric: str
) -> Compared:
    """Put the runs of a variant together."""
    own = runs[variant.name]
    results = [record["result"] for record in own]
    names = [
        name for name in results[0]["metrics"] if all(one["metrics"].get(name) is not None for one in results)
    ]
    if metric not in names:
        raise ConfigError(
            f"a run of {variant.name} has no {metric}: its measure was not a number; look at its log."
        )
    values = tuple(float(one["metrics"][metric]) for one in results)
    others = [float(record["result"]["metrics"][metric]) for record in runs[first]]
    return Compared(
        variant.name, config_from(own[0]["model"]).num_parameters(),
        {name: estimate([float(one["metrics"][name]) for one in results]) for name in names}, values,
        None if variant.name == first else difference(values, others),
        *(estimate([float(one[name]) for one in results]) for name in ("steps", "seconds", "tokens")),
    )  # fmt: skip


def _figure(
    compared: Sequence[Compared], metric: str, higher_is_better: bool, budget: Mapping[str, Any]
) -> Figure:
    names = tuple(one.name for one in compared)
    (kind, amount), better = next(iter(budget.items())), "more" if higher_is_better else "less"
    unit = _UNITS.get(metric, metric.replace("_", " "))

    def bars(label: str, points: Sequence[Estimate]) -> tuple[Series, ...]:
        return (Series(label, names, tuple(points)),)

    panels = (
        Panel(
            f"{metric} on held-out data", "variant", f"{metric} ({unit}; {better} is better)",
            bars(metric, [one.metrics[metric] for one in compared]),
        ),
        Panel("What it took", "variant", "time of training (s)", bars("time", [one.seconds for one in compared])),
    )  # fmt: skip
    return Figure(f"{amount:,} {kind} for each run.", panels)


def _value(text: str) -> Any:
    """Read a value as JSON where it is that, else as a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


assert set(_BUDGET) <= {one.name for one in dataclasses.fields(TrainConfig)}
