"""The public face: a model with its tokenizer, loaded in one line, and the verbs it can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.runs import load_parts, train
from regard.tasks.base import Parts
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
        tokenizer: turns text into ids and back.
        config: what the network is.

    Example:
        >>> model = regard.load("runs/translate-1")  # doctest: +SKIP
        >>> print(model.translate("A dog runs."))  # doctest: +SKIP
    """

    def __init__(
        self, module: Encoder | Decoder | EncoderDecoder, tokenizer: Tokenizer, config: ModelConfig
    ) -> None:
        self.module, self.tokenizer, self.config = module, tokenizer, config

    def __repr__(self) -> str:
        weights = f"{self.config.num_parameters():,} weights"
        return f"Model({self.config.kind}, {weights}, {self.tokenizer.vocab_size} tokens)"

    @property
    def parts(self) -> Parts:
        """Give what the functions of `regard.tasks` work with."""
        return Parts(self.module, self.tokenizer, self.config)

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
        tensor = tensor.to(self.parts.device, torch.long)
        if int(tensor.min()) < 0 or int(tensor.max()) >= self.config.vocab_size:
            raise ConfigError(f"an id is outside the vocabulary of 0 to {self.config.vocab_size - 1}.")
        return tensor


def load(path: str | Path, *, device: str = "cpu") -> Model:
    """Load a model directory, as `regard train` leaves it.

    Args:
        path: the folder.
        device: cpu, cuda, cuda:1 or mps.

    Raises:
        CheckpointError: something is missing, broken or doesn't fit.
    """
    parts = load_parts(path, device=device)
    return Model(parts.module, parts.tokenizer, parts.config)  # type: ignore[arg-type]
