"""Keep what a pass attended to, at any length: queries, keys, values and each row's normaliser.

    weight of key j for query i  =  exp(score(i, j) - normaliser(i))

so that any weight is computed again exactly, in memory of O(n·d) a layer and never O(n²).
"""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.errors import ConfigError
from regard.nn.additive import Additive
from regard.nn.attention import Attend, listening
from regard.nn.masks import Mask
from regard.nn.positions import Bias
from regard.nn.streaming import attend_with_normaliser, scores_of

__all__ = ["Capture", "Captured", "Places", "capture", "worst_of"]

Places = slice | Sequence[int] | Tensor
"""Which rows or columns: a slice, or their numbers; negative ones count from the end."""

_AT_ONCE = 2**22  # weights that a sum holds
_CHECKED = 8  # rows of each layer whose results are kept, for the proof


@dataclass(frozen=True, eq=False)
class Captured:
    """Hold one attention layer of one text, from which each of its weights follows.

    Attributes:
        name: "encoder.3", "decoder.0", "cross.2".
        query: (H, T, K), as they are compared: after norms and rotation, in the type of the pass.
        key: (G, S, K); neighbouring heads share one where G is less than H.
        value: (G, S, K), or None where they were not kept.
        normaliser: (H, T), the log-sum-exp of each row's scores; -inf for a row without any key.
        spans: (T, 2), the keys [first, last + 1) that each query may attend to.
        attend: the layer's scale and cap.
        relative: (H, T + S - 1), what is added to the score of query i and key j, at j - i + T - 1; or None.
        checked: numbers of some rows, (M,), and what they mixed, (H, M, K).
    """

    name: str
    query: Float[Tensor, "H T K"]
    key: Float[Tensor, "G S K"]
    value: Float[Tensor, "G S K"] | None
    normaliser: Float[Tensor, "H T"]
    spans: Int[Tensor, "T 2"]
    attend: Attend
    relative: Float[Tensor, "H N"] | None
    checked: tuple[Int[Tensor, " M"], Float[Tensor, "H M K"]]
    _errors: dict[int, float] = field(default_factory=dict, init=False, repr=False)

    @property
    def heads(self) -> int:
        """Count the heads."""
        return self.query.shape[0]

    @property
    def kv_heads(self) -> int:
        """Count the heads of keys and values."""
        return self.key.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Give the numbers of queries and of keys, (T, S)."""
        return self.query.shape[1], self.key.shape[1]

    @property
    def nbytes(self) -> int:
        """Count the bytes that it holds, in memory or in a file."""
        held = (self.query, self.key, self.value, self.normaliser, self.spans, self.relative)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    @property
    def scale(self) -> float:
        """Give what products of queries and keys are multiplied with."""
        return self.attend.scale or 1 / math.sqrt(self.query.shape[-1])

    @property
    def softcap(self) -> float | None:
        """Give the cap of scores, None where there is none."""
        return self.attend.softcap or None

    @property
    def is_product(self) -> bool:
        """Tell whether scores are products of queries and keys, as all are but additive ones."""
        return not isinstance(self.attend, Additive)

    def check_product(self) -> None:
        """Refuse to take a score apart into products. Raises ConfigError where there are none."""
        if not self.is_product:
            raise ConfigError(
                f"{self.name} has additive scores, which are no products of queries and keys; its weights are in "
                "all other views."
            )

    def scores(
        self, head: int, rows: Places, columns: Places, *, double: bool = False
    ) -> Float[Tensor, "R C"]:
        """Compute scores of one head with caps and biases; -inf where a query may not attend.

        Raises:
            ConfigError: there is no such head, row or column.
        """
        shared = self._shared(head)
        rows, columns = _tidy(rows, self.shape[0]), _tidy(columns, self.shape[1])
        query, key = self.query[head, rows], self.key[shared, columns]
        scores = scores_of(self.attend, query.double() if double else query, key)
        if self.relative is not None:
            scores += self._bias(head, rows, columns)
        row_spans, place = self.spans[rows], _numbers(columns)
        begin, end = row_spans[:, :1], row_spans[:, 1:]
        if scores.numel() and (int(begin.max()) > int(place.min()) or int(end.min()) <= int(place.max())):
            scores.masked_fill_((place < begin) | (place >= end), -math.inf)
        return scores

    def weights(self, head: int, rows: Places, columns: Places) -> Float[Tensor, "R C"]:
        """Compute weights of one head, in single precision, each by its row's normaliser; raises as `scores` does."""
        rows = _tidy(rows, self.shape[0])
        scores = self.scores(head, rows, columns)
        total = self.normaliser[head, rows]
        return scores.sub_(total.masked_fill(total == -math.inf, 0.0)[:, None]).exp_()

    def row(self, head: int, row: int) -> Float[Tensor, " S"]:
        """Compute one whole row in double precision, normalised by itself: it sums to one, or is all zero."""
        begin, end = self.spans[_tidy([row], self.shape[0])][0].tolist()
        weights = torch.zeros(self.shape[1], dtype=torch.float64)
        weights[begin:end] = self.scores(head, [row], slice(begin, end), double=True)[0].softmax(-1)
        return weights

    def column(self, head: int, column: int) -> Float[Tensor, " T"]:
        """Compute what every query gives to one key."""
        return self.weights(head, slice(None), [column])[:, 0]

    def given(self, head: int, columns: slice) -> Float[Tensor, " T"]:
        """Sum up what every query gives to some neighbouring keys."""
        size = max(1, _AT_ONCE // max(1, columns.stop - columns.start))
        starts = range(0, self.shape[0], size)
        return torch.cat([self.weights(head, slice(at, at + size), columns).sum(1) for at in starts])

    def mixed(self, head: int, rows: Places) -> Float[Tensor, "R K"]:
        """Compute again what some rows of a head mixed: their weights times the values.

        Raises:
            ConfigError: the values were not kept.
        """
        if self.value is None:
            raise ConfigError(f"the values of {self.name} were not kept; look with values=True.")
        value = self.value[self._shared(head)].double()
        return torch.stack([self.row(head, int(i)) @ value for i in _numbers(_tidy(rows, self.shape[0]))])

    @cached_property
    def error(self) -> float:
        """Give the proof, over all heads; see `error_of`."""
        return worst_of(self.error_of(head) for head in range(self.heads))

    def error_of(self, head: int) -> float:
        """Give the proof: the largest difference of rows that are computed again from what the head itself mixed.

        Over some rows, relative to the largest mixed value. In single precision it is about 1e-6; in half precision
        the layer's own rounding dominates it. Without the values, it is the difference of the normalisers. What isn't
        finite, NaN or infinite, says that the layer's numbers are not.
        """
        if head not in self._errors:
            rows, mixed = self.checked
            looks = self.spans[rows, 1] > self.spans[rows, 0]
            self._errors[head] = (
                self._proof(head, rows[looks], mixed[head, looks]) if bool(looks.any()) else 0.0
            )
        return self._errors[head]

    def _proof(self, head: int, rows: Tensor, mixed: Float[Tensor, "R K"]) -> float:
        double = self.query.dtype in (torch.float32, torch.float64)
        scores = self.scores(head, rows, slice(None), double=double)
        if self.value is None:
            return float((scores.logsumexp(-1) - self.normaliser[head, rows]).abs().max())
        again = scores.softmax(-1) @ self.value[self._shared(head)].to(scores.dtype)
        difference, largest = float((again - mixed).abs().max()), float(mixed.abs().max())
        return difference / largest if math.isfinite(difference) and largest else difference

    def blocks(self, size: int = 1024) -> Iterator[tuple[slice, slice]]:
        """Walk over all rows in blocks, each with the columns that any of its rows may attend to."""
        for start in range(0, self.shape[0], size):
            rows = slice(start, min(start + size, self.shape[0]))
            some = self.spans[rows]
            yield rows, slice(int(some[:, 0].min()), int(some[:, 1].max()))

    def _shared(self, head: int) -> int:
        if not 0 <= head < self.heads:
            raise ConfigError(f"{self.name} has heads 0 to {self.heads - 1}; there is no head {head}.")
        return head * self.kv_heads // self.heads

    def _bias(self, head: int, rows: slice | Tensor, columns: slice | Tensor) -> Float[Tensor, "R C"]:
        assert self.relative is not None
        line, last = self.relative[head], self.shape[0] - 1
        i, j = _numbers(rows), _numbers(columns)
        if isinstance(rows, slice) and isinstance(columns, slice) and len(i) and len(j):
            # Neighbouring rows of such a matrix are the same numbers one place on: no table of places is made.
            first = int(j[0]) - int(i[-1]) + last
            return line[first : first + len(i) + len(j) - 1].unfold(0, len(j), 1).flip(0)
        return line[j[None] - i[:, None] + last]


class Capture:
    """Listen to a model's attentions and keep what they attend to.

    Args:
        layers: names of those to keep; None keeps all.
        values: keep the values too, for the proof and for what is weighted by them.
        budget: bytes that may be held in memory; what is beyond lies in a temporary file, which goes with this object.
    """

    def __init__(
        self, layers: Collection[str] | None = None, *, values: bool = True, budget: int = 4 * 2**30
    ) -> None:
        self.layers, self.values, self.budget = layers, values, budget
        self.held = 0
        self._batches: dict[str, list[Captured]] = {}
        self._folder: Path | None = None
        self._files = 0

    def __call__(
        self,
        attend: Attend,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Mask,
        bias: Bias | Tensor | None,
    ) -> Tensor:
        """Attend, and keep one layer.

        Raises:
            ConfigError: it ran before, or its mask or bias can't be kept in O(n).
        """
        if self.layers is not None and attend.name not in self.layers:
            return attend_with_normaliser(attend, query, key, value, mask, bias)[0]
        if attend.name in self._batches:
            raise ConfigError(f"{attend.name} ran twice under one capture; look at one pass at a time.")
        mixed, normaliser = attend_with_normaliser(attend, query, key, value, mask, bias)
        num_queries, num_keys = query.shape[2], key.shape[2]
        spans = mask.spans(num_queries, num_keys, query.device).expand(len(query), -1, -1).cpu()
        if mask.keys is not None and attend.name.partition(".")[0] != "cross":
            padding = ~mask.keys.cpu()  # what stands for padding looks at nothing
            spans = torch.where(padding[..., None], 0, spans)
            normaliser = normaliser.masked_fill(padding[:, None].to(query.device), -math.inf)
        chosen = torch.linspace(0, num_queries - 1, min(_CHECKED, num_queries)).long()
        kept = [self._keep(x) for x in (query, key, *((value,) if self.values else ()))]
        found = []
        for b in range(len(query)):
            relative = None if bias is None else _relative(bias, b, spans[b], num_queries, num_keys)
            found.append(
                Captured(
                    attend.name, kept[0][b], kept[1][b], kept[2][b] if self.values else None,
                    normaliser[b].detach().float().cpu().contiguous(), spans[b],
                    replace(attend, dropout=0.0), relative,
                    (chosen, mixed[b, :, chosen.to(mixed.device)].detach().double().cpu()),
                )
            )  # fmt: skip
        self._batches[attend.name] = found
        return mixed

    def of(self, text: int = 0) -> dict[str, Captured]:
        """Give the layers of one text of the batch, in the order in which they ran."""
        return {name: found[text] for name, found in self._batches.items()}

    def _keep(self, x: Tensor) -> Tensor:
        """Copy a tensor to memory, or beyond the budget to a file that is mapped into it."""
        x = x.detach()
        size = x.numel() * x.element_size()
        self.held += size
        if self.held <= self.budget:
            return x.to("cpu", copy=True, memory_format=torch.contiguous_format)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="regard-look-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._files += 1
        path = self._folder / f"{self._files}.bin"
        room = torch.from_file(str(path), shared=True, size=x.numel(), dtype=x.dtype).view(x.shape)
        return room.copy_(x)


@contextmanager
def capture(
    layers: Collection[str] | None = None, *, values: bool = True, budget: int = 4 * 2**30
) -> Iterator[Capture]:
    """Keep what the one pass inside attends to; see `Capture`."""
    kept = Capture(layers, values=values, budget=budget)
    with torch.inference_mode(), listening(kept):
        yield kept


def _relative(bias: Bias | Tensor, text: int, spans: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """Give the bias as a function of the places' difference alone, (H, T + S - 1), which ALiBi's and T5's are.

    Raises:
        ConfigError: it isn't one.
    """
    if not isinstance(bias, Bias):
        raise ConfigError("a bias that was given as a matrix can't be kept; make it a function of positions.")
    query, key = (
        x if x.ndim == 1 else x[text if len(x) > 1 else 0] for x in (bias.queries.cpu(), bias.keys.cpu())
    )
    some = spans[:, 1] > spans[:, 0]
    begin, end = spans[some, 0], spans[some, 1] - 1
    shift = (query - torch.arange(num_queries))[some]
    if not bool(((key[begin] - begin == shift) & (key[end] - end == shift)).all()):
        raise ConfigError("positions that jump within a text can't be looked at.")
    distances = torch.arange(-(num_queries - 1), num_keys, device=bias.keys.device)[None]
    made = bias.of(distances)
    return made.reshape(-1, made.shape[-1]).detach().float().cpu()


def worst_of(errors: Iterable[float]) -> float:
    """Give the largest of some errors; NaN where one of them is, which a plain maximum may pass over."""
    found = list(errors)
    return math.nan if any(map(math.isnan, found)) else max(found)


def _tidy(places: Places, size: int) -> slice | Tensor:
    """Give places as a slice of step one, or as numbers from 0.

    Raises:
        ConfigError: one of them is outside.
    """
    if isinstance(places, slice):
        start, stop, step = places.indices(size)
        if step == 1:
            return slice(start, max(start, stop))
        return torch.tensor(range(start, stop, step), dtype=torch.long)
    found = torch.as_tensor(places, dtype=torch.long)
    outside = (found < -size) | (found >= size)
    if bool(outside.any()):
        raise ConfigError(f"there are tokens 0 to {size - 1}; there is no {int(found[outside][0])}.")
    return torch.where(found < 0, found + size, found)


def _numbers(tidy: slice | Tensor) -> Tensor:
    return torch.arange(tidy.start, tidy.stop) if isinstance(tidy, slice) else tidy
