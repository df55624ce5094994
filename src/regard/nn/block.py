"""The residual block: the one thing that every Transformer is a stack of."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from regard.config import ModelConfig
from regard.nn.attention import Attention
from regard.nn.cache import CrossCache, LayerCache
from regard.nn.layers import Dropout, FeedForward, make_norm
from regard.nn.masks import Mask
from regard.nn.positions import Terms
from regard.nn.taps import tap


class Block(nn.Module):
    """Attend to oneself, perhaps to a memory, then transform each token; add each result to what came in.

    Where the norm stands:
        post      x = norm(x + sublayer(x))        2017's, Vaswani et al., section 3.1
        pre       x = x + sublayer(norm(x))        today's, arXiv:2002.04745
        parallel  x = x + all sublayers(norm(x))   one norm, GPT-J's
        sandwich  x = x + norm(sublayer(norm(x)))  Gemma 2's, arXiv:2408.00118
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        name: str,
        cross: bool = False,
        cross_name: str = "",
        first: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.cross_name = name, cross_name
        self.placement = config.norm_placement
        self.attention = Attention(config, name=name)
        self.attention_norm = nn.Identity() if first and not config.first_norm else make_norm(config)
        self.cross = Attention(config, name=cross_name) if cross else None
        self.feed_forward = FeedForward(config)
        if self.placement != "parallel":
            if cross:
                self.cross_norm = make_norm(config)
            self.feed_forward_norm = make_norm(config)
        sandwich = self.placement == "sandwich"
        self.attention_norm_out = make_norm(config) if sandwich else nn.Identity()
        self.cross_norm_out = make_norm(config) if sandwich and cross else nn.Identity()
        self.feed_forward_norm_out = make_norm(config) if sandwich else nn.Identity()
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask,
        terms: Terms,
        memory: Float[Tensor, "B S D"] | None = None,
        memory_mask: Mask | None = None,
        cache: LayerCache | None = None,
        cross_cache: CrossCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Apply the sublayers in turn (parallel: at once); `memory` is the encoder's output, where there is one."""

        def attend(y: Tensor) -> Tensor:
            out = self.attention_norm_out(self.attention(y, mask=mask, terms=terms, cache=cache))
            return tap(f"{self.name}.attention", self.dropout(out))

        def look_up(y: Tensor) -> Tensor:
            assert self.cross is not None
            out = self.cross_norm_out(self.cross(y, memory, mask=memory_mask, cache=cross_cache))
            return tap(f"{self.cross_name}.attention", self.dropout(out))

        def transform(y: Tensor) -> Tensor:
            out = self.feed_forward_norm_out(self.feed_forward(y))
            return tap(f"{self.name}.feed_forward", self.dropout(out))

        if self.placement == "parallel":
            y = self.attention_norm(x)
            out = x + attend(y) + transform(y)
            return tap(self.name, out if self.cross is None else out + look_up(y))
        steps = [(attend, self.attention_norm), (transform, self.feed_forward_norm)]
        if self.cross is not None:
            steps.insert(1, (look_up, self.cross_norm))
        for sublayer, norm in steps:
            x = norm(x + sublayer(x)) if self.placement == "post" else x + sublayer(norm(x))
        return tap(self.name, x)
