"""Write step by step: what a model said at each token, what else it might have said, and the tree of a beam search.

The verbs themselves write, and a watcher sees their searches: so the text is the one that they give, for the same
settings and seed. Tokens that a reader has chosen come first, and the text goes on from there.

    write ─> translate, summarize, generate or chat ─> search ─> watcher ─> tell(Prompt | Token | Alive | Tree)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.generate.config import Decoding, Hypothesis, check_count
from regard.generate.watch import Rows, Watcher, watching
from regard.look.places import attention_depths
from regard.tasks.base import Parts
from regard.tasks.steps_call import TOKENS, Call, Piece
from regard.tasks.steps_tree import Alive, Node, Tree, TreeWatcher, shown
from regard.tasks.translate import Candidate
from regard.tasks.writing import Writer

__all__ = [
    "Alive", "Choice", "Event", "Next", "Node", "Piece", "Prompt", "Token", "Tree", "Written", "next_token", "write",
]  # fmt: skip

_MOST_SEEN = 2**20  # weights that are told at one step
_TOP = 50


@dataclass(frozen=True)
class Prompt:
    """Hold what a text is written from: the tokens of the source or prompt, as the model reads them."""

    tokens: tuple[Piece, ...]


@dataclass(frozen=True)
class Choice:
    """Name a token that may come next, with its log-probability by the model: before temperature and filters."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, eq=False)
class Token:
    """Hold one token of a text that is being written.

    Attributes:
        id: what was chosen.
        text: its piece, as a reader would see it; a special one has its name.
        logprob: by the model, before temperature and filters; nats.
        alternatives: the likeliest tokens at this step, likeliest first; the chosen one may be among them.
        seen: (L, H, S), what the step attended to: each layer and head from the newest token to the source, or to the
            text so far, itself the last; None where it wasn't asked for.
        layers: the layers of `seen`.
        first: the column at which `seen` begins, in the tokens of the prompt and the text; above 0 in later windows.
        delta: text that is certain by now and was not before; of the end token, what was held back before it.
        kept: whether it was given, and not chosen here.
        end: whether it ends the text, of which it is no part.
    """

    id: int
    text: str
    logprob: float
    alternatives: tuple[Choice, ...]
    seen: Float[Tensor, "L H S"] | None
    layers: tuple[str, ...]
    first: int
    delta: str
    kept: bool
    end: bool


@dataclass(frozen=True)
class Written:
    """Hold a whole text, with that of the kept tokens.

    Attributes:
        text: as the verb gives it.
        score: as the verb gives it: a decoder's is the log-probability, an encoder-decoder's is divided by its length
            to the power of the length penalty; nats.
        tokens: how many were written, with the end token.
        prompt_tokens: how many the prompt or the source took.
        finished: True where the end token ended it, False where the limit did.
        candidates: of a beam search all that it found, the best first; else the text alone.
        ids: the tokens, without an end token.
        rest: what was held back until the limit ended the text, and follows the last token's `delta`.
        seed: of a sample; None where nothing was drawn.
        windows: 1, or more where a continuation outgrew the context and went on from its last half.
        dropped: how many of a conversation's oldest messages were left out for want of room.
    """

    text: str
    score: float
    tokens: int
    prompt_tokens: int
    finished: bool
    candidates: tuple[Candidate, ...]
    ids: tuple[int, ...]
    rest: str
    seed: int | None
    windows: int
    dropped: int


@dataclass(frozen=True, eq=False)
class Next:
    """Hold the distribution of the next token.

    Attributes:
        logprobs: (V,) by the model, before temperature and filters.
        top: the likeliest tokens, likeliest first.
        never: the tokens that no search would choose here: special ones, and what a decoding forbids.
    """

    logprobs: Float[Tensor, " V"]
    top: tuple[Choice, ...]
    never: tuple[int, ...] = ()


Event = Prompt | Token | Alive | Tree


def write(
    parts: Parts,
    verb: str,
    text: str | Sequence[Mapping[str, Any]],
    *,
    kept: Sequence[int] = (),
    alternatives: int = 5,
    attention: bool = False,
    tell: Callable[[Event], None] = lambda event: None,
    check: Callable[[], None] = lambda: None,
    **settings: Any,
) -> Written:
    """Write one text and tell each step: what the prompt is made of, then each token as soon as it is chosen.

    With beams the search tells its hypotheses at each step and its tree, and then the tokens of the best text.

    Args:
        parts: a model and its tokenizer.
        verb: translate, summarize, generate or chat.
        text: the source or prompt; for chat the messages.
        kept: ids that the text begins with; the last may be an end token, no other.
        alternatives: how many of the likeliest tokens are told at each step.
        attention: tell what each step attends to, see `Token.seen`.
        tell: is called with each event.
        check: is called before each step; what it raises ends the work.
        settings: of the verb: beams (1 where it isn't given), length_penalty, max_tokens (the kept tokens counted),
            source_language and target_language, temperature, top_k, top_p, min_p, seed; None leaves one out. Where
            the kept tokens are those that the search would have taken, greedily or with this seed, it gives what it
            would have given without them.

    Raises:
        ConfigError: the model can't do this, a setting is out of range or would be ignored, a kept token is not in the
            vocabulary, or the attention of each step is too large to be told.
        DataError: the text is longer than the context.
    """
    check_count("alternatives", alternatives, low=0, high=1000)
    if attention and not attention_depths(parts.config):
        raise ConfigError("this model is recurrent and has no attention to tell; leave attention out.")
    call = Call.of(parts, verb, text, settings, kept)
    scribe = _Scribe(call, alternatives, attention, tell, check)
    if call.reads:
        scribe.prompted(call.source())
    told, tree = _Steps(scribe, kept, len(kept)), None
    if call.beams > 1:
        tree = TreeWatcher(parts.tokenizer, kept, prompted=scribe.prompted, tell=tell, check=check)
        with watching(tree):
            result = call()
        if tree.nodes:
            tell(tree.tree)
        # Its best text is read again, alone, for what each of its steps saw.
        told = _Steps(scribe, (*tree.written, *tree.end_ids), len(kept))
        call = call.greedy()
    with watching(told):
        again = call()
    if tree is None:
        result = again
    candidates = [Candidate(result.text, result.score)]
    if tree is not None and tree.found:
        texts = [call.decode([*tree.before, *one.ids], scribe.prompt) for one in tree.found]
        candidates = [Candidate(text, one.normalised) for text, one in zip(texts, tree.found, strict=True)]
    count = result.source_tokens if call.reads else result.prompt_tokens
    return Written(
        result.text, result.score, result.tokens, count, result.finished,
        tuple(candidates), tuple(told.written), scribe.finish(), call.seed,
        getattr(result, "windows", 1), getattr(result, "dropped", 0),
    )  # fmt: skip


def next_token(
    parts: Parts,
    verb: str,
    text: str | Sequence[Mapping[str, Any]],
    *,
    kept: Sequence[int] = (),
    check: Callable[[], None] = lambda: None,
    **settings: Any,
) -> Next:
    """Give what the model says of the token after the kept ones; the settings are those of `write`.

    Raises:
        ConfigError: as `write`; or nothing can come next: the kept tokens end the text, or are as many as it may have.
        DataError: the text is longer than the context, or empty where nothing is written from it.
    """
    if verb == "generate":  # the limit changes nothing of what is asked
        settings["max_tokens"] = max(settings.get("max_tokens") or TOKENS, len(kept) + 1)
    call = Call.of(parts, verb, text, settings, kept).greedy()
    try:
        with watching(_Asked(kept, check)):
            call()
    except _Told as told:
        nats = told.logprobs
        return Next(nats, _likeliest(parts.tokenizer, nats, _TOP), told.never)
    raise ConfigError("nothing comes next: the text is empty, or it ends with the kept tokens; keep fewer.")


class _Scribe:
    """Put steps into words, and tell them."""

    def __init__(
        self, call: Call, alternatives: int, attention: bool, tell: Callable[[Event], None],
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self.call, self.alternatives, self.check = call, alternatives, check
        self._tell = tell
        self.rows = Rows("cross." if call.reads else "decoder.") if attention else None
        self.prompt: list[int] = []
        self._delta, self._writer = "", Writer(call.parts.tokenizer, (), self._hear)

    def prompted(self, ids: Sequence[int]) -> None:
        """Tell the prompt or the source, once."""
        if self.prompt:
            return
        self.prompt = list(ids)
        if self.call.verb == "generate":
            self._writer = Writer(self.call.parts.tokenizer, (), self._hear, ids)
        self._tell(Prompt(self.call.pieces(ids)))

    def step(self, token: int, nats: Tensor, watcher: Watcher, *, kept: bool, end: bool) -> None:
        """Tell one step."""
        tokenizer, led = self.call.parts.tokenizer, watcher.state
        self._delta = ""
        if end:
            self._writer.finish()
        else:
            self._writer.add(token)
        seen = led.seen
        size = 0 if self.rows is None or self.call.reads else len(led.prompt) + led.step
        total = len(self.prompt) + len(watcher.written) + led.step
        self._tell(
            Token(
                token, shown(tokenizer, token), float(nats[token]), _likeliest(tokenizer, nats, self.alternatives),
                seen, () if seen is None or self.rows is None else self.rows.layers,
                total - size if size else 0, self._delta, kept, end,
            )
        )  # fmt: skip

    def finish(self) -> str:
        """Give what was held back."""
        self._delta = ""
        self._writer.finish()
        return self._delta

    def _hear(self, text: str) -> None:
        self._delta += text


class _Steps(Watcher):
    """Tell a search of one row; the first `given` of the tokens that lead it are the reader's."""

    def __init__(self, scribe: _Scribe, kept: Sequence[int], given: int) -> None:
        super().__init__(kept, rows=scribe.rows)
        self._scribe, self._given, self._score = scribe, given, 0.0

    def begin(self, state: Decoding, ends: tuple[int, ...], most: int) -> Decoding:
        """Refuse what would be cut, or is too much to tell."""
        call = self._scribe.call
        if call.verb != "generate" and len(self.kept) > most:
            raise ConfigError(
                f"{len(self.kept)} tokens are kept, and at most {most} are written; keep fewer."
            )
        self._score = 0.0
        return super().begin(state, ends, most)

    def prompted(self, ids: Sequence[int]) -> None:
        """Tell what the text follows."""
        self._scribe.check()
        call = self._scribe.call
        if self.rows is not None:
            config = call.parts.config
            layers = config.num_layers if not call.reads else config.num_decoder_layers or config.num_layers
            columns = len(self._scribe.prompt) if call.reads else len(ids) + self.most - 1
            if layers * config.num_heads * columns > _MOST_SEEN:
                raise ConfigError(
                    f"{layers} layers of {config.num_heads} heads to {columns} tokens are too many to tell at every "
                    "step; write without the attention, or look at the whole text afterwards."
                )
        if not call.reads:
            self._scribe.prompted(ids)

    def chose(self, tokens: Sequence[int]) -> None:
        """Tell a token before it is read."""
        self._scribe.check()
        self._step(tokens[0])

    def end(self, found: Sequence[Hypothesis]) -> None:
        """Tell the last token, which is never read, or the end token."""
        best = found[0]
        if len(best.ids) > self.state.step:
            self._step(best.ids[-1])
        else:
            nats = self.state.nats[0]
            last = best.score - self._score
            near = min(self.ends, key=lambda token: abs(float(nats[token]) - last))
            self._step(near if self.state.coming is None else self.state.coming, end=True)
        super().end(found)

    def _step(self, token: int, *, end: bool = False) -> None:
        nats = self.state.nats[0]
        self._score += float(nats[token])
        kept = len(self.written) + self.state.step < self._given
        self._scribe.step(token, nats, self, kept=kept, end=end)


class _Told(Exception):  # noqa: N818 - an answer, more than an error
    """Carry a distribution out of a search, which ends there."""

    def __init__(self, logprobs: Tensor, never: tuple[int, ...]) -> None:
        super().__init__()
        self.logprobs, self.never = logprobs, never


class _Asked(Watcher):
    """End a search where its kept tokens end."""

    def __init__(self, kept: Sequence[int], check: Callable[[], None]) -> None:
        super().__init__(kept)
        self._check = check

    def prompted(self, ids: Sequence[int]) -> None:
        """Go on only while somebody asks."""
        self._check()

    def chose(self, tokens: Sequence[int]) -> None:
        """Go on only while somebody asks."""
        self._check()

    def change(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Give the model's own distribution, at the first step that is free."""
        if self.state.coming is None and len(self.written) + self.state.step >= len(self.kept):
            never = (logits[0] == float("-inf")).nonzero().flatten().tolist()
            raise _Told(self.state.nats[0].cpu(), tuple(never))
        return super().change(logits, ids)


def _likeliest(tokenizer: Tokenizer, nats: Tensor, count: int) -> tuple[Choice, ...]:
    top = nats.topk(min(count, len(nats)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(Choice(token, shown(tokenizer, token), value) for token, value in pairs)
