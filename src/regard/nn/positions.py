"""Where a token stands: six answers, behind one interface.

Attention alone sees a set. A position kind can tell it the order at three places: `add` to the embeddings, `rotate`
queries and keys, or `bias` the scores. Positions are an argument, whole numbers (B, T) or (T,); nothing is counted
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.config import ModelConfig


@dataclass(frozen=True, eq=False)
class Bias:
    """Hold what positions add to the scores, as a value: made for any part of the matrix, dense only when asked.

    Attributes:
        queries: (..., T), the queries' positions.
        keys: (..., S), the keys'.
        of: makes of distances (..., T, S), key minus query, the numbers (..., H, T, S).
    """

    queries: Int[Tensor, "... T"]
    keys: Int[Tensor, "... S"]
    of: Callable[[Tensor], Tensor]

    def part(self, rows: slice | Tensor, columns: slice | Tensor) -> Float[Tensor, "B_or_1 H R C"]:
        """Make the numbers of some queries and some keys."""
        made = self.of(self.keys[..., None, columns] - self.queries[..., rows, None])
        return made.reshape(-1, *made.shape[-3:])

    @cached_property
    def dense(self) -> Float[Tensor, "B_or_1 H T S"]:
        """The whole matrix; all layers of a pass share one."""
        return self.part(slice(None), slice(None))

    def from_key(self, begin: int) -> Bias:
        """Leave out the first `begin` keys."""
        return replace(self, keys=self.keys[..., begin:])


@dataclass(frozen=True)
class Terms:
    """Hold what the positions of one forward pass mean to every attention layer of a stack.

    Attributes:
        rotation: cosines and sines, each (B or 1, 1, T, K), of the queries' and new keys' positions.
        bias: added to the scaled scores, (B or 1, H, T, S).
    """

    rotation: tuple[Tensor, Tensor] | None = None
    bias: Bias | None = None


class Position(nn.Module):
    """Give no position at all: the base of the other kinds.

    Attributes:
        relates: whether `terms` gives anything.
    """

    relates = False

    def add(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "... T"]) -> Float[Tensor, "B T D"]:
        """Add position vectors to embeddings."""
        return x

    def terms(self, queries: Int[Tensor, "... T"], keys: Int[Tensor, "... S"]) -> Terms:
        """Make what attention needs for queries and keys at these positions."""
        return Terms()


class Sinusoidal(Position):
    """Add sines and cosines of geometrically spaced wavelengths.

    PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(same); in `halves` the sines come first, as in Marian. Computed
    for any position, so there is no last one.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """

    def __init__(self, width: int, halves: bool = False) -> None:
        super().__init__()
        self.width, self.halves = width, halves

    def add(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "... T"]) -> Float[Tensor, "B T D"]:
        """Add the encoding of each position."""
        return x + self.encode(positions).to(x.dtype)

    def encode(self, positions: Int[Tensor, "... T"]) -> Float[Tensor, "... T D"]:
        """Give the encoding itself."""
        powers = torch.arange(0, self.width, 2, device=positions.device) / self.width
        angles = positions[..., None].float() * torch.exp(-math.log(10_000.0) * powers)
        if self.halves:
            return torch.cat((angles.sin(), angles.cos()), dim=-1)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class Learned(Position):
    """Add a trained vector a position; there is none beyond the context.

    The first `offset` rows of the table stand for nothing: RoBERTa and BART keep two of them.
    Source: Gehring et al. 2017, arXiv:1705.03122; BERT and GPT-2 use it.
    """

    def __init__(self, context: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(context + offset, width)
        self.offset = offset

    def add(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "... T"]) -> Float[Tensor, "B T D"]:
        """Add the vector of each position."""
        return x + self.embedding(positions + self.offset).to(x.dtype)


class Rotary(Position):
    """Turn each pair of query and key coordinates by an angle that grows with the position.

    Only differences of positions survive in the scores. Coordinates i and i + K/2 form a pair (the layout of Llama as
    published on the hub; the paper's pairs are neighbours: the same up to a permutation of the projections' rows).
    Source: Su et al. 2021, arXiv:2104.09864, equation 34.
    """

    relates = True

    def __init__(self, config: ModelConfig, *, windowed: bool = False) -> None:
        super().__init__()
        assert config.head_size is not None
        self.head_size = config.head_size
        self.base = (windowed and config.rotary_window_base) or config.rotary_base
        self.scaling = "none" if windowed and config.rotary_window_base else config.rotary_scaling
        self.factor, self.context = config.rotary_factor, config.rotary_context
        self.low, self.high = config.rotary_low, config.rotary_high

    def frequencies(self, device: torch.device | None = None) -> Float[Tensor, " half"]:
        """Give the angle by which each pair turns from one position to the next, in radians.

        Scaled, so that longer texts look like those of the training: linear divides all by the factor
        (arXiv:2306.15595); llama3 only those whose wavelength is long against the first context, with a smooth
        passage between (Llama 3.1's release, arXiv:2407.21783).
        """
        powers = torch.arange(0, self.head_size, 2, dtype=torch.int64, device=device).float() / self.head_size
        turns = 1.0 / self.base**powers
        if self.scaling == "linear":
            return turns / self.factor
        if self.scaling == "llama3":
            assert self.context is not None
            per_context = self.context * turns / (2 * math.pi)  # whole turns within the first context
            kept = ((per_context - self.low) / (self.high - self.low)).clamp(0, 1)
            return (1 - kept) * turns / self.factor + kept * turns
        return turns

    def terms(self, queries: Int[Tensor, "... T"], keys: Int[Tensor, "... S"]) -> Terms:
        """Make the cosines and sines of the queries' positions."""
        angles = queries[..., None].float() * self.frequencies(queries.device)  # (..., T, K/2)
        angles = torch.cat((angles, angles), dim=-1)
        shape = (-1, 1, *angles.shape[-2:])
        return Terms(rotation=(angles.cos().reshape(shape), angles.sin().reshape(shape)))


class Alibi(Position):
    """Lower each score by the distance times a slope of the head's own.

    Slopes are the geometric sequence of the paper; with a number of heads that is no power of two, those of the next
    lower power and then every second one of the next higher. In a bidirectional stack the distance is absolute.
    Source: Press et al. 2022, arXiv:2108.12409.
    """

    relates = True

    slopes: Tensor

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(num_heads), persistent=False)

    def terms(self, queries: Int[Tensor, "... T"], keys: Int[Tensor, "... S"]) -> Terms:
        """Make the bias of each head, query and key."""
        return Terms(bias=Bias(queries, keys, self.of))

    def of(self, distance: Int[Tensor, "... T S"]) -> Float[Tensor, "... H T S"]:
        """Give the bias at distances, key minus query."""
        return -self.slopes[:, None, None] * distance.abs().float()[..., None, :, :]


class T5Relative(Position):
    """Add to each score a trained number for the head and the bucket that the distance falls into.

    Half of the buckets are exact distances, half grow logarithmically up to `max_distance`; all farther ones share the
    last. Bidirectional stacks spend half of the buckets on each side.
    Source: Raffel et al. 2020, arXiv:1910.10683, section 2.1.
    """

    relates = True

    def __init__(self, num_heads: int, buckets: int, max_distance: int, bidirectional: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(buckets, num_heads)
        self.max_distance, self.bidirectional = max_distance, bidirectional

    def terms(self, queries: Int[Tensor, "... T"], keys: Int[Tensor, "... S"]) -> Terms:
        """Make the bias of each head, query and key."""
        return Terms(bias=Bias(queries, keys, self.of))

    def of(self, distance: Int[Tensor, "... T S"]) -> Float[Tensor, "... H T S"]:
        """Give the bias at distances, key minus query."""
        return self.embedding(self.bucket(distance)).movedim(-1, -3)

    def bucket(self, distance: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Sort signed distances (key minus query) into buckets."""
        count = self.embedding.num_embeddings
        start = torch.zeros_like(distance)
        if self.bidirectional:
            count //= 2
            start = torch.where(distance > 0, count, 0)
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = count // 2
        ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
        return start + torch.where(distance < exact, distance, far)


def alibi_slopes(num_heads: int) -> Float[Tensor, " H"]:
    """Give ALiBi's slope for every head."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return torch.tensor(slopes, device="cpu")  # also where models are made without memory for their weights


def rotate(x: Float[Tensor, "B N T K"], rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "B N T K"]:
    """Turn the coordinate pairs of queries or keys by their positions' angles."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)


def make_position(config: ModelConfig, bidirectional: bool, *, windowed: bool = False) -> Position:
    """Make the position kind that a configuration names; `windowed` for the layers that see a window only."""
    c = config
    assert c.head_size is not None
    match c.position:
        case "none":
            return Position()
        case "sinusoidal":
            return Sinusoidal(c.width, c.sinusoid_halves)
        case "learned":
            return Learned(c.context, c.width, c.position_offset)
        case "rotary":
            return Rotary(c, windowed=windowed)
        case "alibi":
            return Alibi(c.num_heads)
        case "t5":
            return T5Relative(c.num_heads, c.relative_buckets, c.relative_distance, bidirectional)
