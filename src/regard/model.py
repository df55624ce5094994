"""The public face: a model with its tokenizer, loaded in one line, and the verbs it can do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.checkpoints.files import read_json, write_json_atomic
from regard.checkpoints.hub import Place
from regard.checkpoints.load import save_model
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.generate.published import Published, search_config
from regard.runs import train
from regard.tasks.base import Parts
from regard.tasks.folders import need_tokenizer, open_model
from regard.tasks.generate import Generation
from regard.tasks.generate import generate as generate_texts
from regard.tasks.translate import Translation
from regard.tasks.translate import translate as translate_texts

if TYPE_CHECKING:
    from regard.models.transformer import Decoder, Encoder, EncoderDecoder

__all__ = ["Model", "load", "train"]

_SHAPE = "ids must be rows of whole numbers, all of one length: [[5, 8, 13], [7, 2, 9]]."


class Model:
    """Hold a network, its tokenizer and its configuration together.

    Attributes:
        module: the torch module (Encoder, Decoder or EncoderDecoder), in evaluation mode.
        tokenizer: turns text into ids and back; None where the model came without one.
        config: what the network is.
        place: where it was loaded from.
        family: the published family it came from ("gpt2", "bert", ...); None for a model of ours.

    Example:
        >>> model = regard.load("runs/translate-1")  # doctest: +SKIP
        >>> print(model.translate("A dog runs."))  # doctest: +SKIP
    """

    def __init__(
        self,
        module: Encoder | Decoder | EncoderDecoder,
        tokenizer: Tokenizer | None,
        config: ModelConfig,
        *,
        place: Place | None = None,
        family: str | None = None,
    ) -> None:
        self.module, self.tokenizer, self.config = module, tokenizer, config
        self.place, self.family = place, family

    def __repr__(self) -> str:
        weights = f"{self.config.num_parameters():,} weights"
        tokens = "no tokenizer" if self.tokenizer is None else f"{self.tokenizer.vocab_size} tokens"
        family = f"{self.family}, " if self.family else ""
        return f"Model({family}{self.config.kind}, {weights}, {tokens})"

    @property
    def parts(self) -> Parts:
        """Give what the functions of `regard.tasks` work with.

        Raises:
            CheckpointError: there is no tokenizer.
        """
        where = "this model" if self.place is None else self.place.folder
        return Parts(self.module, need_tokenizer(self.tokenizer, where), self.config, self._published)

    @cached_property
    def _published(self) -> Published | None:
        """Read how a published model is meant to write; what is trained here has the verbs' defaults."""
        if self.place is None or self.family is None or (self.place.folder / "regard.json").is_file():
            return None
        return search_config(self.place.folder, self.config)

    def save(self, folder: str | Path, *, family: str | None = None) -> str | None:
        """Write a model directory: as the published family does that has this model, else as ours.

        Args:
            folder: where; files of the same names are replaced, each whole or not at all.
            family: the family to write; None: the one it came from, or the first that has this model.

        Returns:
            The family that was written; None for ours.

        Raises:
            ConfigError: the family that was asked for has no such model.
            CheckpointError: the disk is full or the folder can't be written.
        """
        folder = Path(folder)
        written = save_model(folder, self.module.state_dict(), self.config, family=family or self.family)
        if self.tokenizer is not None:
            self.tokenizer.save(folder)
        settings = self.place.folder / "generation_config.json" if self.place else None
        if settings is not None and settings.is_file() and settings.parent.resolve() != folder.resolve():
            write_json_atomic(folder / "generation_config.json", read_json(settings))
        return written

    @overload
    def translate(self, texts: str, **settings: Any) -> Translation: ...
    @overload
    def translate(self, texts: Sequence[str], **settings: Any) -> list[Translation]: ...
    def translate(self, texts: str | Sequence[str], **settings: Any) -> Translation | list[Translation]:
        """Translate one text or several; `settings` are those of `regard.tasks.translate.translate` (beams, ...).

        Raises:
            ConfigError: this model is no encoder-decoder.
            DataError: a text is longer than the context.
        """
        found = translate_texts(self.parts, [texts] if isinstance(texts, str) else texts, **settings)
        return found[0] if isinstance(texts, str) else found

    @overload
    def generate(self, prompts: str = "", **settings: Any) -> Generation: ...
    @overload
    def generate(self, prompts: Sequence[str], **settings: Any) -> list[Generation]: ...
    def generate(self, prompts: str | Sequence[str] = "", **settings: Any) -> Generation | list[Generation]:
        """Continue one prompt or several; `settings` are those of `regard.tasks.generate.generate` (temperature, ...).

        Raises:
            ConfigError: this model is no decoder.
            DataError: a prompt leaves no room in the context.
        """
        found = generate_texts(self.parts, [prompts] if isinstance(prompts, str) else prompts, **settings)
        return found[0] if isinstance(prompts, str) else found

    @torch.no_grad()
    def logits(
        self,
        ids: Int[Tensor, "B T"] | Sequence[Sequence[int]],
        target: Int[Tensor, "B T"] | Sequence[Sequence[int]] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Score what may follow each token (an encoder: what may stand there); `target` for an encoder-decoder.

        Raises:
            ConfigError: a target is missing or too much, rows differ in length, are longer than the context or are not
                as many as the target's, or an id is outside the vocabulary.
        """
        source = self._ids(ids)
        kind = self.config.kind
        if (kind == "encoder-decoder") != (target is not None):
            need = "needs ids of a source and of a target" if target is None else "takes no target"
            raise ConfigError(f"this model is {'a' if kind == 'decoder' else 'an'} {kind}: it {need}.")
        if target is None:
            return self.module(source)
        second = self._ids(target)
        if len(second) != len(source):
            raise ConfigError(f"{len(source)} sources and {len(second)} targets; give as many of each.")
        return self.module(source, second)

    def _ids(self, ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        try:
            tensor = torch.as_tensor(ids)
        except (ValueError, TypeError, RuntimeError):
            raise ConfigError(_SHAPE) from None
        if tensor.ndim != 2 or tensor.numel() == 0:
            raise ConfigError(
                f"ids have shape {tuple(tensor.shape)}; give (batch, tokens), for one text [[5, 8, 13]]."
            )
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise ConfigError(_SHAPE)
        tensor = tensor.to(next(self.module.parameters()).device, torch.long)
        if int(tensor.min()) < 0 or int(tensor.max()) >= self.config.vocab_size:
            raise ConfigError(f"an id is outside the vocabulary of 0 to {self.config.vocab_size - 1}.")
        return tensor


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    revision: str | None = None,
    offline: bool | None = None,
) -> Model:
    """Load a model: what `regard train` left, or a published checkpoint of a family that is built here.

    Args:
        path: a folder, a file of weights with its config.json beside it, or a hub id (owner/name).
        device: cpu, cuda, cuda:1, mps or auto.
        precision: of the weights in memory: fp32, bf16 or fp16.
        revision: of a hub id: a branch, a tag or a commit.
        offline: look for a hub id in the cache only; None: as HF_HUB_OFFLINE says.

    Raises:
        CheckpointError: something is missing, broken or doesn't fit, or isn't built here.
        ConfigError: the device isn't there, or a setting can't be.
    """
    opened = open_model(path, device=device, precision=precision, revision=revision, offline=offline)
    loaded = opened.loaded
    return Model(loaded.module, opened.tokenizer, loaded.config, place=opened.place, family=loaded.family)
