"""How a folder makes one vector of a text: the layout of sentence encoders, read and written.

    modules.json                  what is done one after another: the network, the pooling, perhaps normalising
    1_Pooling/config.json         how the tokens' states become one vector
    sentence_bert_config.json     the longest text, in tokens

The modules are named by classes of another library. They are only compared with the names known here, never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from regard.checkpoints.files import read_json, write_json_atomic
from regard.errors import CheckpointError

__all__ = ["save_sentence_settings", "sentence_settings"]

_MODULES, _LENGTH = "modules.json", "sentence_bert_config.json"
_LIBRARY = "sentence_transformers.models"
# The key that switches each pooling on, its short name in newer files, and ours; None: not built.
_POOLINGS = (
    ("pooling_mode_cls_token", "cls", "first"),
    ("pooling_mode_mean_tokens", "mean", "mean"),
    ("pooling_mode_lasttoken", "lasttoken", "last"),
    ("pooling_mode_max_tokens", "max", None),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", None),
    ("pooling_mode_weightedmean_tokens", "weightedmean", None),
)


def sentence_settings(folder: Path) -> dict[str, Any] | None:
    """Read how a sentence encoder's folder pools; None for a folder without modules.json.

    Returns:
        `pooling`, "mean", "first" or "last" (as in ModelConfig); `normalise`, whether the vector is then divided by
        its length; `max_length`, in tokens, or None.

    Raises:
        CheckpointError: a file is missing or can't be read, or asks for what isn't built here, such as the maximum or
            a dense layer after the pooling.
    """
    path = folder / _MODULES
    if not path.is_file():
        return None
    modules = read_json(path)
    steps = [_step(path, module) for module in modules] if isinstance(modules, list) else []
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(
            f"{path} has the steps {', '.join(kinds) or 'none'}; built here are Transformer, Pooling and Normalize. "
            "To load the network alone, take that file away."
        )
    network, pooling = folder / steps[0][1], folder / steps[1][1] / "config.json"
    if network != folder:
        raise CheckpointError(f"{path} has its network in {network}; move its files beside {_MODULES}.")
    return {"pooling": _pooling(pooling), "normalise": "Normalize" in kinds, "max_length": _length(folder)}


def save_sentence_settings(folder: Path, settings: Mapping[str, Any], width: int) -> None:
    """Write what `sentence_settings` reads.

    Args:
        folder: where the network's config.json stands.
        settings: as `sentence_settings` gives them.
        width: of the vectors.

    Raises:
        CheckpointError: the disk is full or can't be written.
    """
    steps = ["Transformer", "Pooling", *(["Normalize"] if settings["normalise"] else [])]
    paths = ["", *(f"{i}_{step}" for i, step in enumerate(steps) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_LIBRARY}.{step}"}
        for i, (step, path) in enumerate(zip(steps, paths, strict=True))
    ]
    switches = {key: ours == settings["pooling"] for key, _, ours in _POOLINGS}
    try:
        for path in paths[1:]:
            (folder / path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written ({error.strerror or error}).") from error
    write_json_atomic(folder / paths[1] / "config.json", {"word_embedding_dimension": width, **switches})
    write_json_atomic(folder / _LENGTH, {"max_seq_length": settings["max_length"], "do_lower_case": False})
    write_json_atomic(folder / _MODULES, modules)


def _step(path: Path, module: Any) -> tuple[str, str]:
    """Give a module's kind, the last word of its class, and its folder, which must not leave the model's."""
    kind, place = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(place, str):
        raise CheckpointError(f"{path} must list modules, each with a type and a path.")
    windows = PureWindowsPath(place)
    if windows.anchor or PurePosixPath(place).is_absolute() or ".." in windows.parts:
        raise CheckpointError(f"{path} names the folder {place!r}; it must be below that of {_MODULES}.")
    return kind.rsplit(".", 1)[-1], place


def _pooling(path: Path) -> str:
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold an object with the pooling's settings.")
    short = content.get("pooling_mode")
    named = short if isinstance(short, list) else [] if short is None else [short]
    chosen = {ours for key, name, ours in _POOLINGS if content.get(key) is True or name in named}
    asked = [key for key in content if key.startswith("pooling_mode_") and content[key]] + named
    if len(asked) != 1 or len(chosen) != 1 or None in chosen:
        raise CheckpointError(
            f"{path} asks for {', '.join(map(str, asked)) or 'no pooling'}; built here is one of mean_tokens, "
            "cls_token and lasttoken."
        )
    if content.get("include_prompt", True) is not True:
        raise CheckpointError(
            f"{path} leaves the prompt out of the pooling (include_prompt), which isn't built here."
        )
    return next(ours for ours in chosen if ours is not None)


def _length(folder: Path) -> int | None:
    path = folder / _LENGTH
    if not path.is_file():
        return None
    content = read_json(path)
    length = content.get("max_seq_length") if isinstance(content, dict) else None
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(f"{path}: max_seq_length={length!r} must be a whole number of tokens.")
    return length
