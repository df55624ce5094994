"""Encoder, Decoder and EncoderDecoder: one stack of one block, used three ways."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError
from regard.models.decoding import Decoding
from regard.models.embeddings import embed
from regard.models.pooling import Pooler, pool
from regard.models.program import encode_packed
from regard.nn.block import Block
from regard.nn.cache import Cache
from regard.nn.crf import Transitions
from regard.nn.layers import Dropout, activate, make_norm
from regard.nn.linear import Linear
from regard.nn.masks import Mask
from regard.nn.ngrams import NGramEmbedding
from regard.nn.positions import Terms, make_position
from regard.nn.taps import tap


class Stack(nn.Module):
    """Give embeddings their positions and pass them through the blocks."""

    def __init__(
        self, config: ModelConfig, *, name: str, num_layers: int, causal: bool, cross: bool = False
    ) -> None:
        super().__init__()
        self.name, self.causal = name, causal
        self.position = make_position(config, bidirectional=not causal)
        self.norm_in = make_norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = Dropout(config.dropout)
        everywhere = config.global_layers
        self.windows = [None if i in everywhere else config.window for i in range(num_layers)]
        self.window_position = (
            make_position(config, bidirectional=not causal, windowed=True)
            if config.rotary_window_base
            else None
        )
        self.blocks = nn.ModuleList(
            Block(config, name=f"{name}.{i}", cross=cross, cross_name=f"cross.{i}", first=i == 0)
            for i in range(num_layers)
        )
        self.norm_out = make_norm(config) if config.norm_placement != "post" else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Int[Tensor, "... T"],
        mask: Mask,
        *,
        key_positions: Int[Tensor, "... S"] | None = None,
        memory: Float[Tensor, "B S2 D"] | None = None,
        memory_mask: Mask | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Give the last layer's states; `key_positions` are those of cached and new keys together."""
        if not self.causal and cache is None and memory is None:
            found = encode_packed(self, x, positions, mask)
            if found is not None:
                return found
        x = tap(f"{self.name}.embedding", self.dropout(self.norm_in(self.position.add(x, positions))))
        key_positions = positions if key_positions is None else key_positions
        everywhere = within = self.terms(positions, key_positions)
        if self.window_position is not None:
            within = self.terms(positions, key_positions, windowed=True)
        mask = replace(mask, causal=self.causal)
        windowed: dict[int | None, tuple[Mask, Terms]] = {None: (mask, everywhere)}
        for i, (block, window) in enumerate(zip(self.blocks, self.windows, strict=True)):
            if window not in windowed:
                begin = 0 if cache is None else cache.own[i].begin
                windowed[window] = _from_slot(begin, replace(mask, window=window), within)
            own, terms = windowed[window]
            x = block(
                x, mask=own, terms=terms, memory=memory, memory_mask=memory_mask,
                cache=cache.own[i] if cache else None, cross_cache=cache.cross[i] if cache else None,
            )  # fmt: skip
        return self.norm_out(x)

    def terms(
        self, queries: Int[Tensor, "... T"], keys: Int[Tensor, "... S"], windowed: bool = False
    ) -> Terms:
        """Make what attention needs of positions, in layers with a window or in those without."""
        position = self.window_position if windowed and self.window_position is not None else self.position
        return position.terms(queries, keys)


class Head(nn.Module):
    """Score, from final states, every token of the vocabulary, every label, or an answer's start and end.

    Of tags, what it gives are the scores of single words; `transitions`, where there are any, add which follows which.
    """

    def __init__(self, config: ModelConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.kind, self.activation = config.head, config.activation
        self.softcap = config.logit_softcap if config.head == "lm" else None
        self.scale = config.output_scale
        self.transform = (
            Linear(config.width, config.width, bias=config.bias) if config.head_transform else None
        )
        self.transform_norm = make_norm(config) if config.head_transform else None
        self.transitions = Transitions(len(config.labels)) if config.head_transitions else None
        if config.head in ("classify", "tag", "span"):
            outputs = 2 if config.head == "span" else len(config.labels)
            self.output = Linear(config.width, outputs, bias=config.label_bias)
        elif config.head == "lm":
            self.output = Linear(config.width, config.vocab_size, bias=config.output_bias)
            if config.tie_embeddings:
                self.output.weight = embedding.weight

    def forward(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Give the scores (logits); with head "none" the states themselves."""
        if self.kind == "none":
            return hidden
        logits = self.output(self.before(hidden))
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def before(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Give what the output layer gets."""
        if self.transform is not None and self.transform_norm is not None:
            hidden = self.transform_norm(activate(self.transform(hidden), self.activation))
        return hidden if self.scale is None else hidden * self.scale


class SingleStack(nn.Module):
    """Be what Encoder and Decoder share: embeddings, one stack, a head."""

    causal = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.segment_embedding = (
            nn.Embedding(config.num_segments, config.width) if config.num_segments else None
        )
        self.ngram_embedding = NGramEmbedding(config) if config.ngrams > 1 else None
        name = "decoder" if self.causal else "encoder"
        self.stack = Stack(config, name=name, num_layers=config.num_layers, causal=self.causal)
        self.pooler = Pooler(config) if config.pooler else None
        self.head = Head(config, self.embedding)
        initialise(self, config)

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        *,
        key_mask: Bool[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        segments: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Give the final states.

        Args:
            ids: token ids.
            key_mask: True where a token is real; padding may stand on either side.
            positions: where each token stands; None counts the real tokens of each row from 0.
            documents: numbers of packed documents; no token sees another document.
            segments: BERT's sentence A or B; None means A.
        """
        positions = default_positions(ids, key_mask) if positions is None else positions
        check_length(self.config, ids.shape[1])
        x = embed(self.embedding, ids, self.config)
        if self.ngram_embedding is not None:
            x = x + self.ngram_embedding(ids, positions, documents)
        if self.segment_embedding is not None:
            x = x + self.segment_embedding(torch.zeros_like(ids) if segments is None else segments)
        mask = Mask(keys=key_mask, documents=None if documents is None else (documents, documents))
        return self.stack(x, positions, mask)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        key_mask: Bool[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        segments: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B ..."]:
        """Give what the head is for.

        Scores of tokens (B, T, V), of tags (B, T, L), of classes (B, L), of an answer's start and end (B, T, 2), or,
        without a head, the states (B, T, D).
        """
        hidden = self.hidden(
            ids, key_mask=key_mask, positions=positions, documents=documents, segments=segments
        )
        return self.head(self.pool(hidden, key_mask) if self.config.head == "classify" else hidden)

    def pool(
        self, hidden: Float[Tensor, "B T D"], key_mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B D"]:
        """Make one vector of a text, as the configuration says."""
        pooled = pool(hidden, key_mask, self.config.pooling)
        return pooled if self.pooler is None else self.pooler(pooled)


class Encoder(SingleStack):
    """See the whole text at once (BERT): fill masks, classify, tag, embed."""


class Decoder(SingleStack):
    """See only what came before (GPT, Llama): generate."""

    causal = True

    def start(
        self,
        *,
        batch: int,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        use_cache: bool = True,
    ) -> Decoding:
        """Begin to generate `batch` rows; see Decoding."""
        if source is not None or source_mask is not None:
            raise ConfigError("a decoder has no source; give the text as the prompt.")
        own = (self.config, self.embedding, self.stack, self.head)
        return Decoding(*own, batch=batch, use_cache=use_cache, ngrams=self.ngram_embedding)


class EncoderDecoder(nn.Module):
    """Read a source with an encoder, write a target with a decoder that looks at it (2017, T5, BART, Marian)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        assert config.num_decoder_layers is not None
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.target_embedding = (
            self.embedding if config.share_embeddings else nn.Embedding(config.vocab_size, config.width)
        )
        self.encoder = Stack(config, name="encoder", num_layers=config.num_layers, causal=False)
        self.decoder = Stack(
            config, name="decoder", num_layers=config.num_decoder_layers, causal=True, cross=True
        )
        self.pooler = Pooler(config) if config.pooler else None
        self.head = Head(config, self.target_embedding)
        initialise(self, config)

    def encode(
        self, source: Int[Tensor, "B S"], source_mask: Bool[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B S D"]:
        """Give the encoder's final states."""
        check_length(self.config, source.shape[1])
        x = embed(self.embedding, source, self.config)
        return self.encoder(x, default_positions(source, source_mask), Mask(keys=source_mask))

    def hidden(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        *,
        source_mask: Bool[Tensor, "B S"] | None = None,
        target_mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Give the decoder's final states for a target that is already known (teacher forcing)."""
        check_length(self.config, target.shape[1])
        memory = self.encode(source, source_mask)
        x = embed(self.target_embedding, target, self.config)
        return self.decoder(
            x, default_positions(target, target_mask), Mask(keys=target_mask),
            memory=memory, memory_mask=Mask(keys=source_mask),
        )  # fmt: skip

    def forward(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"] | None = None,
        *,
        source_mask: Bool[Tensor, "B S"] | None = None,
        target_mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B ..."]:
        """Give what the head is for.

        Scores of each next target token (B, T, V), of classes (B, L), of an answer's start and end in the source
        (B, S, 2), or, without a head, the states (B, T, D).

        To classify or to find an answer the decoder reads the source too, one token later, and takes no target; a
        class is chosen by its state at the last token (BART, arXiv:1910.13461, section 3.1).

        Raises:
            ConfigError: there is a target where none is taken, or none where one is needed.
        """
        classify = self.config.head == "classify"
        if (classify or self.config.head == "span") != (target is None):
            raise ConfigError(
                "an encoder-decoder that classifies or finds answers takes no target; any other needs one."
            )
        if target is None:
            target, target_mask = self.shifted(source, source_mask), source_mask
        hidden = self.hidden(source, target, source_mask=source_mask, target_mask=target_mask)
        if classify:
            hidden = pool(hidden, source_mask, self.config.pooling)
            hidden = hidden if self.pooler is None else self.pooler(hidden)
        return self.head(hidden)

    def shifted(
        self, source: Int[Tensor, "B S"], source_mask: Bool[Tensor, "B S"] | None = None
    ) -> Int[Tensor, "B S"]:
        """Give texts one token later, each after the decoder's start token; padding stays where it is."""
        later = source.roll(1, 1)
        first = torch.zeros_like(source[:, 0]) if source_mask is None else source_mask.int().argmax(1)
        later[torch.arange(len(source), device=source.device), first] = self.config.start or 0
        return later

    def start(
        self, *, source: Int[Tensor, "B S"], source_mask: Bool[Tensor, "B S"] | None = None, batch: int | None = None,
        use_cache: bool = True,
    ) -> Decoding:  # fmt: skip
        """Read the sources and begin to generate a target for each; see Decoding."""
        assert batch in (None, len(source))
        return Decoding(
            self.config, self.target_embedding, self.decoder, self.head, batch=len(source), use_cache=use_cache,
            memory=self.encode(source, source_mask), memory_mask=source_mask,
        )  # fmt: skip


def _from_slot(begin: int, mask: Mask, terms: Terms) -> tuple[Mask, Terms]:
    """Leave out the first `begin` keys, which a layer with a window no longer keeps."""
    if begin == 0:
        return mask, terms
    assert mask.offset is not None
    keys = None if mask.keys is None else mask.keys[:, begin:]
    bias = None if terms.bias is None else terms.bias.from_key(begin)
    return replace(mask, keys=keys, offset=mask.offset - begin), replace(terms, bias=bias)


def build(config: ModelConfig) -> Any:
    """Make the model that a configuration describes, with fresh weights from torch's generator.

    It is an Encoder, a Decoder or an EncoderDecoder; of a RecurrentConfig one of `models.recurrent`, which is called as
    these are.
    """
    if isinstance(config, RecurrentConfig):
        from regard.models.recurrent import build_recurrent

        return build_recurrent(config)
    if config.kind == "encoder-decoder":
        return EncoderDecoder(config)
    return Encoder(config) if config.kind == "encoder" else Decoder(config)


def default_positions(ids: Int[Tensor, "B T"], key_mask: Bool[Tensor, "B T"] | None) -> Int[Tensor, "... T"]:
    """Count tokens from 0, leaving out padding; (T,) where there is none."""
    if key_mask is None:
        return torch.arange(ids.shape[1], device=ids.device)
    return (key_mask.cumsum(1) - 1).clamp(min=0)


def check_length(config: ModelConfig, length: int) -> None:
    """Refuse a text that is longer than the context.

    Raises:
        ConfigError: it is; nothing is ever cut in silence.
    """
    if length > config.context:
        raise ConfigError(f"{length} tokens are more than the model's context of {config.context}.")


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Draw fresh weights from torch's generator.

    With `init_std`, normal as in GPT-2, the projections that write into the residual stream divided by
    sqrt(2 x layers); without, Xavier's uniform. Embeddings that are scaled by sqrt(D) start at D^-1/2.
    """
    depth = max(config.num_layers, config.num_decoder_layers or 0)
    std = config.init_std
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=config.width**-0.5 if config.scale_embeddings else std or 0.02)
        elif isinstance(module, nn.Linear):
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if config.tie_embeddings and name == "head.output" and config.head == "lm":
                continue
            if std is None:
                nn.init.xavier_uniform_(module.weight)
            else:
                writes = name.endswith((".output", ".down")) and not name.startswith("head")
                nn.init.normal_(module.weight, std=std / math.sqrt(2 * depth) if writes else std)
