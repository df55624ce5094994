"""Generation, step by step: what a search holds while a decoder writes."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.models.program import Program, program_for
from regard.nn.attention import is_watched
from regard.nn.cache import Cache
from regard.nn.masks import Mask

if TYPE_CHECKING:
    from regard.models.transformer import Head, Stack
    from regard.nn.ngrams import NGramEmbedding


class Decoding:
    """Remember the rows that are being written, and score their next tokens.

    With `use_cache` every step computes its new tokens only; without, everything again: the slow twin that the tests
    compare with. Rows may be padded on the left; padding is masked, takes no position and no room in the context.
    """

    def __init__(
        self,
        config: ModelConfig,
        embedding: nn.Embedding,
        stack: Stack,
        head: Head,
        *,
        batch: int,
        use_cache: bool = True,
        memory: Float[Tensor, "B S D"] | None = None,
        memory_mask: Bool[Tensor, "B S"] | None = None,
        ngrams: NGramEmbedding | None = None,
    ) -> None:
        self.config, self.batch = config, batch
        self._embedding, self._stack, self._head, self._ngrams = embedding, stack, head, ngrams
        self._memory, self._memory_mask = memory, memory_mask
        self._cache = Cache(len(stack.blocks), stack.windows) if use_cache else None
        device = embedding.weight.device
        # Kept where the earlier ones are needed: without a cache, or with embeddings of several tokens.
        self._ids = torch.empty(batch, 0, dtype=torch.long, device=device)
        self._keys: Tensor | None = None  # (B, slots) which are real; None while all are
        self._positions = torch.empty(
            0, dtype=torch.long, device=device
        )  # (slots,), or (B, slots) with padding
        self._sources = torch.arange(batch, device=device)
        self._longest = 0  # real tokens of the longest row; may be more than it has, where rows have left
        self._program: Program | None = None
        self.length = 0

    def advance(
        self, ids: Int[Tensor, "B T"], key_mask: Bool[Tensor, "B T"] | None = None, *, only_last: bool = False
    ) -> Float[Tensor, "B T V"]:
        """Append tokens and score what may follow each of them (`only_last`: follow the last, (B, 1, V)).

        Raises:
            ConfigError: the rows would grow beyond the model's context.
        """
        new = ids.shape[1]
        self._make_room(new, key_mask)
        self._place(ids, key_mask)
        start, self.length = self.length, self.length + new
        if self._cache is None or self._ngrams is not None:
            self._ids = torch.cat((self._ids, ids), dim=1)
        if self._cache is None:
            ids, start = self._ids, 0
        x = self._embedding(ids)
        if self.config.scale_embeddings:
            x = x * math.sqrt(self.config.width)
        if self._ngrams is not None:
            first = max(0, start - self._ngrams.reach)
            grams = self._ngrams(self._ids[:, first:], self._positions[..., first:])
            x = x + grams[:, start - first :]
        found = self._at_once(x, start, only_last)
        if found is not None:
            return found
        memory_mask = None if self._memory is None else Mask(keys=self._memory_mask)
        # Once the cache holds the memory's keys and values, nobody looks at the memory itself again.
        memory = self._memory if self._cache is None or start == 0 else None
        hidden = self._stack(
            x, self._positions[..., start:], Mask(keys=self._keys, offset=start),
            key_positions=self._positions, memory=memory, memory_mask=memory_mask, cache=self._cache,
        )  # fmt: skip
        return self._head(hidden[:, -1:] if only_last else hidden[:, -new:])

    def _at_once(
        self, x: Float[Tensor, "B T D"], start: int, only_last: bool
    ) -> Float[Tensor, "B T V"] | None:
        """Take the step in one call, where there is a program for it; a source's first fills its cross cache."""
        if self._cache is None or (self._memory is not None and start == 0):
            return None
        rows = x.shape[0] * x.shape[1]
        if self._program is None or self._program.rows < rows or is_watched() or torch.is_grad_enabled():
            self._program = program_for(self._stack, self._head, rows)
        if self._program is None or not self._program.suits(self._cache):
            return None
        stack, fresh = self._stack, self._positions[..., start:]
        terms = partial(stack.terms, fresh, self._positions)
        x = stack.norm_in(stack.position.add(x, fresh))
        found = self._program.step(
            x, self._cache, terms, keys=self._keys, memory_keys=self._memory_mask, only_last=only_last
        )
        if not self._program.scores:
            return self._head(found.to(x.dtype))
        cap = self._head.softcap
        return found if cap is None else cap * torch.tanh(found / cap)

    @property
    def source_mask(self) -> Bool[Tensor, "B S"] | None:
        """Tell which tokens of each row's source are real; None where all are, or where there is no source."""
        return self._memory_mask

    def reserve(self, slots: int) -> None:
        """Make room for so many tokens a row at once, so that no key moves while a text grows (a static cache)."""
        if self._cache is not None:
            self._cache.reserve(slots)

    def rewind(self, count: int) -> None:
        """Forget the last `count` tokens of every row, none of which may be padding; at most 64 with a window."""
        self.length -= count
        self._longest -= count
        self._positions = self._positions[..., : self.length]
        if self._keys is not None:
            self._keys = self._keys[:, : self.length]
        self._ids = self._ids[:, : self.length]
        if self._cache is not None:
            self._cache.rewind(count)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Go on with these rows, in this order; a row may be taken several times or left out."""
        self.batch = len(rows)
        sources = self._sources[rows]
        moved = len(sources) != len(self._sources) or not torch.equal(sources, self._sources)
        self._sources = sources
        self._ids = self._ids[rows]
        if self._keys is not None:
            self._keys = self._keys[rows]
        if self._positions.ndim == 2:
            self._positions = self._positions[rows]
        if moved and self._memory is not None:
            if self._cache is None or self.length == 0:
                self._memory = self._memory[rows]
            self._memory_mask = None if self._memory_mask is None else self._memory_mask[rows]
        if self._cache is not None:
            self._cache.reorder(rows, cross=moved)

    def _make_room(self, new: int, key_mask: Tensor | None) -> None:
        """Count what the longest row will hold, and refuse what is beyond the context."""
        added = new if key_mask is None else int(key_mask.sum(1).max())
        if self._longest + added > self.config.context and self._keys is not None:
            self._longest = int(self._keys.sum(1).max())
        longest = self._longest + added
        if longest > self.config.context:
            raise ConfigError(f"{longest} tokens are more than the model's context of {self.config.context}.")
        self._longest = longest

    def _place(self, ids: Tensor, key_mask: Tensor | None) -> None:
        """Give the new slots their masks and positions."""
        batch, new = ids.shape
        assert batch == self.batch
        if self._keys is None and (key_mask is None or bool(key_mask.all())):
            self._positions = torch.arange(self.length + new, device=ids.device)
            return
        old = self._keys if self._keys is not None else ids.new_ones(batch, self.length, dtype=torch.bool)
        fresh = key_mask if key_mask is not None else ids.new_ones(batch, new, dtype=torch.bool)
        self._keys = torch.cat((old, fresh), dim=1)
        self._positions = (self._keys.cumsum(1) - 1).clamp(min=0)
