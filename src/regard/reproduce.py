"""Train for a published result from nothing, score it on the development data, and set the figures side by side.

recipe ─> rows ─> files beside the run ─> perhaps masked pre-training on the texts ─> train ─> ours, theirs
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regard.errors import ConfigError, DataError, suggest
from regard.recipes import RECIPES, Figure, Recipe, Rows
from regard.runs import Report, read_run, train

__all__ = ["Reproduction", "find_recipe", "reproduce"]

Size = Literal["laptop", "gpu"]


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
        out: the run's folder; None: runs/NAME. The rows go beside it, to OUT-data, and what was pre-trained to
            OUT-pretrained; a run that is there is trained on, or only scored if it had ended.
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
    rows = out.with_name(f"{out.name}-data")
    files = _write_rows(recipe, Path(data), rows)
    chosen = {**(recipe.gpu or recipe.laptop if size == "gpu" else recipe.laptop), **settings, "seed": seed}
    start, pretraining = None, 0.0
    if recipe.pretrain is not None:
        start = out.with_name(f"{out.name}-pretrained")
        _go(
            start,
            "fill",
            files["texts"],
            files["valid_texts"],
            {**recipe.pretrain, "seed": seed},
            recipe,
            report,
        )
        pretraining = float(read_run(start)["result"]["seconds"])
        of_start = ("model", "tokenizer", "vocab_size")
        chosen = {key: value for key, value in chosen.items() if key not in of_start}
    _go(out, recipe.task, files["train"], files["valid"], chosen, recipe, report, start=start)
    record = read_run(out)
    result = record["result"]
    if recipe.metric not in result["metrics"]:
        raise DataError(f"{out} was interrupted; the same command goes on with it.")
    return Reproduction(
        name, out, recipe.metric, float(result["metrics"][recipe.metric]), record["sizes"]["valid"]["rows"],
        recipe.figures, float(result["seconds"]) + pretraining, pretraining, result["reason"],
        result["details"].get("signature"), recipe.percent,
    )  # fmt: skip


def _go(
    out: Path, task: str, data: Path, valid: Path, settings: dict[str, Any], recipe: Recipe, report: Report, *,
    start: Path | None = None,
) -> None:  # fmt: skip
    """Train, or go on with what is there; a run that has ended stays as it is."""
    if (out / "regard.json").is_file():
        if read_run(out).get("result", {}).get("reason", "interrupted") == "interrupted":
            train(task, out=out, resume=True, report=report)
        return
    more: dict[str, Any] = {"start": start} if start else {"lowercase": recipe.lowercase}
    train(task, data, valid=valid, out=out, report=report, **more, **settings)


def _write_rows(recipe: Recipe, folder: Path, out: Path) -> dict[str, Path]:
    """Write the rows of a recipe as files that `train` reads; give their paths.

    Raises:
        DataError: files are missing, and where to get them, or they are broken.
    """
    missing = [name for name in recipe.files if not (folder / name).is_file()]
    if missing:
        where = f"; the data set is {recipe.hub} on the hub" if recipe.hub else ""
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; name the folder with the publishers' files{where}."
        )
    found = recipe.read(folder)
    out.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for part, rows in (("train", found["train"]), ("valid", found["valid"])):
        if recipe.task == "generate":
            written[part] = _write(out / f"{part}.txt", "".join(row["text"] for row in rows))
        else:
            written[part] = _write(out / f"{part}.jsonl", _jsonl(rows))
    for part, name in (("train", "texts"), ("valid", "valid_texts")):
        texts = [{"text": row["text"] if "text" in row else " ".join(row["words"])} for row in found[part]
                 if "text" in row or "words" in row]  # fmt: skip
        if recipe.pretrain is not None:
            written[name] = _write(out / f"{name}.jsonl", _jsonl(texts))
    return written


def _jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(path: Path, text: str) -> Path:
    """Write a file unless it is there already with the same text, so that a run's data doesn't change under it."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8", newline="\n")
    return path
