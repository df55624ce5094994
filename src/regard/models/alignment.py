"""The decoder of a recurrent encoder-decoder: it writes with one context vector, or looks at the source at each step.

    additive      c_t = Σ_j α_tj h_j,  α_t = softmax score(s_(t-1), h_j)                     Bahdanau et al. 2014
                  s_t = cell(s_(t-1), [y_(t-1); c_t]),  o_t = tanh(R [s_t; c_t; y_(t-1)])
    dot, general  s_t = cell(s_(t-1), [y_(t-1); o_(t-1)])  (the latter with input feeding)      Luong et al. 2015
                  o_t = tanh(R [c_t; s_t]),  score(s_t, h_j) = s_tᵀ h_j or s_tᵀ W h_j
    none          s_t = cell(s_(t-1), [y_(t-1); c]),  o_t = tanh(R [s_t; c; y_(t-1)])             Cho et al. 2014
                  s_t = cell(s_(t-1), y_(t-1)),  o_t = s_t                                   Sutskever et al. 2014

Bahdanau's and Cho's o_t is a maxout layer; here it is tanh, as in Nematus (Sennrich et al. 2017, arXiv:1703.04357).

What is linear in a context is computed of the source instead, once: M c_t = Σ_j α_tj (M h_j). A step then has the
products with the state alone, and all gradients of weights are made after the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.config_recurrent import RecurrentConfig
from regard.nn.additive import Additive, AdditiveScores, powers_of
from regard.nn.attention import Attend, current_listener
from regard.nn.deferred import Product
from regard.nn.linear import Linear, linear
from regard.nn.masks import Mask
from regard.nn.recurrence import Recurrence, Steps, is_trailing, runs_of

__all__ = ["Carry", "Memory", "Writer"]

NAME = "cross.0"
"""The one attention's name, by which it is looked at."""


class Carry(NamedTuple):
    """Hold what a writer takes from one step to the next.

    Attributes:
        state: of its layers.
        fed: (B, D), its last output, with input feeding.
    """

    state: Float[Tensor, "L C B D"]
    fed: Float[Tensor, "B D"] | None = None

    def rows(self, rows: Int[Tensor, " R"]) -> Carry:
        """Take some rows, in an order; a row may come several times."""
        return Carry(self.state[:, :, rows], None if self.fed is None else self.fed[rows])


@dataclass(frozen=True, eq=False)
class Memory:
    """Hold a source as its writer sees it.

    Attributes:
        states: (B, S, D), the encoder's; None without attention.
        mask: (B, S), which of them are real; None: all.
        keys: (B, S, D), what queries are compared with; None without attention.
        mixed: (B, S, N), what the context becomes where it enters the cell or the output.
        powers: of the keys, where additive scores are made of them one step at a time.
        context: (B, D), the one vector of a source, where it is read at each step.
    """

    states: Tensor | None = None
    mask: Tensor | None = None
    keys: Tensor | None = None
    mixed: Tensor | None = None
    powers: Tensor | None = None
    context: Tensor | None = None

    def rows(self, rows: Int[Tensor, " R"]) -> Memory:
        """Take some rows, in an order."""
        held = (self.states, self.mask, self.keys, self.mixed, self.powers, self.context)
        return Memory(*(None if one is None else one[rows] for one in held))


class Writer(Recurrence):
    """Write a target, given a source's annotations and the state with which its encoder ended."""

    def __init__(self, config: RecurrentConfig) -> None:
        assert config.num_decoder_layers is not None
        width, count = config.width, config.num_decoder_layers
        super().__init__(
            config.cell, inputs=2 * width if config.is_fed else width, width=width, num_layers=count,
            dropout=config.dropout,
        )  # fmt: skip
        self.score, self.feeds, self.repeats = (
            config.score,
            bool(config.input_feeding),
            bool(config.repeat_context),
        )
        self.context = Linear(width, width) if self.repeats else None
        bridged = self.repeats or config.score == "additive"
        self.bridge = nn.ModuleList(Linear(width, width) for _ in range(count if bridged else 0))
        self.key = self.query = self.energy = self.readout = None
        if config.score == "additive":
            self.key, self.query = Linear(width, width), Linear(width, width, bias=False)
            self.energy = nn.Parameter(torch.empty(width))
        elif config.score == "general":
            self.key = Linear(width, width, bias=False)
        if config.score != "none" or self.repeats:
            self.readout = Linear((2 if config.score in ("dot", "general") else 3) * width, width)

    def read(
        self, states: Float[Tensor, "B S D"], end: Float[Tensor, "L C B D"], mask: Bool[Tensor, "B S"] | None
    ) -> tuple[Memory, Carry]:
        """Prepare what is needed of a source, and the state to begin with.

        Layer l begins with the state in which the encoder's layer l ended (its last, where it has fewer), for additive
        scores and a repeated context through a dense layer and tanh; an lstm's c as it is. Bahdanau's comes from the
        backward direction alone; here both directions' ends enter it.
        """
        count = len(self.blocks)
        begin = [end[min(layer, len(end) - 1)] for layer in range(count)]
        context = None if self.context is None else torch.tanh(self.context(end[-1, 0])).to(end.dtype)
        if len(self.bridge):
            sources = [one[0] if context is None else context for one in begin]
            first = [
                torch.tanh(dense(one)).to(end.dtype) for dense, one in zip(self.bridge, sources, strict=True)
            ]
            begin = [torch.cat((h[None], one[1:])) for h, one in zip(first, begin, strict=True)]
        state = torch.stack(begin)
        if self.score == "none":
            return Memory(context=context), Carry(state)
        keys = states if self.key is None else self.key(states)
        mixed = None
        if self.score == "additive":
            mixed = linear(states, self.cells[0].weight_ih_l0[:, self.width :], None)
        elif self.feeds:
            assert self.readout is not None
            mixed = linear(states, self.readout.weight[:, : self.width], None)
        kind = state.dtype
        powers = None if torch.is_grad_enabled() or self.energy is None else powers_of(keys)
        memory = Memory(
            states.to(kind), mask, keys.to(kind), None if mixed is None else mixed.to(kind), powers
        )
        return memory, Carry(state, state.new_zeros(state.shape[2:]) if self.feeds else None)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "B T D"],
        memory: Memory,
        carry: Carry,
        key_mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Carry]:
        """Read the words before, from where `carry` stands; give what each next word is scored from.

        Padding on the left leaves a row's state as it is; what is behind a row's last token is of no use to anybody.
        """
        if key_mask is not None and is_trailing(key_mask) and bool(key_mask[:, 0].all()):
            key_mask = None
        if self.score == "additive":
            return self._search_first(x, memory, carry, key_mask)
        if self.feeds:
            return self._feed(x, memory, carry, key_mask)
        given = x
        if memory.context is not None:
            given = torch.cat((x, memory.context[:, None].expand(-1, x.shape[1], -1).to(x.dtype)), -1)
        hidden, state = super().forward(given, None if key_mask is None else runs_of(key_mask), carry.state)
        if self.score != "none":
            contexts = self._attend(memory, hidden.to(carry.state.dtype))
            hidden = self._read_out(torch.cat((contexts, hidden.to(contexts.dtype)), -1), hidden)
        elif memory.context is not None:
            hidden = self._read_out(torch.cat((hidden, given[..., self.width :], x), -1), hidden)
        return hidden, Carry(state)

    def _search_first(
        self, x: Tensor, memory: Memory, carry: Carry, key_mask: Tensor | None
    ) -> tuple[Tensor, Carry]:
        assert self.query is not None and self.energy is not None and memory.mixed is not None
        assert memory.keys is not None and memory.states is not None
        steps, query = Steps(self, carry.state), Product(self.query.weight.t())
        score, mix = (
            AdditiveScores(memory.keys, self.energy, memory.powers),
            Product(memory.mixed, narrow=False),
        )
        blocked = _blocked(memory.mask)
        queries, weights, states = [], [], []
        for t, given in enumerate(self._given(x, carry)):
            queries.append(query(steps.top))
            weights.append(_softmax(score(queries[-1]), blocked).to(carry.state.dtype))
            context = mix(weights[-1][:, None])[:, 0]
            states.append(steps.take(given + context, None if key_mask is None else key_mask[:, t]))
        hidden = torch.stack(states, 1)
        if current_listener() is None:
            contexts = torch.stack(weights, 1) @ memory.states
        else:
            contexts = self._attend(memory, torch.stack(queries, 1))
        out = self._read_out(torch.cat((hidden, contexts.to(hidden.dtype), x.to(hidden.dtype)), -1), hidden)
        return out, Carry(steps.state)

    def _feed(self, x: Tensor, memory: Memory, carry: Carry, key_mask: Tensor | None) -> tuple[Tensor, Carry]:
        assert self.readout is not None and memory.keys is not None and memory.mixed is not None
        first, width = self.cells[0].weight_ih_l0, self.width
        steps, enter = Steps(self, carry.state), Product(first[:, width:].t())
        compare = Product(memory.keys.transpose(1, 2), narrow=False)
        mix, own = Product(memory.mixed, narrow=False), Product(self.readout.weight[:, width:].t())
        blocked, fed, states, outs = _blocked(memory.mask), carry.fed, [], []
        assert fed is not None
        for t, given in enumerate(self._given(x, carry)):
            real = None if key_mask is None else key_mask[:, t]
            states.append(steps.take(given + enter(fed), real))
            weights = _softmax(compare(states[-1][:, None])[:, 0], blocked).to(fed.dtype)
            after = torch.tanh(mix(weights[:, None])[:, 0] + own(states[-1]) + self.readout.bias)
            fed = after if real is None else torch.where(real[:, None], after, fed)
            outs.append(after)
        if current_listener() is not None:
            self._attend(memory, torch.stack(states, 1))
        return torch.stack(outs, 1), Carry(steps.state, fed)

    def _given(self, x: Tensor, carry: Carry) -> tuple[Tensor, ...]:
        """Give what the words before contribute to each step of the first layer."""
        layer = self.cells[0]
        weight = layer.weight_ih_l0[:, : self.width]
        # Our kernel, which learns, wants it in one piece.
        given = linear(x, weight.contiguous() if torch.is_grad_enabled() else weight, layer.bias_ih_l0)
        return given.to(carry.state.dtype).unbind(1)

    def _attend(self, memory: Memory, query: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Attend with all queries at once, where they are known: through the seam at which attention is looked at."""
        assert memory.keys is not None and memory.states is not None
        attend: Attend = Attend(scale=1.0, name=NAME)
        if self.energy is not None:
            attend = Additive(scale=1.0, name=NAME, weight=self.energy.detach())
        query, key, value = (part[:, None] for part in (query, memory.keys, memory.states))
        return attend(query, key, value, Mask(keys=memory.mask))[:, 0]

    def _read_out(self, x: Tensor, like: Tensor) -> Tensor:
        assert self.readout is not None
        return torch.tanh(self.readout(x)).to(like.dtype)


def _blocked(mask: Bool[Tensor, "B S"] | None) -> tuple[Tensor, bool] | None:
    """Give where a source has padding, and whether some source is nothing else."""
    if mask is None or bool(mask.all()):
        return None
    return ~mask, not bool(mask.any(1).all())


def _softmax(scores: Float[Tensor, "B S"], blocked: tuple[Tensor, bool] | None) -> Float[Tensor, "B S"]:
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if blocked is None:
        return scores.softmax(-1)
    padding, empty = blocked
    weights = scores.masked_fill(padding, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(padding, 0.0) if empty else weights
