"""LoRA adapters as folders in the format of PEFT: read into a model's weights, and written beside them.

adapter_config.json ──> rank, factor of each layer
adapter_model.safetensors, by the family's names ──> family's table ──> what is added to our weights

A family that keeps query, key and value in one matrix has one adapter for all three: read, it is cut like the matrix;
written, ours stand side by side in one of the sum of their ranks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.checkpoints.families import FAMILIES
from regard.checkpoints.files import load_tensors, read_json, save_tensors, write_json_atomic
from regard.checkpoints.load import table_of
from regard.checkpoints.tables import Bound
from regard.config import ModelConfig
from regard.errors import CheckpointError, ConfigError
from regard.nn.lora import adapters

__all__ = ["merge_adapter", "merge_into", "save_adapter"]

_CONFIG, _WEIGHTS, _PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_TASKS = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS", "span": "QUESTION_ANS", "none": "FEATURE_EXTRACTION"}
_UNBUILT = {
    "use_dora": False, "bias": "none", "lora_bias": False, "use_qalora": False, "alora_invocation_tokens": None,
    "layer_replication": None, "trainable_token_indices": None, "target_parameters": None,
}  # fmt: skip
"""Settings under which an adapter is more than a product of two matrices, and the values under which it isn't."""


def merge_adapter(
    weights: Mapping[str, Tensor], config: ModelConfig, family: str | None, folder: str | Path
) -> dict[str, Tensor]:
    """Give a model's weights with an adapter of PEFT's added to them.

    Args:
        weights: the model's, by our names; not changed.
        config: what it is.
        family: the published family whose names the adapter has; None: ours.
        folder: with adapter_config.json and adapter_model.safetensors.

    Raises:
        CheckpointError: something is missing or damaged, is no LoRA adapter, is one of a kind that isn't built here, or
            belongs to another model.
    """
    folder = Path(folder)
    settings = _read_settings(folder)
    stored = load_tensors(folder / _WEIGHTS)
    rows = {row.theirs: row for row in _rows(config, family, weights)}
    layers = {_layer(theirs[0]): row for theirs, row in rows.items() if theirs[0].endswith(".weight")}
    changed = dict(weights)
    known: set[str] = set()
    for name in stored:
        stem = name.removeprefix(_PREFIX)
        if stem.endswith(".lora_A.weight"):
            layer, other = stem.removesuffix(".lora_A.weight"), name.replace(".lora_A.", ".lora_B.")
            row = _find(layer, layers)
            if row is None or other not in stored:
                continue
            known |= {name, other}
            _add(
                changed,
                row,
                stored[name],
                stored[other],
                _scale(settings, layer, stored[name].shape[0]),
                layer,
            )
        elif (whole := _find(stem, {theirs[0]: row for theirs, row in rows.items()})) is not None:
            known.add(name)
            for ours, tensor in zip(whole.ours, whole.transform.to_ours([stored[name]]), strict=True):
                _check_shape(folder, name, tensor, weights[ours])
                changed[ours] = tensor.to(weights[ours].dtype)
    if unknown := [name for name in stored if name not in known]:
        raise CheckpointError(
            f"{folder} has {len(unknown)} tensors without a place in this model, first {unknown[0]}; "
            "is it an adapter of another one?"
        )
    return changed


def merge_into(module: nn.Module, config: ModelConfig, family: str | None, folder: str | Path) -> None:
    """Add an adapter of PEFT's to the weights of a network, in place; see `merge_adapter`.

    Raises:
        CheckpointError: as `merge_adapter`; the network is then as it was.
    """
    own = module.state_dict(keep_vars=True)
    weights = {name: parameter.detach() for name, parameter in own.items()}
    for name, tensor in merge_adapter(weights, config, family, folder).items():
        if tensor is not weights[name]:
            own[name].data = tensor  # mapped weights can't be written


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} is no adapter: it has no {_CONFIG}.")
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else None
        raise CheckpointError(f"{path}: only adapters of peft_type LORA can be read, not {kind!r}.")
    for name, plain in _UNBUILT.items():
        if settings.get(name, plain) not in (plain, None, False):
            raise CheckpointError(f"{path}: {name}={settings[name]!r} isn't built here.")
    for name in ("r", "lora_alpha"):
        if not isinstance(settings.get(name), (int, float)) or isinstance(settings[name], bool):
            raise CheckpointError(f"{path}: {name} must be a number, not {settings.get(name)!r}.")
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(settings.get(name) or {}, dict):
            raise CheckpointError(f"{path}: {name} must map names to numbers.")
    return settings


def _scale(settings: Mapping[str, Any], layer: str, rank: int) -> float:
    """Give alpha / r of a layer, which may have an alpha of its own; with use_rslora it is alpha / sqrt(r)."""
    alpha = float(settings["lora_alpha"])
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        # PEFT takes these for expressions; names alone, and what anchors them, are taken here.
        name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if layer == name or layer.endswith(f".{name}"):
            alpha = float(value)
            break
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _add(weights: dict[str, Tensor], row: Bound, down: Tensor, up: Tensor, scale: float, layer: str) -> None:
    """Add scale · B A, in the family's layout cut and turned as its matrix is, to our weights."""
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise CheckpointError(f"the adapter of {layer} has shapes {tuple(down.shape)} and {tuple(up.shape)}.")
    product = scale * (up.float() @ down.float())  # (outputs, inputs)
    theirs = product.t() if row.transform.name.startswith("transposed") else product
    for ours, part in zip(row.ours, row.transform.to_ours([theirs]), strict=True):
        if part.shape != weights[ours].shape:
            raise CheckpointError(
                f"the adapter of {layer} is for a matrix {tuple(part.shape)} where the model has "
                f"{tuple(weights[ours].shape)}; is it an adapter of another model?"
            )
        weights[ours] = (weights[ours].float() + part.to(weights[ours].device)).to(weights[ours].dtype)


def _check_shape(folder: Path, name: str, tensor: Tensor, own: Tensor) -> None:
    if tensor.shape != own.shape:
        raise CheckpointError(
            f"{folder}: {name} has shape {tuple(tensor.shape)} where the model has {tuple(own.shape)}."
        )


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _find(name: str, rows: Mapping[str, Bound]) -> Bound | None:
    """Find a row by the name of its layer; the bare model's names may stand with the family's prefix or without."""
    name = re.sub(r"\.modules_to_save\.\w+(?=\.)|\.original_module(?=\.)", "", name)
    if name in rows:
        return rows[name]
    near = [row for known, row in rows.items() if known.endswith(f".{name}") or name.endswith(f".{known}")]
    return near[0] if len(near) == 1 else None


def save_adapter(
    folder: str | Path, weights: Mapping[str, Tensor], config: ModelConfig, family: str | None, *, alpha: float,
    base: str, new: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write a model's adapters as PEFT does, with the whole of what is new beside them.

    Args:
        folder: where.
        weights: the model's, adapters among them, by our names.
        config: what it is.
        family: the published family whose names are written; None: ours, which PEFT can't load.
        alpha: the factor of the adapters, times their rank.
        base: the model that they belong to, as `from_pretrained` finds it.
        new: names of weights that the base hasn't, such as a fresh head's.

    Raises:
        CheckpointError: the disk is full or can't be written.
        ConfigError: there are no adapters.
    """
    found = adapters(weights)
    if not found:
        raise ConfigError("these weights have no adapters to save.")
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    turned = False
    whole: list[str] = []
    for row in _rows(config, family, weights):
        parts = [found.get(_layer(name)) for name in row.ours]
        if row.ours[0].endswith(".weight") and any(parts):
            layer = _layer(row.theirs[0])
            sizes = [weights[name].shape[0] for name in row.ours]
            tensors |= _side_by_side(layer, parts, sizes)
            ranks[layer] = tensors[f"{_PREFIX}{layer}.lora_A.weight"].shape[0]
            turned = turned or row.transform.name.startswith("transposed")
        elif any(name in new for name in row.ours):
            theirs = row.transform.to_theirs([weights[name].detach() for name in row.ours])
            tensors |= {_PREFIX + name: t.contiguous() for name, t in zip(row.theirs, theirs, strict=True)}
            whole += [name.rpartition(".")[0] for name in row.theirs]
    rank = next(iter(found.values()))[0].shape[0]
    several = {layer: n for layer, n in ranks.items() if n != rank}
    factor = int(alpha) if float(alpha).is_integer() else alpha
    settings = {
        "peft_type": "LORA", "task_type": _task_type(config), "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": factor, "lora_dropout": 0.0, "bias": "none", "target_modules": list(ranks),
        "modules_to_save": list(dict.fromkeys(whole)) or None, "fan_in_fan_out": turned,
        "rank_pattern": several, "alpha_pattern": {layer: factor * (n // rank) for layer, n in several.items()},
        "init_lora_weights": True, "use_rslora": False, "use_dora": False,
    }  # fmt: skip
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be made ({error.strerror or error}).") from error
    save_tensors(folder / _WEIGHTS, tensors)
    write_json_atomic(folder / _CONFIG, settings)


def _side_by_side(
    layer: str, parts: Sequence[tuple[Tensor, Tensor] | None], sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Make one adapter of those of a fused matrix: A below A, and each B in the rows of its own outputs."""
    down = torch.cat([part[0].detach() for part in parts if part is not None])
    up = down.new_zeros(sum(sizes), down.shape[0])
    at = column = 0
    for part, size in zip(parts, sizes, strict=True):
        if part is not None:
            rank = part[0].shape[0]
            up[at : at + size, column : column + rank] = part[1].detach()
            column += rank
        at += size
    return {f"{_PREFIX}{layer}.lora_A.weight": down, f"{_PREFIX}{layer}.lora_B.weight": up}


def _task_type(config: ModelConfig) -> str:
    if config.head == "lm":
        return {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}.get(
            config.kind, "FEATURE_EXTRACTION"
        )
    return _TASKS[config.head]


def _rows(config: ModelConfig, family: str | None, weights: Mapping[str, Tensor]) -> list[Bound]:
    names = [name for name in weights if ".lora_" not in name]
    return table_of(FAMILIES[family] if family else None, config, names)
