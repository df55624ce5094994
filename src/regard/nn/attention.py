"""Attention: project to query, key and value, tell them their positions, attend, project back.

    Attention(Q, K, V) = softmax(Q Kᵀ / √K) V                     Vaswani et al. 2017, equation 1

`attend` is the only place where anything attends. Three kernels do the same there: `reference` is the equation
itself and the only one that ever has the weights in its hands, `fused` never stores them, `flex` is torch's compiled
flexible kernel. `use_kernel` chooses one; left alone, the fused one runs wherever it can. `listening` puts another
in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.nn.cache import CrossCache, LayerCache
from regard.nn.layers import Dropout, RMSNorm
from regard.nn.learning import attend_learning, kernel_for
from regard.nn.linear import Linear
from regard.nn.masks import Mask
from regard.nn.positions import Bias, Terms, rotate
from regard.nn.short import attend_short, is_short
from regard.nn.taps import is_tapped, tap

_SHORT = 160  # tokens up to which a CPU trains faster on plain products than by torch's kernel
_SHORTEST = 12  # and than by ours
Kernel = Literal["auto", "fused", "reference", "flex"]
_kernel: ContextVar[Kernel] = ContextVar("kernel", default="auto")
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@dataclass
class Recorder:
    """Collect the attention weights of the layers that ran under `record`, by the layer's name.

    Attributes:
        weights: name ("encoder.0", "decoder.2", "cross.2") to a list of (B, H, T, S), one for every forward pass.
    """

    weights: dict[str, list[Tensor]] = field(default_factory=dict)

    def __call__(
        self,
        attend: Attend,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Mask,
        bias: Bias | Tensor | None,
    ) -> Tensor:
        """Attend by the equation and keep the weights."""
        mixed, weights = attend.reference(query, key, value, mask, _dense(bias))
        self.weights.setdefault(attend.name, []).append(weights.detach())
        return mixed

    def __getitem__(self, name: str) -> Float[Tensor, "B H T S"]:
        """Give a layer's weights where it ran once."""
        (weights,) = self.weights[name]
        return weights


@contextmanager
def use_kernel(kernel: Kernel) -> Iterator[None]:
    """Choose the attention kernel for the passes inside.

    Raises:
        ConfigError: a kernel that was asked for by name can't do what the model needs.
    """
    token = _kernel.set(kernel)
    try:
        yield
    finally:
        _kernel.reset(token)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Put a listener in the kernel's place for the passes inside; the innermost one alone is called, None is nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener | None:
    """Give who listens, in whose hands every attention is put."""
    return _listener.get()


@contextmanager
def record() -> Iterator[Recorder]:
    """Keep every attention weight of the forward passes inside: O(T·S) memory a head, so for short texts."""
    recorder = Recorder()
    with listening(recorder):
        yield recorder


def is_watched() -> bool:
    """Tell whether somebody listens or asked for a kernel by name: then every module must run itself."""
    return _listener.get() is not None or _kernel.get() != "auto" or is_tapped()


@dataclass(frozen=True)
class Attend:
    """Mix values by the similarity of queries and keys: the seam between a model and its kernels.

    Attributes:
        scale: what scores are multiplied with; None: 1/sqrt(K).
        softcap: scores become softcap · tanh(scores / softcap), before the mask (Gemma 2, arXiv:2408.00118).
        dropout: the probability that a weight is blanked; 0 outside training.
        name: the layer's name, under which `record` keeps its weights.
    """

    scale: float | None = None
    softcap: float | None = None
    dropout: float = 0.0
    name: str = ""

    def __call__(
        self,
        query: Float[Tensor, "B H T K"],
        key: Float[Tensor, "B G S K"],
        value: Float[Tensor, "B G S K"],
        mask: Mask,
        bias: Bias | Float[Tensor, "B_or_1 H T S"] | None = None,
    ) -> Float[Tensor, "B H T K"]:
        """Give the mixed values; a query that may attend to nothing gets zeros."""
        kernel, listener = _kernel.get(), _listener.get()
        if listener is not None:
            return listener(self, query, key, value, mask, bias)
        bias = _dense(bias)
        if kernel == "flex":
            return self.flex(query, key, value, mask, bias)
        scale = self.scale or 1 / math.sqrt(query.shape[-1])
        if kernel == "auto" and not (self.softcap or self.dropout):
            if (runs := self.runs_to_learn(query, key, value, mask, bias)) is not None:
                return attend_learning(query, key, value, runs, scale)
            if is_short(query, key, mask, bias, _SHORT):
                return attend_short(query, key, value, mask, bias, scale)
        if kernel == "reference" or (kernel == "auto" and self.prefers_reference(query, key)):
            return self.reference(query, key, value, mask, bias)[0]
        return self.fused(query, key, value, mask, bias)

    def runs_to_learn(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Int[Tensor, "B_or_1 T 2"] | None:
        """Give the run of keys that each query sees where our own kernel is to learn from them, else None."""
        tiny = query.shape[2] * key.shape[2] <= _SHORTEST**2
        other = self.softcap or self.dropout or bias is not None or (self.scale or 1.0) <= 0
        if tiny or other or kernel_for(query, key, value) is None:
            return None
        return mask.runs(query.shape[2], key.shape[2], query.device)

    def prefers_reference(self, query: Tensor, key: Tensor) -> bool:
        """Tell whether the plain products are the better choice: for what the fused kernel can't do or does slowly.

        Its backward pass on a CPU costs ten times the plain products in bf16 while texts are short (docs/log.md); with
        dropout of weights it falls back to storing them anyway.
        """
        short = query.shape[2] * key.shape[2] <= _SHORT * _SHORT
        slow = query.device.type == "cpu" and query.requires_grad and short
        return bool(self.softcap or self.dropout) or slow

    def reference(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None = None
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T S"]]:
        """Compute the equation as it is written; give the mixed values and the weights."""
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = (
            query @ key.transpose(-1, -2) * (self.scale or 1 / math.sqrt(query.shape[-1]))
        )  # (B, H, T, S)
        scores = scores.float()
        if self.softcap:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if bias is not None:
            scores = scores + bias
        allowed = mask.dense(query.shape[2], key.shape[2], query.device)
        if allowed is not None:
            # The lowest finite number, not -inf: a row without any key would be NaN, and its gradient too.
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        if allowed is not None and mask.can_blank_a_row(query.shape[2], key.shape[2]):
            weights = weights * allowed
        dropped = Dropout(self.dropout)(weights) if self.dropout else weights
        return dropped.to(value.dtype) @ value, weights

    def fused(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None = None
    ) -> Float[Tensor, "B H T K"]:
        """Call torch's fused kernel, which never stores the weights."""
        if self.softcap:
            raise ConfigError("the fused kernel can't cap scores; use the kernel 'reference' or 'flex'.")
        num_queries, num_keys = query.shape[2], key.shape[2]
        plain = bias is None and mask.is_plain_causal(num_queries, num_keys)
        allowed = None if plain else mask.dense(num_queries, num_keys, query.device)
        blank = None
        if allowed is not None and mask.can_blank_a_row(num_queries, num_keys):
            blank = ~allowed.any(-1, keepdim=True)
            allowed = allowed | blank  # an empty row may look at anything, and what it sees is blanked below
        full = allowed
        if bias is not None:
            full = bias.to(query.dtype)
            if allowed is not None:
                full = full.masked_fill(~allowed, -math.inf)
            full = full.expand(query.shape[0], query.shape[1], num_queries, num_keys)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=full, dropout_p=self.dropout, is_causal=plain and num_queries > 1,
            scale=self.scale, enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        return mixed if blank is None else mixed.masked_fill(blank, 0.0)

    def flex(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None = None
    ) -> Float[Tensor, "B H T K"]:
        """Call torch's flexible kernel, which caps and biases scores without storing them once it is compiled."""
        from torch.nn.attention.flex_attention import flex_attention

        if self.dropout:
            raise ConfigError("the flexible kernel has no dropout of weights; set attention_dropout=0.")
        trains = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        if trains and query.device.type == "cpu":
            raise ConfigError(
                "the flexible kernel has no gradients on a CPU; use the kernel 'auto' to train."
            )
        allowed = mask.dense(query.shape[2], key.shape[2], query.device)
        cap, lowest = self.softcap, torch.finfo(torch.float32).min

        def change(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
            if cap:
                score = cap * torch.tanh(score / cap)
            if bias is not None:
                score = score + bias[torch.zeros_like(b) if bias.shape[0] == 1 else b, h, t, s]
            if allowed is not None:
                seen = allowed[torch.zeros_like(b) if allowed.shape[0] == 1 else b, 0, t, s]
                score = torch.where(seen, score, lowest)
            return score

        gqa = query.shape[1] != key.shape[1]
        mixed = flex_attention(query, key, value, score_mod=change, scale=self.scale, enable_gqa=gqa)
        assert isinstance(mixed, Tensor)
        if allowed is not None and mask.can_blank_a_row(query.shape[2], key.shape[2]):
            mixed = mixed.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
        return mixed


Listener = Callable[[Attend, Tensor, Tensor, Tensor, Mask, Bias | Tensor | None], Tensor]
"""Is called in place of the kernel with query, key, value, mask and bias; attends, and gives the mixed values."""


class Attention(nn.Module):
    """Attend with several heads at once, each in a subspace of its own.

    MultiHead(Q, K, V) = Concat(head_1, ..., head_H) Wᴼ, head_i = Attention(Q Wᵢ^Q, K Wᵢ^K, V Wᵢ^V). The paper's
    W^Q, W^K, W^V and Wᴼ are `query`, `key`, `value` and `output`, each one matrix for all heads. With fewer key/value
    heads than heads, neighbouring heads share them (arXiv:2305.13245; with one: arXiv:1911.02150).
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, config: ModelConfig, *, name: str = "") -> None:
        super().__init__()
        assert config.head_size is not None and config.num_kv_heads is not None
        self.name, self.head_size = name, config.head_size
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        width, bias = config.width, bool(config.qkv_bias)
        self.query = Linear(width, self.num_heads * self.head_size, bias=bias)
        self.key = Linear(width, self.num_kv_heads * self.head_size, bias=bias)
        self.value = Linear(width, self.num_kv_heads * self.head_size, bias=bias)
        self.output = Linear(self.num_heads * self.head_size, width, bias=config.bias)

        # Henry et al. 2020, arXiv:2010.04245: scores that can't explode
        def norm() -> nn.Module | None:
            own = self.head_size, config.norm_eps, config.norm_offset
            return RMSNorm(*own) if config.query_key_norm else None

        self.query_norm, self.key_norm = norm(), norm()
        self.scale, self.softcap = config.attention_scale, config.attention_softcap
        self.dropout = config.attention_dropout

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        memory: Float[Tensor, "B S D"] | None = None,
        *,
        mask: Mask | None = None,
        terms: Terms | None = None,
        cache: LayerCache | CrossCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from `x` to `memory`, or to itself where there is none.

        `terms` are the positions of x; `cache` holds earlier keys and values, or the memory's.
        """
        mask, terms = mask or Mask(), terms or Terms()
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))  # once, not for each of the three projections
        query = self._heads(self.query, x, self.num_heads, self.query_norm)
        if isinstance(cache, CrossCache) and cache.keys is not None and cache.values is not None:
            key, value = cache.keys, cache.values
        else:
            seen = x if memory is None else memory
            key = self._heads(self.key, seen, self.num_kv_heads, self.key_norm)
            value = self._heads(self.value, seen, self.num_kv_heads, None)
            if isinstance(cache, CrossCache):
                cache.keys, cache.values = key, value
        if terms.rotation is not None:
            query, key = rotate(query, terms.rotation), rotate(key, terms.rotation)
        if isinstance(cache, LayerCache):
            key, value = cache.append(key, value)
        mixed = tap(f"{self.name}.heads", self.attend(query, key, value, mask, terms.bias))  # (B, H, T, K)
        return self.output(mixed.transpose(1, 2).flatten(2))

    @property
    def attend(self) -> Attend:
        """Give the kernel call with this layer's scale, cap and dropout."""
        return Attend(self.scale, self.softcap, self.dropout if self.training else 0.0, self.name)

    def with_weights(
        self, x: Float[Tensor, "B T D"], memory: Float[Tensor, "B S D"] | None = None, *, mask: Mask | None = None,
        terms: Terms | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H T S"]]:  # fmt: skip
        """Give the results and every head's weights; torch's own module averages over heads unless told not to."""
        with record() as recorder:
            out = self(x, memory, mask=mask, terms=terms)
        return out, recorder[self.name]

    @classmethod
    def from_torch(cls, theirs: nn.MultiheadAttention) -> Attention:
        """Make an Attention with the weights of a `torch.nn.MultiheadAttention`.

        Raises:
            ConfigError: it has other widths for keys or values, extra biases, or a zero key.
        """
        if not theirs._qkv_same_embed_dim or theirs.bias_k is not None or theirs.add_zero_attn:
            raise ConfigError(
                "only a MultiheadAttention with one width, without bias_k and add_zero_attn, can be taken over."
            )
        width, has_bias = theirs.embed_dim, theirs.in_proj_bias is not None
        config = ModelConfig(
            kind="encoder", vocab_size=1, width=width, num_heads=theirs.num_heads, position="none", bias=has_bias,
            attention_dropout=theirs.dropout, pad_id=None, bos_id=None, eos_id=None,
        )  # fmt: skip
        ours = cls(config)
        with torch.no_grad():
            for i, linear in enumerate((ours.query, ours.key, ours.value)):
                linear.weight.copy_(theirs.in_proj_weight[i * width : (i + 1) * width])
                if has_bias:
                    linear.bias.copy_(theirs.in_proj_bias[i * width : (i + 1) * width])
            ours.output.load_state_dict(theirs.out_proj.state_dict())
        return ours.train(theirs.training)

    def to_torch(self) -> nn.MultiheadAttention:
        """Make a `torch.nn.MultiheadAttention` (batch first) with these weights.

        Raises:
            ConfigError: torch's module has no grouped heads, query-key norm, soft cap or scale of its own.
        """
        width = self.query.in_features
        plain = self.num_kv_heads == self.num_heads and self.num_heads * self.head_size == width
        if (
            not plain
            or self.query_norm
            or self.softcap
            or self.scale
            or (self.query.bias is None) != (self.output.bias is None)
        ):
            raise ConfigError(
                "torch.nn.MultiheadAttention can't hold this attention: it has no grouped heads, norms, caps or scales."
            )
        theirs = nn.MultiheadAttention(
            width, self.num_heads, dropout=self.dropout, bias=self.query.bias is not None, batch_first=True
        )
        with torch.no_grad():
            linears = (self.query, self.key, self.value)
            theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in linears]))
            if theirs.in_proj_bias is not None:
                theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in linears]))
            theirs.out_proj.load_state_dict(self.output.state_dict())
        return theirs.train(self.training)

    def _heads(self, linear: nn.Linear, x: Tensor, count: int, norm: nn.Module | None) -> Tensor:
        heads = linear(x).unflatten(-1, (count, self.head_size))  # (B, T, N, K)
        return (heads if norm is None else norm(heads)).transpose(1, 2)


def _dense(bias: Bias | Tensor | None) -> Tensor | None:
    return bias.dense if isinstance(bias, Bias) else bias
