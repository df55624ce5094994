"""The models that the page offers: the runs that are there and those that were named, loaded when they are used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regard.checkpoints.files import read_json
from regard.checkpoints.hub import locate
from regard.checkpoints.load import model_config
from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import RegardError
from regard.look.places import attention_depths
from regard.model import Model, load
from regard.serve.house import Missing
from regard.tasks.verbs import verbs_of

__all__ = ["ModelInfo", "Models"]

_WRITERS = {
    "translate": ("translate", "summarize"),
    "generate": ("generate",),
    "chat": ("chat", "generate"),
    "denoise": (),
}


@dataclass(frozen=True)
class ModelInfo:
    """Describe a model without its weights.

    Attributes:
        name: by which it is asked for.
        title: what people read.
        kind: encoder, decoder or encoder-decoder.
        verbs: what it can do, and was trained for where that is known.
        task: of a run; None for a published model.
        family: the published family; None for a model of ours.
        weights: how many numbers it has.
        context: tokens that it can read.
        layers: names of its attentions, as looks have them.
        heads: of each layer.
        labels: of a classifier or tagger.
        is_run: whether it is a folder below the runs.
        chat: whether it has a chat template.
        when: of its weights, in seconds since 1970.
    """

    name: str
    title: str
    kind: str
    verbs: tuple[str, ...]
    task: str | None
    family: str | None
    weights: int
    context: int
    layers: tuple[str, ...]
    heads: int
    labels: tuple[str, ...]
    is_run: bool
    chat: bool
    when: float

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return asdict(self)


class Models:
    """Find models by name, describe them, and keep some in memory.

    Args:
        runs: the folder of runs.
        given: names of further models: folders, files or ids of the hub.
        device: where they compute.
        most: bytes of weights in memory; the ones used least recently go first.
    """

    def __init__(
        self, runs: Path, given: Sequence[str] = (), *, device: str = "cpu", most: int = 4 * 2**30
    ) -> None:
        self.runs, self.given, self.device, self.most = runs, tuple(dict.fromkeys(given)), device, most
        self._infos: dict[tuple[str, float], ModelInfo | None] = {}
        self._loaded: OrderedDict[tuple[str, float], Model] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def names(self) -> list[ModelInfo]:
        """List what is there: those that were named first, then runs from the newest."""
        named = [self._described(name, self._place(name), is_run=False) for name in self.given]
        runs = [self._described(name, folder, is_run=True) for name, folder in self._folders().items()]
        newest = sorted((one for one in runs if one), key=lambda one: -one.when)
        return [*(one for one in named if one), *newest]

    def info(self, name: str) -> ModelInfo:
        """Describe one model.

        Raises:
            Missing: there is none of this name.
        """
        found = self._described(name, self.folder(name), is_run=name not in self.given)
        if found is None:
            raise Missing(f"there is no model {name!r}.")
        return found

    def folder(self, name: str) -> Path:
        """Give where a model lies. A name is one of the list, never a path to follow.

        Raises:
            Missing: there is none of this name.
        """
        place = self._place(name) if name in self.given else self._folders().get(name)
        if place is None:
            raise Missing(f"there is no model {name!r}.")
        return place

    def open(self, name: str) -> Model:
        """Load a model, or give it from memory. A run that was trained on since is loaded again.

        Raises:
            Missing: there is none of this name.
            CheckpointError: it is damaged.
        """
        place = self.folder(name)
        key = (name, _newest(place))
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # who asks for another model doesn't wait for this one
            with self._lock:
                if key in self._loaded:
                    return self._loaded[key]
                for old in [old for old in self._loaded if old[0] == name]:
                    del self._loaded[old]
            model = load(place, device=self.device)
            with self._lock:
                self._loaded[key] = model
                while len(self._loaded) > 1 and sum(map(_bytes, self._loaded.values())) > self.most:
                    self._loaded.popitem(last=False)
            return model

    def _folders(self) -> dict[str, Path]:
        """Find the folders below the runs that hold a model, at most one folder deep, by their names."""
        found: dict[str, Path] = {}
        try:
            children = sorted(self.runs.iterdir())
        except OSError:
            return found
        for child in children:
            if child.name.startswith(".") or child.is_symlink() or not child.is_dir():
                continue
            if (child / "config.json").is_file():
                found[child.name] = child
                continue
            for inner in sorted(child.glob("*/config.json")):
                if not inner.parent.name.startswith(".") and not inner.parent.is_symlink():
                    found[f"{child.name}/{inner.parent.name}"] = inner.parent
        return found

    def _place(self, name: str) -> Path | None:
        try:
            place = locate(name)
        except RegardError:
            return None
        return place.folder if place.file is None else place.file

    def _described(self, name: str, place: Path | None, *, is_run: bool) -> ModelInfo | None:
        if place is None:
            return None
        key = (name, _newest(place))
        if key not in self._infos:
            for old in [old for old in self._infos if old[0] == name]:  # it has been trained on since
                del self._infos[old]
            try:
                self._infos[key] = _describe(name, place, is_run=is_run, when=key[1])
            except (RegardError, OSError, ValueError, KeyError, TypeError):
                self._infos[key] = None  # whatever is wrong with it, it isn't offered
        return self._infos[key]


def _describe(name: str, place: Path, *, is_run: bool, when: float) -> ModelInfo | None:
    folder = place if place.is_dir() else place.parent
    if when == 0.0:  # no weights yet
        return None
    family, config = model_config(folder)
    record = read_json(folder / "regard.json") if (folder / "regard.json").is_file() else {}
    task = record.get("task")
    verbs = list(verbs_of(config))
    chat = Tokenizer.load(folder).chat_template is not None
    if not chat and "chat" in verbs:
        verbs.remove("chat")
    if isinstance(task, str) and task in _WRITERS:
        verbs = [verb for verb in verbs if verb in (*_WRITERS[task], "embed", "score")]
    verbs += ["look"] if _layers(config) else []
    return ModelInfo(
        name, name, config.kind, tuple(verbs), task if isinstance(task, str) else None,
        None if family is None else family.name, config.num_parameters(), config.context, _layers(config),
        config.num_heads, tuple(config.labels), is_run, chat, when,
    )  # fmt: skip


def _layers(config: ModelConfig) -> tuple[str, ...]:
    if isinstance(config, RecurrentConfig):
        return tuple(f"{kind}.{k}" for kind, depth in attention_depths(config).items() for k in range(depth))
    if config.kind != "encoder-decoder":
        return tuple(f"{config.kind}.{k}" for k in range(config.num_layers))
    below, above = config.num_layers, config.num_decoder_layers or config.num_layers
    names = [f"encoder.{k}" for k in range(below)]
    return (*names, *(f"{part}.{k}" for k in range(above) for part in ("decoder", "cross")))


def _newest(place: Path) -> float:
    """Give when a model's weights were last written; 0 where there are none."""
    try:
        files = [place] if place.is_file() else [*place.glob("*.safetensors")]
        return max((file.stat().st_mtime for file in files), default=0.0)
    except OSError:
        return 0.0


def _bytes(model: Model) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.module.parameters())
