"""Load a model's weights from a folder, ours or a published family's, and write them as the family does.

config.json ──> family's table ──> ModelConfig ──> an empty module
weights, one tensor at a time, memory-mapped ──> row by row ──> the module's parameters
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.checkpoints.configs import read_config, write_config
from regard.checkpoints.families import FAMILIES
from regard.checkpoints.files import read_json, save_tensors, write_json_atomic
from regard.checkpoints.misspelt import near_name
from regard.checkpoints.placing import NoDraws, assign, check_when_used, laid_out
from regard.checkpoints.sentences import save_sentence_settings, sentence_settings
from regard.checkpoints.shards import Weights
from regard.checkpoints.tables import Bound, Family, Head, Settings, bind
from regard.checkpoints.transforms import SAME
from regard.config import ModelConfig
from regard.config_recurrent import config_from
from regard.errors import CheckpointError, ConfigError, suggest
from regard.models.transformer import Decoder, Encoder, EncoderDecoder, build

__all__ = ["Loaded", "family_config", "load_model", "model_config", "save_model", "save_weights"]

Network = Encoder | Decoder | EncoderDecoder
OURS = "regard"


@dataclass(frozen=True)
class Loaded:
    """Hold what was loaded.

    Attributes:
        module: the network, in evaluation mode.
        config: what it is.
        family: the published family whose files it came in; None: ours.
        unused: tensors of the files that have no place in this model, such as those of another head.
        sentences: of a sentence encoder, see `sentence_settings`; `module.pool` gives its vectors, not normalised.
    """

    module: Network
    config: ModelConfig
    family: str | None
    unused: tuple[str, ...]
    sentences: dict[str, Any] | None = None


def model_config(folder: Path, tensors: Iterable[str] = ()) -> tuple[Family | None, ModelConfig]:
    """Read a folder's config.json; the family is None for a model of ours.

    A sentence encoder is the bare model, whatever class it names, and pools as its folder says; what BERT would do
    with the vector after that (its pooler) isn't done.

    Raises:
        CheckpointError: there is none, it isn't JSON, is of no family known here, or asks for what isn't built.
    """
    path = folder / "config.json"
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold an object with the model's settings.")
    kind = content.pop("model_type", None)
    if not isinstance(kind, str) or (kind != OURS and kind not in FAMILIES):
        near = near_name(str(kind), FAMILIES, every=4)
        hint = f"did you mean {near!r}?" if near else f"Known are {', '.join(FAMILIES)} and {OURS}."
        what = "no model_type" if kind is None else f"model_type {kind!r}, which isn't built here"
        raise CheckpointError(f"{path} has {what}. {hint}")
    try:
        if kind == OURS:
            return None, config_from(content)
        family, sentences = FAMILIES[kind], sentence_settings(folder)
        if sentences is None:
            return family, read_config(family, content, set(tensors))
        config = read_config(family, {**content, "architectures": [next(iter(family.heads))]}, set(tensors))
        if config.kind == "encoder-decoder":
            raise ConfigError("sentence vectors of an encoder-decoder aren't built here.")
        return family, config.replace(pooling=sentences["pooling"], pooler=False)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {str(error).removeprefix('config.json: ')}") from error


def load_model(
    folder: Path, weights: Path | None = None, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Loaded:  # fmt: skip
    """Build the model of a folder around the weights that stand in it.

    No memory is taken for fresh weights; a tensor that needs no change is used where it is mapped, and of the others
    one at a time is in memory twice.

    Args:
        folder: with config.json.
        weights: another file or folder for the weights.
        device: where the model shall be.
        dtype: of its weights; None: fp32.
        warn: takes sentences: about weights that should be tied and differ, and, when the model is first used, about
            NaN or infinite ones. Looking at every number of a file that is only mapped is what takes time.

    Raises:
        CheckpointError: weights are missing, unexpected or misshaped (one error lists all), the files are damaged, or
            the model isn't built here.
    """
    with Weights(weights or folder, warn=warn) as stored:
        names = stored.names()
        family, config = model_config(folder, names)
        with torch.device("meta"), NoDraws():
            module = build(config)
        own, wanted = module.state_dict(keep_vars=True), dtype or torch.float32
        rows, unused = _bound(family, config, own, names)
        _check(family, rows, stored, own, folder)
        sources: dict[int, str] = {}
        tied = stored.tied()
        placed: dict[int, Tensor] = {}  # by the parameter's identity, which tied names share
        for row in rows:
            if any(name not in stored for name in row.theirs):
                continue  # tied to one that is there, or `_check` had refused
            if all(name in tied for name in row.theirs) and all(id(own[name]) in placed for name in row.ours):
                continue
            theirs = [stored.tensor(name) for name in row.theirs]
            ours = row.transform.to_ours(theirs)
            again = [name for name in row.ours if id(own[name]) in placed]
            if again:
                if not all(
                    torch.equal(placed[id(own[n])].cpu(), t.to(wanted))
                    for n, t in zip(row.ours, ours, strict=True)
                ):
                    warn(f"{folder}: {', '.join(row.theirs)} should be tied to other weights and differs from them; "
                         "those are used.")  # fmt: skip
                continue
            for name, tensor in zip(row.ours, ours, strict=True):
                placed[id(own[name])] = laid_out(tensor, device, wanted)
                sources[id(own[name])] = " and ".join(row.theirs)
    assign(module, placed)
    check_when_used(module, {sources[key]: tensor for key, tensor in placed.items()}, folder, warn)
    sentences = sentence_settings(folder) if family else None
    return Loaded(module.to(device).eval(), config, family.name if family else None, tuple(unused), sentences)


def read_tensors(
    folder: Path, weights: Path | None, config: ModelConfig, family: str | None, *,
    warn: Callable[[str], None] = warnings.warn,
) -> dict[str, Tensor]:  # fmt: skip
    """Read what of a folder's weights has a place in another model of the same family, such as one with another head.

    Returns:
        The tensors by our names, tied ones under each of theirs, as copies in fp32 that can be trained. What isn't
        there, or has another shape, is left out.
    """
    with Weights(weights or folder, warn=warn) as stored:
        with torch.device("meta"), NoDraws():
            own = build(config).state_dict(keep_vars=True)
        found: dict[int, Tensor] = {}
        for row in _bound(FAMILIES[family] if family else None, config, own, stored.names())[0]:
            if any(name not in stored for name in row.theirs):
                continue
            if _shapes(row, stored) != [tuple(own[name].shape) for name in row.ours]:
                continue
            ours = row.transform.to_ours([stored.tensor(name) for name in row.theirs])
            for name, tensor in zip(row.ours, ours, strict=True):
                if id(own[name]) not in found:
                    # Mapped weights can't be written, and views aren't contiguous.
                    found[id(own[name])] = torch.empty(tensor.shape).copy_(tensor)
        return {name: found[id(parameter)] for name, parameter in own.items() if id(parameter) in found}


def save_model(
    folder: Path, weights: Mapping[str, Tensor], config: ModelConfig, *, family: str | None = None,
    sentences: Mapping[str, Any] | None = None,
) -> str | None:  # fmt: skip
    """Write config.json and model.safetensors as the published family does whose model this is, else as ours.

    Args:
        folder: where; other files there stay.
        weights: the network's, by our names (its state_dict).
        config: what it is.
        family: the family to write; None: the first that has this model.
        sentences: of a sentence encoder, as in Loaded; its files are written too.

    Returns:
        The family's name; None for ours.

    Raises:
        ConfigError: the family that was asked for has no such model.
        CheckpointError: the disk is full or can't be written.
    """
    # A family's config.json doesn't know how sentences are pooled; their own files say so.
    name, settings = family_config(config if sentences is None else config.replace(pooling="first"), family)
    settings = settings if name else {"model_type": OURS, **config.to_dict()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be made ({error.strerror or error}).") from error
    save_weights(folder, weights, config, name)
    write_json_atomic(folder / "config.json", settings)
    if sentences is not None:
        save_sentence_settings(folder, {**sentences, "pooling": config.pooling}, config.width)
    return name


def save_weights(
    folder: Path, weights: Mapping[str, Tensor], config: ModelConfig, family: str | None
) -> None:
    """Write model.safetensors alone, under a family's names or, for None, ours.

    Raises:
        CheckpointError: the disk is full or can't be written.
    """
    if family is not None:
        weights = their_tensors(FAMILIES[family], config, weights)
    save_tensors(folder / "model.safetensors", weights)


def family_config(config: ModelConfig, family: str | None = None) -> tuple[str | None, Settings]:
    """Find the published family that has exactly this model, and its config.json; (None, ours) where none has.

    Raises:
        ConfigError: the family that was asked for has no such model.
    """
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"{family!r} is no family known here. {suggest(family, FAMILIES)}".strip())
    if family is not None and config.head_transitions:
        raise ConfigError(f"{family} has no scores of which tag follows which; write ours, or train without them "
                          "(head_transitions=False).")  # fmt: skip
    for name in FAMILIES if family is None else [family]:
        if (settings := write_config(FAMILIES[name], config)) is not None:
            return name, settings
    if family is not None:
        raise ConfigError(f"{family} has no model with these settings.")
    return None, {"model_type": OURS, **config.to_dict()}


def their_tensors(family: Family, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a model's weights under the family's names; tied ones once."""
    place = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in weights.items()}
    theirs: dict[str, Tensor] = {}
    written: set[Any] = set()
    for row in _table(family, config, weights, prefix=_prefix(family, config)):
        if any(place[name] in written for name in row.ours):
            continue
        written |= {place[name] for name in row.ours}
        found = row.transform.to_theirs([weights[name].detach() for name in row.ours])
        theirs |= {name: tensor.contiguous() for name, tensor in zip(row.theirs, found, strict=True)}
    missing = [name for name in weights if place[name] not in written]
    assert not missing, f"the table of {family.name} has no row for {missing}"
    return theirs


def table_of(family: Family | None, config: ModelConfig, names: Iterable[str]) -> list[Bound]:
    """Write a family's table out for a model whose weights have these names; ours has the same names on both sides."""
    if family is None:
        return [Bound((name,), (name,), SAME) for name in names]
    return _table(family, config, names, prefix=_prefix(family, config))


def _head(family: Family, config: ModelConfig) -> Head:
    """Find the family's class that a model is."""
    return next(head for head in family.heads.values() if _fits(head.fields, config))


def _table(family: Family, config: ModelConfig, names: Iterable[str], *, prefix: str) -> list[Bound]:
    """Write a family's table out for a model of these names; `prefix` stands before the bare model's."""
    names = list(names)
    layers = {
        "stack.": config.num_layers, "encoder.": config.num_layers, "decoder.": config.num_decoder_layers or 0,
    }  # fmt: skip
    rows = [row for row in family.rows if _fits(row.when, config)]
    return bind(rows, names, layers, prefix) + bind(_head(family, config).rows, names, layers)


def _prefix(family: Family, config: ModelConfig) -> str:
    """Give what stands before the bare model's names in the class that a model is."""
    head = _head(family, config)
    return "" if config.head == "none" else family.prefix if head.prefix is None else head.prefix


def _fits(fields: Mapping[str, Any], config: ModelConfig) -> bool:
    return all(getattr(config, name) == value for name, value in fields.items())


def _bound(
    family: Family | None, config: ModelConfig, own: Mapping[str, Tensor], names: Iterable[str]
) -> tuple[list[Bound], list[str]]:
    """Give the rows for the names in a file, in the file's own words, and the names without a place.

    A class with a head may have been saved with the bare model's prefix or without it, and older files have other
    names for some tensors.
    """
    names = list(names)
    if family is None:
        return [Bound((n,), (n,), SAME) for n in names if n in own], []
    said = {family.current_name(name): name for name in names}
    known = dict.fromkeys((_prefix(family, config), family.prefix, ""))
    prefix = next((p for p in known if p and any(name.startswith(p) for name in said)), "")
    rows = _table(family, config, own, prefix=prefix)
    rows = [Bound(tuple(said.get(n, n) for n in row.theirs), row.ours, row.transform) for row in rows]
    used = {name for row in rows for name in row.theirs}
    return rows, [name for name in names if name not in used]


def _check(
    family: Family | None, rows: list[Bound], stored: Weights, own: Mapping[str, Tensor], folder: Path
) -> None:
    """Raise one error that lists everything that doesn't fit, before any weight is read."""
    tied: dict[int, list[str]] = {}
    for name, parameter in own.items():
        tied.setdefault(id(parameter), []).append(name)
    used = {name for row in rows for name in row.theirs}
    covered: set[int] = set()
    missing: list[str] = []
    misshaped: list[str] = []
    for row in rows:
        absent = [name for name in row.theirs if name not in stored]
        if absent:
            continue
        covered |= {id(own[name]) for name in row.ours}
        if _shapes(row, stored) != [tuple(own[name].shape) for name in row.ours]:
            wanted = row.transform.to_theirs([own[name] for name in row.ours])
            misshaped += [
                f"{name} {stored.shape(name)} where the model has {tuple(tensor.shape)}"
                for name, tensor in zip(row.theirs, wanted, strict=True)
                if stored.shape(name) != tuple(tensor.shape)
            ]
    theirs = {name: row for row in rows for name in row.ours}
    for group, names in tied.items():
        if group in covered:
            continue
        known = [theirs[name] for name in names if name in theirs]
        missing += [n for n in known[0].theirs if n not in stored] if known else names
    unexpected = [
        f"{name} ({hint})" if (hint := suggest(name, missing)) else name
        for name in stored.names()
        if name not in used and not (family and family.is_unused(family.current_name(name)))
    ]
    problems = {
        "missing": list(dict.fromkeys(missing)), "unexpected": unexpected, "of another shape": misshaped,
    }  # fmt: skip
    if any(problems.values()):
        text = "; ".join(f"{what}: {', '.join(found)}" for what, found in problems.items() if found)
        raise CheckpointError(f"{folder}: these weights don't fit the model. {text}.")


def _shapes(row: Bound, stored: Weights) -> list[tuple[int, ...]]:
    """Give the shapes that a row's tensors would have here, without reading them; none where they can't be turned."""
    try:
        empty = [torch.empty(1).expand(stored.shape(name)) for name in row.theirs]
        return [tuple(tensor.shape) for tensor in row.transform.to_ours(empty)]
    except RuntimeError:
        return []
