"""What stands before a token, looked up: an embedding for each pair, triple, ... of tokens that ends with it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig

__all__ = ["NGramEmbedding"]

_FACTOR = -0x61C8864680B583EB  # 2^64 divided by the golden ratio, as a signed number; products wrap around


class NGramEmbedding(nn.Module):
    """Add, for n = 2 up to `ngrams`, a trained vector of the last n tokens to the embedding of the last one.

    Each n has a table of `ngram_rows` vectors, and the n tokens are hashed to a row of it: it costs a few rows a token,
    however large the tables are, and tells a small model in its first steps what its attention would have to find out.
    Two that meet in a row share it. Nothing is looked up across the beginning of a text: a token at position p has
    p tokens before it.

    Source: hashed n-grams of bytes, Pagnoni et al. 2024, arXiv:2412.09871, section 3.2.1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rows = config.ngram_rows
        self.tables = nn.ModuleList(
            nn.Embedding(config.ngram_rows, config.width) for _ in range(config.ngrams - 1)
        )

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "... T"],
        documents: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Give the sum of the vectors of what ends at each token.

        `positions` count from each text's beginning; tokens of another document stand before nothing.
        """
        own = ids.long() + 1  # 0 stands for nothing
        code, found = own, None
        for before, table in enumerate(self.tables, start=1):
            there = positions >= before
            if documents is not None:
                there = there & (documents == _earlier(documents, before))
            code = code * _FACTOR + _earlier(own, before) * there
            vectors = table((code ^ (code >> 29)) % self.rows)
            found = vectors if found is None else found + vectors
        assert found is not None, "ngrams is at least 2 where this module is made"
        return found

    @property
    def reach(self) -> int:
        """Count the tokens before one that its vectors depend on."""
        return len(self.tables)


def _earlier(x: Int[Tensor, "B T"], count: int) -> Int[Tensor, "B T"]:
    """Give what stood so many places before; 0 before the first."""
    return F.pad(x, (count, 0))[:, : x.shape[1]]
