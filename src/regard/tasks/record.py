"""What a run writes down about itself: regard.json, and what is told from it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regard.checkpoints.hub import Place, locate
from regard.checkpoints.load import model_config
from regard.checkpoints.sentences import sentence_settings
from regard.checkpoints.shards import Weights
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.tasks.card import size_line
from regard.tasks.folders import check_names, has_tokenizer, read_config, read_run
from regard.tasks.preparation import Reading

Data = str | Path | Sequence[str | Path]


def given_settings(
    data: Data | None, valid: Data | None, model: str | ModelConfig | None, tokenizer: str | Path | None,
    vocab_size: int | None, lowercase: bool, reading: Reading, start: str | Path | None = None,
    fold: Sequence[int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Gather what was said about data and model, without what was left at its default, as plain JSON values.

    Raises:
        ConfigError: a name that no file of UTF-8 can hold.
    """
    values: dict[str, Any] = {
        "data": names(data), "valid": names(valid), "tokenizer": None if tokenizer is None else str(tokenizer),
        "model": model.to_dict() if isinstance(model, ModelConfig) else model, "vocab_size": vocab_size,
        "lowercase": lowercase, "from": None if start is None else str(start),
        "fold": None if fold is None else list(fold),
    }  # fmt: skip
    usual = dataclasses.asdict(Reading())
    values |= {name: v for name, v in dataclasses.asdict(reading).items() if v != usual[name]}
    check_names(*values.values())
    return {name: value for name, value in values.items() if value not in (None, False, [])}


def names(data: Data | None) -> list[str]:
    """List data as text, one name for each file."""
    if data is None:
        return []
    return [str(p) for p in ([data] if isinstance(data, (str, Path)) else data)]


def summary(record: Mapping[str, Any]) -> str:
    """Say in one line what was prepared."""
    sizes = record["sizes"]
    tokens = f"{record['model']['vocab_size']:,} tokens ({record['tokenizer']})"
    prepared = f"{size_line(sizes['train'])} to train on, {size_line(sizes['valid'])} held out; {tokens}"
    if "dial" in record:
        prepared = f"{prepared}; for {record['training']['minutes']:g} minutes: {record['dial']['summary']}"
    start = record.get("start")
    if start is None:
        return prepared
    new = f"new are {', '.join(start['new'])}" if start["new"] else "nothing is new"
    return f"{prepared}; weights of {start['from']}, {new}"


def describe(
    where: str | Path, *, revision: str | None = None, offline: bool | None = None
) -> dict[str, dict[str, Any]]:
    """Say what a run or a published model holds, in groups of names and values; no weight is read.

    Raises:
        CheckpointError: the folder is neither, or damaged.
    """
    place = locate(where, revision=revision, offline=offline)
    if place.file is None and (place.folder / "regard.json").is_file():
        return _describe_run(place.folder)
    return _describe_published(place)


def _describe_published(place: Place) -> dict[str, dict[str, Any]]:
    read_config(place.folder)  # says what is missing
    with Weights(place.weights) as weights:
        names = weights.names()
        family, config = model_config(place.folder, names)
        counts = Counter(str(weights.dtype(name)).removeprefix("torch.") for name in names)
        files = {
            "weights": ", ".join(path.name for path in weights.files), "bytes": weights.num_bytes,
            "tensors": ", ".join(f"{count:,} {dtype}" for dtype, count in counts.most_common()),
        }  # fmt: skip
    sentences = sentence_settings(place.folder) if family else None
    tokens = Tokenizer.load(place.folder).vocab_size if has_tokenizer(place.folder) else None
    came_from = {"id": place.id, "revision": place.revision, "folder": str(place.folder)}
    return {
        "model": {
            "family": family.name if family else "regard", "weights": config.num_parameters(),
            **{k: v for k, v in config.to_dict().items() if v not in (None, [])},
        },
        "tokenizer": {"tokens": tokens} if tokens else {"tokens": "none"},
        "sentences": {name: "none" if value is None else value for name, value in (sentences or {}).items()},
        "files": files,
        "source": {k: v for k, v in came_from.items() if v is not None},
    }  # fmt: skip


def _describe_run(folder: Path) -> dict[str, dict[str, Any]]:
    record = read_run(folder)
    config, tokenizer = read_config(folder), Tokenizer.load(folder)
    result, sizes = record.get("result", {}), record.get("sizes", {})
    counted = {part: f": {size_line(sizes[part])}" if part in sizes else "" for part in ("train", "valid")}
    return {
        "model": {
            "task": record["task"], "weights": config.num_parameters(),
            **{k: v for k, v in config.to_dict().items() if v not in (None, [])},
        },
        "tokenizer": {"tokens": tokenizer.vocab_size, "kind": record.get("tokenizer"),
                      "lowercase": record.get("lowercase", False)},
        "data": {
            "training": " ".join(record["data"]) + counted["train"],
            "validation": (" ".join(record["valid"]) or "the last tenth of it") + counted["valid"],
            **record.get("skipped", {}),
        },
        "training": {
            **{k: v for k, v in record["training"].items() if v is not None},
            **({"precision": record["precision"]} if "precision" in record else {}),
        },
        "result": {
            **{k: result[k] for k in ("reason", "steps", "best_step", "seconds", "tokens") if k in result},
            **result.get("metrics", {}),
            **{k: v for k, v in result.get("details", {}).items() if isinstance(v, str)},
        },
    }  # fmt: skip


def finite(value: Any) -> Any:
    """Put None, which JSON has, for numbers that it hasn't."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
