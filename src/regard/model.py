"""The public face: a model with its tokenizer, loaded in one line, and the verbs it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.checkpoints.adapters import merge_into
from regard.checkpoints.files import read_json, write_json_atomic
from regard.checkpoints.hub import Place
from regard.checkpoints.load import save_model
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.generate.published import Published, generation_settings, search_config
from regard.look.reading import Look
from regard.nn.packed import BITS, pack, refuse_packed
from regard.runs import train
from regard.tasks.answer import Answer
from regard.tasks.answer import answer as answer_texts
from regard.tasks.base import Parts
from regard.tasks.chat import Reply
from regard.tasks.chat import chat as chat_messages
from regard.tasks.classify import Classification
from regard.tasks.classify import classify as classify_texts
from regard.tasks.embed import Embedding, Search
from regard.tasks.embed import embed as embed_texts
from regard.tasks.embed import search as search_texts
from regard.tasks.fill import Filling
from regard.tasks.fill import fill as fill_texts
from regard.tasks.folders import need_tokenizer, open_model
from regard.tasks.generate import Generation
from regard.tasks.generate import generate as generate_texts
from regard.tasks.looking import look as look_at
from regard.tasks.score import Score
from regard.tasks.score import score as score_texts
from regard.tasks.stretch import read_stretch
from regard.tasks.summarize import Summary
from regard.tasks.summarize import summarize as summarize_texts
from regard.tasks.tag import Tagging
from regard.tasks.tag import tag as tag_texts
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
        sentences: how a sentence encoder's folder makes one vector of a text; None for any other model.

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
        sentences: dict[str, Any] | None = None,
    ) -> None:
        self.module, self.tokenizer, self.config = module, tokenizer, config
        self.place, self.family, self.sentences = place, family, sentences

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
        return Parts(
            self.module, need_tokenizer(self.tokenizer, where), self.config, self._published, self.sentences,
            Parts.stretch if self.place is None else read_stretch(self.place.folder),
        )  # fmt: skip

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
            ConfigError: the family that was asked for has no such model; the weights are packed.
            CheckpointError: the disk is full or the folder can't be written.
        """
        refuse_packed(self.module)
        folder = Path(folder)
        written = save_model(
            folder,
            self.module.state_dict(),
            self.config,
            family=family or self.family,
            sentences=self.sentences,
        )
        if self.tokenizer is not None:
            self.tokenizer.save(folder, segments=self.config.num_segments > 1)
        if self.place is not None and self.place.folder.resolve() != folder.resolve():
            self._save_generation(folder, written)
        return written

    def _save_generation(self, folder: Path, written: str | None) -> None:
        """Write how the model writes, and what config.json says of its tasks, as they were read."""
        assert self.place is not None
        source = self.place.folder
        ours = self.family is None or (source / "regard.json").is_file()
        if (source / "generation_config.json").is_file() or (not ours and self.config.head == "lm"):
            write_json_atomic(folder / "generation_config.json", generation_settings(source))
        tasks = read_json(source / "config.json").get("task_specific_params")
        if written is not None and tasks:
            path = folder / "config.json"
            write_json_atomic(path, {**read_json(path), "task_specific_params": tasks})

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

    def chat(self, messages: str | Sequence[Mapping[str, Any]], **settings: Any) -> Reply:
        """Answer a conversation, or one message; `settings` are those of `regard.tasks.chat.chat` (max_tokens, ...).

        Raises:
            ConfigError: this model is no decoder, or has no chat template.
            DataError: the last message leaves no room for a reply.
        """
        return chat_messages(self.parts, messages, **settings)

    @overload
    def summarize(self, texts: str, **settings: Any) -> Summary: ...
    @overload
    def summarize(self, texts: Sequence[str], **settings: Any) -> list[Summary]: ...
    def summarize(self, texts: str | Sequence[str], **settings: Any) -> Summary | list[Summary]:
        """Summarise one text or several; `settings` are those of `regard.tasks.summarize.summarize` (windows, ...).

        Raises:
            ConfigError: this model is no encoder-decoder.
            DataError: a text is longer than the context.
        """
        found = summarize_texts(self.parts, [texts] if isinstance(texts, str) else texts, **settings)
        return found[0] if isinstance(texts, str) else found

    @overload
    def fill(self, texts: str, **settings: Any) -> Filling: ...
    @overload
    def fill(self, texts: Sequence[str], **settings: Any) -> list[Filling]: ...
    def fill(self, texts: str | Sequence[str], **settings: Any) -> Filling | list[Filling]:
        """Fill the masks of one text or several; `settings` are those of `regard.tasks.fill.fill` (top, ...).

        Raises:
            ConfigError: this model is no encoder with a head over its vocabulary.
            DataError: a text has no mask, or is longer than the context.
        """
        found = fill_texts(self.parts, [texts] if isinstance(texts, str) else texts, **settings)
        return found[0] if isinstance(texts, str) else found

    @overload
    def embed(self, texts: str, **settings: Any) -> Embedding: ...
    @overload
    def embed(self, texts: Sequence[str], **settings: Any) -> list[Embedding]: ...
    def embed(self, texts: str | Sequence[str], **settings: Any) -> Embedding | list[Embedding]:
        """Make a vector of one text or of each; `settings` are those of `regard.tasks.embed.embed` (pooling, ...).

        Raises:
            DataError: a text is longer than the context.
        """
        found = embed_texts(self.parts, [texts] if isinstance(texts, str) else texts, **settings)
        return found[0] if isinstance(texts, str) else found

    def search(self, query: str, texts: Iterable[str], **settings: Any) -> Search:
        """Find the texts that are nearest to a query; `settings` are those of `regard.tasks.embed.search` (top, ...).

        Raises:
            DataError: the query or a text is longer than the context.
        """
        return search_texts(self.parts, [query], texts, **settings)[0]

    @overload
    def answer(self, passages: str, *, question: str, **settings: Any) -> Answer: ...
    @overload
    def answer(
        self, passages: Sequence[str], *, question: str | Sequence[str], **settings: Any
    ) -> list[Answer]: ...
    def answer(self, passages: str | Sequence[str], **settings: Any) -> Answer | list[Answer]:
        """Answer a question from one passage or each; `settings` are those of `regard.tasks.answer.answer`.

        Raises:
            ConfigError: this model finds no answers.
            DataError: a passage is longer than the context.
        """
        found = answer_texts(self.parts, [passages] if isinstance(passages, str) else passages, **settings)
        return found[0] if isinstance(passages, str) else found

    @overload
    def score(self, texts: str, **settings: Any) -> Score: ...
    @overload
    def score(self, texts: Sequence[str], **settings: Any) -> list[Score]: ...
    def score(self, texts: str | Sequence[str], **settings: Any) -> Score | list[Score]:
        """Say how likely one text is or each; `settings` are those of `regard.tasks.score.score` (source, ...).

        Raises:
            ConfigError: this model has no head over its vocabulary.
            DataError: a text is longer than the context.
        """
        several = [texts] if isinstance(texts, str) else texts
        found = score_texts(self.parts, several, target_tokenizer=self.target_tokenizer, **settings)
        return found[0] if isinstance(texts, str) else found

    @cached_property
    def target_tokenizer(self) -> Tokenizer | None:
        """Give the tokenizer of targets, where it is another one than the sources' (Marian); else None."""
        if self.place is None or self.config.kind != "encoder-decoder":
            return None
        return Tokenizer.load_target(self.place.folder)

    @overload
    def classify(self, texts: str, *, pair: str | None = None, **settings: Any) -> Classification: ...
    @overload
    def classify(
        self, texts: Sequence[str], *, pair: Sequence[str] | None = None, **settings: Any
    ) -> list[Classification]: ...
    def classify(
        self, texts: str | Sequence[str], *, pair: str | Sequence[str] | None = None, **settings: Any
    ) -> Classification | list[Classification]:
        """Classify one text or several, each with its `pair`; `settings`: those of `regard.tasks.classify.classify`.

        Raises:
            ConfigError: this model has no head over labels.
            DataError: a text is longer than the context.
        """
        if isinstance(texts, str):
            second = None if pair is None else [pair] if isinstance(pair, str) else pair
            return classify_texts(self.parts, [texts], pair=second, **settings)[0]
        return classify_texts(self.parts, texts, pair=pair, **settings)

    @overload
    def tag(self, texts: str, **settings: Any) -> Tagging: ...
    @overload
    def tag(self, texts: Sequence[str], **settings: Any) -> list[Tagging]: ...
    def tag(self, texts: str | Sequence[str], **settings: Any) -> Tagging | list[Tagging]:
        """Find entities in one text or several; `settings` are those of `regard.tasks.tag.tag` (strategy, ...).

        Raises:
            ConfigError: this model has no head over tags.
            DataError: a text is longer than the context.
        """
        found = tag_texts(self.parts, [texts] if isinstance(texts, str) else texts, **settings)
        return found[0] if isinstance(texts, str) else found

    def look(self, text: str, target: str | None = None, **settings: Any) -> Look:
        """Keep what the model attends to while it reads a text; `settings`: those of `regard.tasks.looking.look`.

        An encoder-decoder writes the target, or translates to one. Memory is O(n·d), so the context is the limit.

        Raises:
            ConfigError: this model takes no target, or has no such layer.
            DataError: the text is empty or longer than the context.
        """
        name = "" if self.place is None else self.place.id or self.place.folder.name
        settings.setdefault("target_tokenizer", self.target_tokenizer)
        return look_at(self.parts, text, target, model=name, **settings)

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
    adapter: str | Path | None = None,
) -> Model:
    """Load a model: what `regard train` left, or a published checkpoint of a family that is built here.

    Args:
        path: a folder, a file of weights with its config.json beside it, or a hub id (owner/name).
        device: cpu, cuda, cuda:1, mps or auto.
        precision: of the weights in memory: fp32, bf16, fp16; int8 or int4 for those of the blocks and the head that
            scores tokens, and bf16 for the rest (see regard.nn.packed). Such a model can be used, not saved.
        revision: of a hub id: a branch, a tag or a commit.
        offline: look for a hub id in the cache only; None: as HF_HUB_OFFLINE says.
        adapter: a folder with a LoRA adapter in PEFT's format, which is merged into the weights.

    Raises:
        CheckpointError: something is missing, broken or doesn't fit, or isn't built here.
        ConfigError: the device isn't there, or a setting can't be.
    """
    opened = open_model(path, device=device, precision=precision, revision=revision, offline=offline)
    loaded = opened.loaded
    if adapter is not None:
        merge_into(loaded.module, loaded.config, loaded.family, adapter)
    if precision in BITS:
        pack(loaded.module, BITS[precision])
    return Model(
        loaded.module, opened.tokenizer, loaded.config, place=opened.place, family=loaded.family,
        sentences=loaded.sentences,
    )  # fmt: skip
