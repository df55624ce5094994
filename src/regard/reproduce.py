"""Train for a published result from nothing, score it on the development data, and set the figures side by side.

recipe ─> rows ─> files beside the run ─> perhaps masked pre-training on the texts, and a first pass over other rows
       ─> train ─> ours, theirs
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regard.checkpoints.files import atomic_file
from regard.data.published_sets import Rows
from regard.errors import ConfigError, DataError, suggest
from regard.recipes import RECIPES, Figure, Recipe
from regard.runs import CHANGEABLE, Report, read_run, train

__all__ = ["Reproduction", "find_recipe", "reproduce"]

Size = Literal["laptop", "gpu"]
_STAGES = ("pretrained", "first")  # what comes before, each in a folder beside the run
_OF_START = ("model", "tokenizer", "vocab_size")
_FOUND = ("vocab_size", "device", "precision")  # what a run finds for itself


@dataclass(frozen=True)
class Reproduction:
    """Hold a result beside the published ones.

    Attributes:
        name: of the recipe.
        run: the model directory.
        metric: what is compared.
        value: ours, on the development data.
        rows: of the development data that it was measured on; 0 for running text.
        figures: the published ones.
        seconds: training, pre-training included.
        pretraining: seconds of it that were pre-training.
        reason: why training ended: its epochs, or its minutes, which then limited it.
        signature: of the scorer, where it has one.
        percent: whether value and figures are shares.
    """

    name: str
    run: Path
    metric: str
    value: float
    rows: int
    figures: tuple[Figure, ...]
    seconds: float
    pretraining: float
    reason: str
    signature: str | None
    percent: bool


def find_recipe(name: str) -> Recipe:
    """Find a recipe by its name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        hint = suggest(name, RECIPES) or f"There are {', '.join(RECIPES)}."
        raise ConfigError(f"nothing called {name!r} can be reproduced. {hint}")
    return RECIPES[name]


def reproduce(
    name: str,
    data: str | Path,
    *,
    out: str | Path | None = None,
    size: Size = "laptop",
    seed: int = 1,
    report: Report = lambda event: None,
    **settings: Any,
) -> Reproduction:
    """Train a recipe's model from nothing and score it on the development data.

    Args:
        name: of the recipe.
        data: the folder with the publishers' files.
        out: the run's folder; None: runs/NAME. The rows go beside it, to OUT-data, what was pre-trained to
            OUT-pretrained, and what was trained on other rows before to OUT-first; a run that is there is trained on,
            or only scored if it had ended.
        size: laptop, for 2 cores, or gpu.
        seed: of weights and order.
        report: told what happens, as events.
        settings: of `regard.train`, in place of the recipe's.

    Raises:
        ConfigError: no such recipe, or a setting can't be.
        DataError: files are missing or broken.
    """
    recipe = find_recipe(name)
    if size not in ("laptop", "gpu"):
        raise ConfigError(f"size={size!r} is not one of laptop, gpu.")
    out = Path("runs") / name if out is None else Path(out)
    if not out.name:
        raise ConfigError(f"--out {out} has no name of its own; name a new folder.")
    files = _write_rows(recipe, Path(data), out)
    chosen = {**(recipe.gpu or recipe.laptop if size == "gpu" else recipe.laptop), **settings, "seed": seed}
    start, spent = None, dict.fromkeys(_STAGES, 0.0)
    for stage, task, texts, valid, before in (
        ("pretrained", "fill", "texts", "valid_texts", recipe.pretrain),
        ("first", recipe.task, "first", "valid", recipe.first),
    ):
        if before is not None:
            place, before = out.with_name(f"{out.name}-{stage}"), {**before, "seed": seed}
            if _go(place, task, files[texts], files[valid], before, recipe, report, start) == "interrupted":
                raise KeyboardInterrupt  # nothing is trained from what is half trained
            start, spent[stage] = place, float(read_run(place)["result"]["seconds"])
    _go(out, recipe.task, files["train"], files["valid"], chosen, recipe, report, start)
    record = read_run(out)
    result = record["result"]
    if recipe.metric not in result["metrics"]:
        raise DataError(f"{out} was interrupted; the same command goes on with it.")
    return Reproduction(
        name, out, recipe.metric, float(result["metrics"][recipe.metric]), record["sizes"]["valid"]["rows"],
        recipe.figures, float(result["seconds"]) + sum(spent.values()), spent["pretrained"], result["reason"],
        result["details"].get("signature"), recipe.percent,
    )  # fmt: skip


def _go(
    out: Path, task: str, data: Path, valid: Path, settings: dict[str, Any], recipe: Recipe, report: Report,
    start: Path | None,
) -> str:  # fmt: skip
    """Train, or go on with what is there, and say how it ended; a run that has ended stays as it is.

    What the start decides, if there is one, is not set anew.

    Raises:
        ConfigError: what is there was trained with other settings.
    """
    if start is not None:
        settings = {key: value for key, value in settings.items() if key not in _OF_START}
    if not (out / "regard.json").is_file():
        more: dict[str, Any] = {"start": start} if start else {"lowercase": recipe.lowercase}
        return train(task, data, valid=valid, out=out, report=report, **more, **settings).training.reason
    record = read_run(out)
    reason = str(record.get("result", {}).get("reason", "interrupted"))
    before = {
        key: value for key, value in {**record["model"], **record["training"]}.items() if key not in _FOUND
    }
    other = {key: value for key, value in settings.items() if key in before and before[key] != value}
    fixed = [key for key in other if reason != "interrupted" or key not in CHANGEABLE]
    if fixed:
        key = fixed[0]
        raise ConfigError(
            f"{out} was trained with {key} {before[key]}, not {other[key]}; name another --out."
        )
    if reason != "interrupted":
        return reason
    return train(task, out=out, resume=True, report=report, **other).training.reason


def _write_rows(recipe: Recipe, folder: Path, run: Path) -> dict[str, Path]:
    """Write the rows of a recipe beside its run, as files that `train` reads; give their paths.

    Raises:
        DataError: files are missing, and where to get them, or they are broken; or nothing can be written there.
        ConfigError: the run was trained on other rows.
    """
    missing = [name for name in recipe.files if not (folder / name).is_file()]
    if missing:
        where = f"; the data set is {recipe.hub} on the hub" if recipe.hub else ""
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; name the folder with the publishers' files{where}."
        )
    found = recipe.read(folder)
    out = run.with_name(f"{run.name}-data")
    texts_of: dict[str, str] = {}
    for part in ("first", "train", "valid"):
        if part not in found:
            continue
        if recipe.task == "generate":
            texts_of[f"{part}.txt"] = "".join(row["text"] for row in found[part])
        else:
            texts_of[f"{part}.jsonl"] = _jsonl(found[part])
    if recipe.pretrain is not None:
        for name, rows in (("texts", found["train"]), ("valid_texts", found["valid"])):
            texts = ({"text": row["text"] if "text" in row else " ".join(row["words"])} for row in rows)
            texts_of[f"{name}.jsonl"] = _jsonl(list(texts))
    begun = any(
        (folder / "regard.json").is_file()
        for folder in (run, *(run.with_name(f"{run.name}-{stage}") for stage in _STAGES))
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts_of.items():
            _write(out / name, text.encode(), run if begun else None)
    except OSError as error:
        raise DataError(f"{out} can't be written: {error.strerror or error}.") from None
    return {Path(name).stem: out / name for name in texts_of}


def _jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(path: Path, text: bytes, run: Path | None) -> None:
    """Write a file unless it is there already as it should be; under a run that has begun it may not change."""
    if path.is_file() and path.read_bytes() == text:
        return
    if run is not None:
        raise ConfigError(f"{run} was trained on other rows than the data has now; name another --out.")
    with atomic_file(path) as partial:
        partial.write_bytes(text)
