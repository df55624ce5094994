"""A beam search as a tree: every hypothesis that was running at some step, where it came from, and which ones ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from regard.data.tokenizers import Tokenizer
from regard.generate.config import Decoding, Hypothesis
from regard.generate.watch import Watcher

__all__ = ["Alive", "Node", "Tree", "TreeWatcher", "shown"]


@dataclass(frozen=True)
class Node:
    """Hold one token of a tree of texts.

    Attributes:
        node: its number, from 0.
        parent: the number of the token before it; -1 for a first token.
        id: the token.
        text: its piece.
        logprob: by the model, after the tokens before it; nats.
        score: the sum of the log-probabilities from the first token to this one.
        step: how many tokens there are with it.
        end: whether it ends a text that the search gives.
    """

    node: int
    parent: int
    id: int
    text: str
    logprob: float
    score: float
    step: int
    end: bool = False


@dataclass(frozen=True)
class Alive:
    """Hold the hypotheses that run on after a step, the best first."""

    step: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Tree:
    """Hold a whole search: all nodes, each after its parent, and the numbers of those of the best text."""

    nodes: tuple[Node, ...]
    best: tuple[int, ...]


class TreeWatcher(Watcher):
    """Keep the tree of a beam search; of a text with several windows, each grows from the best text before it.

    Args:
        tokenizer: names the tokens.
        kept: the first tokens of the text.
        prompted: is called with the ids that the text follows, before each window.
        tell: is told which hypotheses run on, after each step.
        check: is called before each step.
    """

    def __init__(
        self, tokenizer: Tokenizer, kept: Sequence[int], *, prompted: Callable[[Sequence[int]], None],
        tell: Callable[[Alive], None], check: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(kept)
        self._tokenizer, self._prompted, self._tell, self._check = tokenizer, prompted, tell, check
        self.nodes: list[Node] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self._root, self._rows = -1, [-1]
        self._open: Tensor | None = None
        self._endings: dict[int, list[float]] = {}
        self.found: list[Hypothesis] = []
        self.before: list[int] = []
        self.end_ids: tuple[int, ...] = ()

    @property
    def tree(self) -> Tree:
        """Give what the search has been."""
        best: list[int] = []
        at = self._root
        while at >= 0:
            best.insert(0, at)
            at = self.nodes[at].parent
        return Tree(tuple(self.nodes), tuple(best))

    def begin(self, state: Decoding, ends: tuple[int, ...], most: int) -> Decoding:
        """Begin at the best text so far."""
        self._rows = [self._root]
        return super().begin(state, ends, most)

    def prompted(self, ids: Sequence[int]) -> None:
        """Hear what the text follows."""
        self._check()
        self._prompted(ids)

    def change(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Take note of what the search may choose from."""
        changed = super().change(logits, ids)
        # Groups of beams come one after another: of them is not known what each may choose.
        self._open = changed > float("-inf") if len(changed) == len(self._rows) else None
        if len(self.ends) > 1:
            endings = self.state.nats[:, list(self.ends)].tolist()
            self._endings.update((n, nats) for n, nats in zip(self._rows, endings, strict=True) if n != _IDLE)
        return changed

    def chose(self, tokens: Sequence[int]) -> None:
        """Add the hypotheses that run on."""
        self._check()
        origin = self.state.origin
        nats = self.state.nats[origin, list(tokens)].tolist()
        is_open = [True] * len(tokens) if self._open is None else self._open[origin, list(tokens)].tolist()
        rows = []
        for source, token, logprob, real in zip(origin.tolist(), tokens, nats, is_open, strict=True):
            parent = self._rows[source]
            rows.append(self._node(parent, token, logprob) if real and parent != _IDLE else _IDLE)
        self._rows = rows
        step = len(self.written) + self.state.step + 1
        if step > len(self.kept):
            self._tell(Alive(step, tuple(self.nodes[n] for n in dict.fromkeys(rows) if n != _IDLE)))

    def end(self, found: Sequence[Hypothesis]) -> None:
        """Add what ended, and the last tokens of what was cut at the limit."""
        start = 0.0 if self._root < 0 else self.nodes[self._root].score
        self.before, self.found = list(self.written), list(found)
        leaves = []
        for one in found:
            at = self._root
            for token in one.ids:
                at = self._node(at, token, start + one.score - self._score(at))
            ended = one.finished and len(one.ids) < self.most
            leaves.append(self._ending(at, start + one.score - self._score(at)) if ended else at)
        self._root = leaves[0]
        best = self.nodes[self._root]
        self.end_ids = (best.id,) if best.end else ()
        super().end(found)

    def _score(self, node: int) -> float:
        return 0.0 if node < 0 else self.nodes[node].score

    def _ending(self, parent: int, logprob: float) -> int:
        """Add the end token of a text; of several, the one that has this log-probability."""
        endings = self._endings.get(parent, [logprob])
        place = min(range(len(endings)), key=lambda k: abs(endings[k] - logprob))
        return self._node(parent, self.ends[place], logprob, end=True)

    def _node(self, parent: int, token: int, logprob: float, *, end: bool = False) -> int:
        """Give the number of a token after another, which is added where it is new."""
        number = self._numbers.setdefault((parent, token), len(self.nodes))
        if number == len(self.nodes):
            step = 1 if parent < 0 else self.nodes[parent].step + 1
            text, score = shown(self._tokenizer, token), self._score(parent) + logprob
            self.nodes.append(Node(number, parent, token, text, logprob, score, step, end))
        return number


_IDLE = -2  # stands for a row of the search that nothing runs in


def shown(tokenizer: Tokenizer, token: int) -> str:
    """Name a token as a reader would see it; a model may have more of them than its tokenizer knows."""
    return tokenizer.tokens([token])[0] if token < tokenizer.vocab_size else f"[{token}]"
