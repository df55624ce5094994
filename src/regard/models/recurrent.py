"""Recurrent models, which are called as the Transformers are: an encoder, a language model, an encoder-decoder."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError
from regard.models.alignment import Carry, Memory, Writer
from regard.models.embeddings import embed
from regard.models.pooling import pool
from regard.models.transformer import Head, check_length
from regard.nn.layers import Dropout
from regard.nn.recurrence import Recurrence, is_trailing, runs_of
from regard.nn.taps import tap

__all__ = [
    "RecurrentDecoder",
    "RecurrentDecoding",
    "RecurrentEncoder",
    "RecurrentEncoderDecoder",
    "build_recurrent",
]


class _Single(nn.Module):
    """Be what an encoder and a language model share: embeddings, one stack, a head."""

    causal = False

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.dropout = Dropout(config.dropout)
        self.stack = Recurrence(
            config.cell, inputs=config.width, width=config.width, num_layers=config.num_layers,
            bidirectional=bool(config.bidirectional), dropout=config.dropout,
        )  # fmt: skip
        self.head = Head(config, self.embedding)
        initialise(self)

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        *,
        key_mask: Bool[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        segments: None = None,
    ) -> Float[Tensor, "B T D"]:
        """Give the final states.

        Args:
            ids: token ids.
            key_mask: True where a token is real; padding may stand on either side.
            positions: of no use: a recurrence counts for itself.
            documents: numbers of packed documents, each of which is read from a fresh state.
            segments: there are none.
        """
        check_length(self.config, ids.shape[1])
        name = "decoder" if self.causal else "encoder"
        x = tap(f"{name}.embedding", self.dropout(embed(self.embedding, ids, self.config)))
        if (
            key_mask is not None
            and documents is None
            and not self.stack.bidirectional
            and is_trailing(key_mask)
        ):
            key_mask = None
        runs = None
        if key_mask is not None or documents is not None:
            real = torch.ones_like(ids, dtype=torch.bool) if key_mask is None else key_mask
            runs = runs_of(real, documents)
        return self.dropout(self.stack(x, runs)[0])

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        key_mask: Bool[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        segments: None = None,
    ) -> Float[Tensor, "B ..."]:
        """Give what the head is for, as `SingleStack.forward` does."""
        hidden = self.hidden(ids, key_mask=key_mask, documents=documents)
        return self.head(self.pool(hidden, key_mask) if self.config.head == "classify" else hidden)

    def pool(
        self, hidden: Float[Tensor, "B T D"], key_mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B D"]:
        """Make one vector of a text, as the configuration says."""
        return pool(hidden, key_mask, self.config.pooling)


class RecurrentEncoder(_Single):
    """Read a text, usually from both ends: classify, tag (Graves and Schmidhuber 2005; Huang et al. 2015), embed."""


class RecurrentDecoder(_Single):
    """See only what came before: a recurrent language model (Mikolov et al. 2010)."""

    causal = True

    def start(
        self,
        *,
        batch: int,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        use_cache: bool = True,
    ) -> RecurrentDecoding:
        """Begin to generate `batch` rows; see RecurrentDecoding."""
        if source is not None or source_mask is not None:
            raise ConfigError("a decoder has no source; give the text as the prompt.")
        like = self.embedding.weight.new_empty(batch, 1)
        return RecurrentDecoding(self, Carry(self.stack.zeros(like)), batch=batch, use_cache=use_cache)

    def advance(
        self, ids: Tensor, carry: Carry, memory: Memory | None, key_mask: Tensor | None
    ) -> tuple[Tensor, Carry]:
        """Read on from a state, and give the final states and the new one."""
        x = embed(self.embedding, ids, self.config)
        runs = None if key_mask is None else runs_of(key_mask)
        hidden, state = self.stack(x, runs, carry.state)
        return hidden, Carry(state)


class RecurrentEncoderDecoder(nn.Module):
    """Read a source with one recurrence, write a target with another; see `models.alignment` for how it looks back."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.target_embedding = (
            self.embedding if config.share_embeddings else nn.Embedding(config.vocab_size, config.width)
        )
        self.dropout = Dropout(config.dropout)
        self.encoder = Recurrence(
            config.cell, inputs=config.width, width=config.width, num_layers=config.num_layers,
            bidirectional=bool(config.bidirectional), dropout=config.dropout,
        )  # fmt: skip
        self.decoder = Writer(config)
        self.head = Head(config, self.target_embedding)
        initialise(self)

    def encode(
        self, source: Int[Tensor, "B S"], source_mask: Bool[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B S D"]:
        """Give the encoder's final states, zeros at padding."""
        return self._read(source, source_mask)[0]

    def hidden(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        *,
        source_mask: Bool[Tensor, "B S"] | None = None,
        target_mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Give the final states for a target that is already known (teacher forcing)."""
        check_length(self.config, target.shape[1])
        memory, carry = self.decoder.read(*self._read(source, source_mask), source_mask)
        x = tap("decoder.embedding", self.dropout(embed(self.target_embedding, target, self.config)))
        return self.dropout(self.decoder(x, memory, carry, target_mask)[0])

    def forward(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        *,
        source_mask: Bool[Tensor, "B S"] | None = None,
        target_mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Score each next target token."""
        return self.head(self.hidden(source, target, source_mask=source_mask, target_mask=target_mask))

    def start(
        self, *, source: Int[Tensor, "B S"], source_mask: Bool[Tensor, "B S"] | None = None, batch: int | None = None,
        use_cache: bool = True,
    ) -> RecurrentDecoding:  # fmt: skip
        """Read the sources and begin to generate a target for each; see RecurrentDecoding."""
        assert batch in (None, len(source))
        memory, carry = self.decoder.read(*self._read(source, source_mask), source_mask)
        return RecurrentDecoding(
            self, carry, batch=len(source), use_cache=use_cache, memory=memory, source_mask=source_mask
        )

    def advance(
        self, ids: Tensor, carry: Carry, memory: Memory | None, key_mask: Tensor | None
    ) -> tuple[Tensor, Carry]:
        """Read on from a state, and give the final states and the new one."""
        assert memory is not None
        return self.decoder(embed(self.target_embedding, ids, self.config), memory, carry, key_mask)

    def _read(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        check_length(self.config, source.shape[1])
        x = tap("encoder.embedding", self.dropout(embed(self.embedding, source, self.config)))
        whole = mask is None or bool(mask.all())
        assert whole or mask is not None
        states, end = self.encoder(x, None if whole or mask is None else runs_of(mask))
        return self.dropout(states), end


class RecurrentDecoding:
    """Remember the rows that are being written, as `Decoding` does: of a recurrence, only the state that it is in.

    Without `use_cache` everything is read again at each step, which gives the same.
    """

    def __init__(
        self,
        model: RecurrentDecoder | RecurrentEncoderDecoder,
        carry: Carry,
        *,
        batch: int,
        use_cache: bool = True,
        memory: Memory | None = None,
        source_mask: Bool[Tensor, "B S"] | None = None,
    ) -> None:
        self._model, self._carry, self._memory, self.source_mask = model, carry, memory, source_mask
        self.batch, self.length = batch, 0
        device = carry.state.device
        self._counts = torch.zeros(batch, dtype=torch.long, device=device)  # real tokens of each row
        self._sources = torch.arange(batch, device=device)
        self._use_cache = use_cache
        self._ids = torch.empty(batch, 0, dtype=torch.long, device=device)  # without a cache
        self._mask = torch.empty(batch, 0, dtype=torch.bool, device=device)

    def advance(
        self, ids: Int[Tensor, "B T"], key_mask: Bool[Tensor, "B T"] | None = None, *, only_last: bool = False
    ) -> Float[Tensor, "B T V"]:
        """Append tokens and score what may follow each of them (`only_last`: follow the last, (B, 1, V)).

        Raises:
            ConfigError: the rows would grow beyond the model's context.
        """
        new = ids.shape[1]
        assert len(ids) == self.batch
        self._counts = self._counts + (new if key_mask is None else key_mask.sum(1))
        check_length(self._model.config, int(self._counts.max()))
        self.length += new
        if key_mask is not None and bool(key_mask.all()):
            key_mask = None
        if self._use_cache:
            hidden, self._carry = self._model.advance(ids, self._carry, self._memory, key_mask)
        else:
            fresh = torch.ones_like(ids, dtype=torch.bool) if key_mask is None else key_mask
            self._ids, self._mask = torch.cat((self._ids, ids), 1), torch.cat((self._mask, fresh), 1)
            hidden, _ = self._model.advance(self._ids, self._carry, self._memory, self._mask)
        return self._model.head(hidden[:, -1:] if only_last else hidden[:, -new:])

    def reserve(self, slots: int) -> None:
        """Make room for so many tokens: a state needs none."""

    def rewind(self, count: int) -> None:
        """Refuse to forget tokens, which speculation asks for.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a recurrent model can't take tokens back: leave out what guesses them ahead.")

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Go on with these rows, in this order; a row may be taken several times or left out."""
        self.batch = len(rows)
        sources = self._sources[rows]
        moved = len(sources) != len(self._sources) or not torch.equal(sources, self._sources)
        self._sources, self._counts = sources, self._counts[rows]
        self._carry, self._ids, self._mask = self._carry.rows(rows), self._ids[rows], self._mask[rows]
        if moved and self._memory is not None:
            self._memory = self._memory.rows(rows)
            self.source_mask = None if self.source_mask is None else self.source_mask[rows]


def build_recurrent(config: RecurrentConfig) -> RecurrentEncoder | RecurrentDecoder | RecurrentEncoderDecoder:
    """Make the model that a configuration describes, with fresh weights from torch's generator."""
    if config.kind == "encoder-decoder":
        return RecurrentEncoderDecoder(config)
    return RecurrentEncoder(config) if config.kind == "encoder" else RecurrentDecoder(config)


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Draw fresh weights from torch's generator.

    Matrices from state to state are orthogonal, gate by gate (Saxe et al. 2013, arXiv:1312.6120; Bahdanau et al., B.1);
    all others Xavier's uniform, of a cell gate by gate too. An lstm begins by remembering: its forget gate has a bias
    of 1 (Gers et al. 2000). Embeddings are normal, of variance 1 / width.
    """
    config = getattr(model, "config")  # noqa: B009 - a Module's attributes have no type
    assert isinstance(config, RecurrentConfig)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=config.width**-0.5)
        elif isinstance(module, nn.RNNBase):
            for kind, parameter in module.named_parameters():
                if kind.startswith("bias"):
                    nn.init.zeros_(parameter)
                    if config.cell == "lstm" and kind.startswith("bias_ih"):
                        parameter[module.hidden_size : 2 * module.hidden_size] = 1.0
                    continue
                draw = nn.init.orthogonal_ if kind.startswith("weight_hh") else nn.init.xavier_uniform_
                for gate in parameter.split(module.hidden_size):
                    draw(gate)
        elif isinstance(module, nn.Linear):
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if not (config.tie_embeddings and name == "head.output" and config.head == "lm"):
                nn.init.xavier_uniform_(module.weight)
    if isinstance(model, RecurrentEncoderDecoder) and model.decoder.energy is not None:
        nn.init.normal_(model.decoder.energy, std=config.width**-0.5)
