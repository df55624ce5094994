"""Follow attention through a model: what reaches a token from which input, and what a weight does.

rollout             r ← ½ r + ½ rᵀA, layer by layer, A the mean over heads     Abnar and Zuidema 2020, arXiv:2005.00928
value-weighted      a_ij ‖W_O v_j‖                                           Kobayashi et al. 2020, arXiv:2004.10102
gradient times attention      a_ij ∂y/∂a_ij,  with  ∂y/∂a_ij = g_i · v_j

for v_j the value of key j, and g_i the gradient of y with respect to what the head mixed for row i. All of it follows
from what a capture keeps and from O(n·d) gradients: no matrix is ever stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.look.capture import Captured, capture
from regard.look.places import Holder
from regard.look.reading import Look, Side, Weights, Word
from regard.models.pooling import pool
from regard.nn.attention import Attention
from regard.nn.taps import tapping

__all__ = [
    "Aim",
    "Flow",
    "GradientAttention",
    "Read",
    "Target",
    "gradient_attention",
    "rollout",
    "value_weighted",
]

_AT_ONCE = 2**24  # weights held at once: 64 MiB
_MOST = 200_000_000  # weights that one call holds


class Read(Protocol):
    """Be a text as a model reads it, as `regard.tasks.looking.Reading` is."""

    @property
    def sides(self) -> Mapping[str, Side]:
        """Give the texts, by their names."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Give what the model's `hidden` takes, each (1, T)."""

    @property
    def segments(self) -> Tensor | None:
        """Give (1, T) for a model that tells a pair's texts apart; else None."""

    def run(self, module: Any) -> Tensor:
        """Give the model's last states, (1, T, D)."""


class Aim(Protocol):
    """Be a number of interest: of a network and its last states (B, T, D), one for each text, (B,)."""

    def __call__(self, module: Any, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, " B"]:
        """Compute it."""


@dataclass(frozen=True)
class Target:
    """Name one answer of a model, whose score is explained.

    Attributes:
        answer: the id of a token, or the number of a label (of a span: 0 its start, 1 its end).
        row: the token that answers (of a decoder, the one before); a class is one answer for the whole text.
        log: explain the log-probability instead of the logit.
    """

    answer: int
    row: int = -1
    log: bool = False

    def __call__(self, module: Any, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, " B"]:
        """Give the answer's logit, or its log-probability, in each text."""
        logits, answer = self._logits(module, hidden)
        return (logits.log_softmax(-1) if self.log else logits)[:, answer]

    def probability(self, module: Any, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, " B"]:
        """Give the answer's probability among all others; of several labels that may all hold, against its own no."""
        logits, answer = self._logits(module, hidden)
        return logits[:, answer].sigmoid() if module.config.multi_label else logits.softmax(-1)[:, answer]

    def likeliest(self, module: Any, hidden: Float[Tensor, "1 T D"]) -> int:
        """Give the answer that the row itself would choose."""
        return int(self._logits(module, hidden)[0][0].argmax())

    def _logits(self, module: Any, hidden: Tensor) -> tuple[Float[Tensor, "B C"], int]:
        config = module.config
        if config.head == "classify":
            pooled = pool(hidden, None, config.pooling)
            logits = module.head(pooled if module.pooler is None else module.pooler(pooled)).float()
        else:
            if not -hidden.shape[1] <= self.row < hidden.shape[1]:
                raise ConfigError(f"there are tokens 0 to {hidden.shape[1] - 1}; there is no row {self.row}.")
            logits = module.head(hidden if config.head == "span" else hidden[:, self.row]).float()
        if not 0 <= self.answer < logits.shape[-1]:
            raise ConfigError(f"there are answers 0 to {logits.shape[-1] - 1}; there is no {self.answer}.")
        if config.head == "span":  # the rows compete
            return logits[..., self.answer], self.row % hidden.shape[1]
        return logits, self.answer


@dataclass(frozen=True, eq=False)
class Flow:
    """Hold how much of each input token is in some tokens' last states.

    Attributes:
        values: (R, S) for each text that the model read; over all texts a row sums to one.
        rows: the words whose states they are.
        columns: what each text's columns are.
        how: how the numbers came about, in words.
    """

    values: Mapping[str, Float[Tensor, "R S"]]
    rows: tuple[Word, ...]
    columns: Mapping[str, tuple[Word, ...]]
    how: str


def rollout(
    look: Look, tokens: Sequence[int | str], *, side: str | None = None, residual: float = 0.5
) -> Flow:
    """Roll attention out: take each layer's states for a mean of its inputs, and follow the shares down to the texts.

    Each attention passes on `residual` of what was there and 1 - `residual` of what its heads attend to on average. A
    decoder that looks at a source does so twice a layer; what goes to the source flows on through the encoder's layers.
    Only shares are followed: not values, norms or feed-forwards.

    Args:
        look: of a pass in which the layers from the first on were kept; they are rolled out up to the last kept one.
        tokens: the tokens or words whose states are asked about; a word is the mean of its tokens.
        side: of which text: "source" for the encoder's states; None: the text, or the target.
        residual: the share that the residual stream keeps.

    Raises:
        ConfigError: layers are missing, or there is no such token or text.
    """
    if not 0 <= residual <= 1:
        raise ConfigError(f"residual={residual} is a share; give 0 to 1.")
    own = side or ("text" if "text" in look.sides else "target")
    if own not in look.sides:
        raise ConfigError(f"there is no {side!r}; there is {' and '.join(look.sides)}.")
    chosen = look.sides[own]
    names = [n for n in look.layers if own != "source" or n.startswith("encoder")]
    _check_whole(names, own)
    words = tuple(chosen.find(token) for token in tokens)
    shares = {name: torch.zeros(len(words), len(one.ids)) for name, one in look.sides.items()}
    for i, word in enumerate(words):
        shares[own][i, word.start : word.end] = 1 / (word.end - word.start)
    for name in reversed(names):
        layer = look.layers[name]
        rows, columns = look.rows_of(name).name, look.columns_of(name).name
        through = (1 - residual) * _through(layer, shares[rows])
        shares[rows] = residual * shares[rows]
        shares[columns] = shares[columns] + through
    places = {name: one.find for name, one in look.sides.items()}
    kept = {name: values for name, values in shares.items() if own != "source" or name == own}
    return Flow(
        kept, words, {name: tuple(places[name](j) for j in range(kept[name].shape[1])) for name in kept},
        f"rollout over {', '.join(names)}; means over heads, {residual:g} stays in the residual stream",
    )  # fmt: skip


def _check_whole(names: Sequence[str], own: str) -> None:
    for kind in {"encoder", "decoder", "cross"} & {name.partition(".")[0] for name in names}:
        numbers = [int(name.partition(".")[2]) for name in names if name.startswith(kind)]
        if numbers != list(range(len(numbers))):
            raise ConfigError(
                f"layers of {kind} are missing for a rollout; look at all, or at the first ones."
            )
    kinds = [{name for name in names if name.startswith(kind)} for kind in ("encoder", "decoder", "cross")]
    if not names or (own == "target" and (not all(kinds) or len(kinds[1]) != len(kinds[2]))):
        raise ConfigError("a rollout needs encoder, decoder and cross layers; look at all.")


def _through(layer: Captured, shares: Float[Tensor, "R T"]) -> Float[Tensor, "R S"]:
    """Multiply shares of a layer's rows with the mean of its heads' weights, a block of rows at a time."""
    found = torch.zeros(len(shares), layer.shape[1])
    size = max(1, min(1024, _AT_ONCE // max(1, layer.shape[1])))
    for rows, columns in layer.blocks(size):
        part = shares[:, rows]
        if not part.any():
            continue
        for head in range(layer.heads):
            found[:, columns] += part @ layer.weights(head, rows, columns) / layer.heads
    return found


def value_weighted(
    look: Look,
    model: Holder,
    layer: int | str,
    head: int | None = None,
    rows: slice | Sequence[int] | None = None,
    *,
    normalise: bool = False,
) -> Weights:
    """Weigh attention by the size of what arrives: the norm of a weight times the value, projected to the stream.

    Of one head ‖a_ij W_O v_j‖; of a whole layer (head None) the norm of the sum over its heads, in which heads may
    cancel. The projection's bias, which belongs to no token, is left out, and so are norms that follow.

    Args:
        look: with values.
        model: whose look it is; gives the output projection.
        layer: its name or number; `encoder.3.5` names a head.
        head: its number.
        rows: which rows; None: all.
        normalise: divide each row by its sum.

    Raises:
        ConfigError: there is no such layer or head, or values were not kept.
    """
    found, head = look.where(layer, head)
    if found.value is None:
        raise ConfigError(f"the values of {found.name} were not kept; look with values=True.")
    product = _products(model.module, found)
    heads = range(found.heads) if head is None else (head,)
    weights = []
    for h in heads:
        first = look.weights(found.name, h, rows)
        weights.append(first.values)
        if first.values.numel() * len(heads) > _MOST:
            raise ConfigError("these are too many rows for all heads at once; ask for fewer.")
    # ‖Σ_h a_h f_h‖² = Σ_h,k a_h a_k f_h · f_k: the heads' products are O(n), and rows never meet whole vectors.
    values = torch.zeros_like(weights[0], dtype=torch.float64)
    for i, h in enumerate(heads):
        for j, k in enumerate(heads[: i + 1]):
            values += (weights[i].double() * weights[j]) * (product(h, k) * (1 if h == k else 2))
    values = values.clamp(min=0).sqrt()
    if normalise:
        values = values / values.sum(1, keepdim=True).clamp(min=1e-30)
    what = "weights times the norm of the projected value"
    what = what if head is not None else "norm of the sum over heads of weights times projected values"
    said = f"{what}; each row divided by its sum" if normalise else what
    return replace(first, values=values.float(), head=head, how=f"{first.how}; {said}")


def _products(module: Any, layer: Captured) -> Callable[[int, int], Tensor]:
    """Give a function of two heads: the products of their values, each after its part of the projection, (S,)."""
    attention = next((m for m in module.modules() if isinstance(m, Attention) and m.name == layer.name), None)
    if attention is None or attention.num_heads != layer.heads:
        raise ConfigError(f"this model has no attention {layer.name} of {layer.heads} heads.")
    weight = attention.output.weight.detach().double().cpu().unflatten(1, (layer.heads, -1))  # (D, H, K)

    def product(one: int, other: int) -> Tensor:
        assert layer.value is not None
        first, second = (layer.value[h * layer.kv_heads // layer.heads].double() for h in (one, other))
        return ((first @ (weight[:, one].T @ weight[:, other])) * second).sum(-1)

    return product


@dataclass(frozen=True, eq=False)
class GradientAttention:
    """Hold what a number depends on, weight by weight: any part of any head, exactly.

    Attributes:
        look: the attention.
        gradients: of the number with respect to what each head mixed, (H, T, K), by layer.
        value: the number.
    """

    look: Look
    gradients: Mapping[str, Float[Tensor, "H T K"]]
    value: float

    def gradient(
        self, layer: int | str, head: int | None = None, rows: slice | Sequence[int] | None = None,
        columns: slice | Sequence[int] | None = None,
    ) -> Weights:  # fmt: skip
        """Give what the number would gain for more of each weight, ∂y/∂a_ij; also of weights that a mask forbids.

        Without a head: the mean over heads.
        """
        return self._weights(layer, head, rows, columns, times=False, positive=False)

    def weights(
        self, layer: int | str, head: int | None = None, rows: slice | Sequence[int] | None = None,
        columns: slice | Sequence[int] | None = None, *, positive: bool = False,
    ) -> Weights:  # fmt: skip
        """Give each weight times its gradient; `positive` keeps what is above 0, before a mean over heads."""
        return self._weights(layer, head, rows, columns, times=True, positive=positive)

    def received(self, layer: int | str) -> Float[Tensor, "H S"]:
        """Sum weights times gradients over all rows: what came of each key; streamed in blocks of rows.

        Of `decoder.1.0`, which names one head, it is that head's alone, (1, S).
        """
        captured, only = self.look.where(layer)
        heads = range(captured.heads) if only is None else (only,)
        assert captured.value is not None
        found = torch.zeros(len(heads), captured.shape[1])
        size = max(1, min(1024, _AT_ONCE // max(1, captured.shape[1])))
        for rows, columns in captured.blocks(size):
            for k, head in enumerate(heads):
                gradient = self.gradients[captured.name][head, rows]
                value = captured.value[head * captured.kv_heads // captured.heads, columns].float()
                arrived = captured.weights(head, rows, columns).T @ gradient  # (C, K)
                found[k, columns] += (arrived * value).sum(-1)
        return found

    def _weights(
        self, layer: int | str, head: int | None, rows: slice | Sequence[int] | None,
        columns: slice | Sequence[int] | None, *, times: bool, positive: bool,
    ) -> Weights:  # fmt: skip
        captured, head = self.look.where(layer, head)
        heads = range(captured.heads) if head is None else (head,)
        assert captured.value is not None
        total = None
        for one in heads:
            found = self.look.weights(captured.name, one, rows, columns)
            at = [[word.start for word in words] for words in (found.rows, found.columns)]
            value = captured.value[one * captured.kv_heads // captured.heads, at[1]].float()
            values = self.gradients[captured.name][one, at[0]] @ value.T
            values = values * found.values if times else values
            values = values.clamp(min=0) if positive else values
            total = values / len(heads) if total is None else total + values / len(heads)
        assert total is not None
        how = "the weight times its gradient" if times else "the gradient with respect to the weight"
        how += ", from the gradient of what the head mixed and the key's value"
        how += "; above 0 only" if positive else ""
        how += "; mean over the layer's heads" if head is None else ""
        return replace(found, values=total, head=head, how=how)


def gradient_attention(
    model: Holder, reading: Read, aim: Aim, *, budget: int = 4 * 2**30
) -> GradientAttention:
    """Run a text twice, once to keep its attention and once with gradients, and join the two.

    Args:
        model: a Model or its parts.
        reading: the text, from `regard.tasks.looking.read`.
        aim: the number that is explained: a `Target`, or a function of the network and its last states.
        budget: bytes of the capture that may be held in memory.
    """
    with capture(budget=budget) as kept:
        reading.run(model.module)
    look = Look(reading.sides, kept.of(), holder=kept)
    value, found = gradients_at(model.module, reading, aim, ".heads")
    return GradientAttention(
        look, {name.removesuffix(".heads"): g[0].float().cpu() for name, (_, g) in found.items()}, value
    )


def gradients_at(
    module: Any, reading: Read, aim: Aim, ending: str
) -> tuple[float, dict[str, tuple[Tensor, Tensor]]]:
    """Run with gradients; give the aim, and by name each place that ends so: what passed there, and its gradient.

    No weight's gradient is touched.
    """
    places: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        if name.endswith(".embedding"):  # where all gradients end, whether the weights have any or not
            value = value.detach().requires_grad_()
        if name.endswith(ending):
            places[name] = value
        return value

    with torch.inference_mode(False), torch.enable_grad(), tapping(keep):
        number = aim(module, reading.run(module)).sum()
        if not places:
            raise ConfigError(
                f"this model shows nothing that ends in {ending!r}, of which a gradient could be taken."
            )
        found = torch.autograd.grad(number, list(places.values()), allow_unused=True)
    value = float(number.detach())
    if not math.isfinite(value):
        raise ConfigError(f"the number to explain is {value}.")
    zeros = [torch.zeros_like(x) if g is None else g for x, g in zip(places.values(), found, strict=True)]
    return value, {name: (x.detach(), g) for (name, x), g in zip(places.items(), zeros, strict=True)}
