"""Fill: learn to find masked tokens again, as BERT does, and put tokens where a text has masks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.denoising import Fill
from regard.data.tokenizers import Tokenizer
from regard.generate.config import check_count
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    encode_running_text,
    marks,
    need,
    small_or_large,
    text_store,
)  # fmt: skip
from regard.tasks.framing import best_windows, refuse, states
from regard.tasks.held_out import held_out_loss
from regard.tasks.inputs import Input, batches, check_lengths, make_inputs
from regard.tasks.verbs import check_verb
from regard.training.loss import IGNORED, LossSums, to_device

_SPELLINGS = r"\[MASK\]|<mask>|_{3,}"
_CONTINUES = "##"  # before the pieces of WordPiece that go on with a word


@dataclass(frozen=True)
class Filler:
    """Hold one candidate for one mask.

    Attributes:
        token: the piece as a reader sees it; a space that belongs to it stands before it.
        id: its id.
        probability: over the whole vocabulary.
        text: the whole text with it, and in the other masks' places their best candidates.
    """

    token: str
    id: int
    probability: float
    text: str


@dataclass(frozen=True)
class Filling:
    """Hold what stands in a text's masks.

    Attributes:
        text: the text with each mask's best candidate.
        masks: for each mask, in the text's order, its candidates, best first.
        tokens: how many tokens the text took, special ones included.
        windows: into how many windows it was cut; 1 where it wasn't.
    """

    text: str
    masks: tuple[tuple[Filler, ...], ...]
    tokens: int
    windows: int = 1

    def __str__(self) -> str:
        return self.text


class FillTask(Task):
    """Learn from running text with some tokens hidden."""

    name: ClassVar[str] = "fill"
    help: ClassVar[str] = "masked tokens, found again (BERT's pre-training)"
    fields: ClassVar[tuple[str, ...]] = ("text",)
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder",)
    metric: ClassVar[str] = "accuracy"
    by_time: ClassVar[dict[str, Any]] = {
        "optimizer": "muon", "lr": 2e-3, "batch_tokens": 2048, "average": "ema",
    }  # fmt: skip
    joins_documents: ClassVar[bool] = True

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        return small_or_large(
            size, {"small": "encoder-tiny", "medium": "encoder-small", "large": "encoder-medium"}, context=128
        )

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write the text as one sequence a piece; examples are cut from them at the context."""
        return encode_running_text(rows, tokenizer, config, folder, end=None)

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give windows with tokens hidden anew in every epoch."""
        bos, eos = marks(tokenizer, config)
        return Fill(
            text_store(stores), mask=need(tokenizer.mask_id, "mask token"), pad=config.pad_id or 0,
            context=config.context, bos=bos, eos=eos, specials=tokenizer.special_ids,
        )  # fmt: skip

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give the share of hidden tokens found, always the same ones, and the loss in nats for each."""
        examples = self.objective(stores, parts.tokenizer, parts.config, seed=0)
        batches = Batches(examples, tokens_per_batch=8192, shuffle=False)

        def loss(model: Any, batch: Any) -> LossSums:
            scored = batch["labels"] != IGNORED
            truths = batch["labels"][scored]
            logits = model.head(model.hidden(batch["ids"], key_mask=batch["key_mask"])[scored])
            nll = torch.nn.functional.cross_entropy(logits.float(), truths, reduction="sum")
            return LossSums(nll, nll, len(truths), (logits.argmax(-1) == truths).sum())

        most = 8 if quick else None
        found = held_out_loss(parts.module, batches, most=most, loss=loss, should_stop=should_stop)
        sample = _sample(parts, batches.batch(0, 0))
        return Evaluation({"accuracy": found["accuracy"], "nats": found["nll"]}, sample)


@torch.no_grad()
def _sample(parts: Parts, batch: Any) -> str:
    """Show the beginning of a text with its hidden tokens and what the model puts there."""
    batch = to_device(batch, parts.device)
    ids, labels = batch["ids"][0], batch["labels"][0]
    best = parts.module(batch["ids"][:1], key_mask=batch["key_mask"][:1])[0].argmax(-1)
    shown = min(40, int(batch["key_mask"][0].sum()))
    pieces = []
    for i in range(shown):
        if labels[i] == IGNORED:
            pieces += parts.tokenizer.tokens([int(ids[i])])
        else:
            guess, truth = parts.tokenizer.tokens([int(best[i]), int(labels[i])])
            pieces.append(f"[{guess}|{truth}]" if guess != truth else f"[{guess}]")
    return " ".join(pieces)


def fill(
    parts: Parts, texts: Sequence[str], *, top: int = 5, windows: bool = False, batch_tokens: int = 8192,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Filling]:  # fmt: skip
    """Find what stands in the masks of texts, as in `The cat sat on the [MASK]`.

    A mask is the model's own name of it, `[MASK]`, `<mask>` or three or more underscores, whichever is typed. Each
    mask is one token, and each is filled by itself, while all of them are hidden. What a text gives depends on it
    alone. Special tokens are never put there.

    Args:
        parts: an encoder with a head over its vocabulary, and a tokenizer with a mask token.
        texts: each with at least one mask.
        top: how many candidates each mask gets.
        windows: cut texts beyond the context into overlapping windows; each mask is filled where it has most context.
        batch_tokens: tokens in memory at once.
        on_done: told after each batch how many windows it finished.

    Raises:
        ConfigError: the model can't fill, or a setting is out of range.
        DataError: a text has no mask, or is longer than the context.
    """
    check_verb(parts.config, "fill")
    need(parts.tokenizer.mask_id, "mask token")
    check_count("top", top, low=1, high=min(1000, parts.tokenizer.vocab_size))
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    masked = _masked(parts, texts)
    inputs = make_inputs(parts, [one.ids for one in masked], windows=windows)
    refuse(_problems(parts, masked, inputs), texts)
    own: list[list[int]] = [[] for _ in texts]  # the windows of each text
    for number, one in enumerate(inputs):
        own[one.text].append(number)
    wanted: dict[Input, list[tuple[int, int]]] = {one: [] for one in inputs}  # (mask, place in the window)
    for text, numbers in enumerate(own):
        cut = [inputs[i] for i in numbers]
        for mask, token in enumerate(masked[text].places):
            one = cut[best_windows(cut, token)]
            wanted[one].append((mask, one.start + token - one.first))
    found: dict[tuple[int, int], list[tuple[int, float]]] = {}
    size = parts.tokenizer.vocab_size
    never = [*(i for i in parts.tokenizer.special_ids if i < size), *range(size, parts.config.vocab_size)]
    for batch in batches(parts, [one for one in inputs if wanted[one]], batch_tokens=batch_tokens):
        places = [(row, *what) for row, one in enumerate(batch.inputs) for what in wanted[one]]
        with torch.inference_mode():
            hidden = states(parts, batch)[[p[0] for p in places], [p[2] for p in places]]
            chances = parts.module.head(hidden).float().softmax(-1)  # type: ignore[operator]
            chances[:, never] = -1.0
            best = chances.topk(min(top, chances.shape[1]))
        for (row, mask, _), values, ids in zip(
            places, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            kept = [(i, p) for i, p in zip(ids, values, strict=True) if p >= 0]
            found[batch.inputs[row].text, mask] = kept
        on_done(len(batch.inputs))
    return [
        masked[text].filled(
            parts.tokenizer, [found[text, mask] for mask in range(len(masked[text].places))],
            inputs[numbers[0]].total, len(numbers),
        )
        for text, numbers in enumerate(own)
    ]  # fmt: skip


def find_masks(parts: Parts, text: str) -> list[tuple[int, int]]:
    """Give the characters of a text's masks, however they are spelled: [start, end) of each."""
    return [match.span() for match in _pattern(parts).finditer(text)]


def check_fill(parts: Parts, texts: Sequence[str], *, windows: bool = False) -> dict[int, str]:
    """Find the texts that `fill` would refuse: the number of each, from 0, and what is wrong with it."""
    masked = _masked(parts, texts)
    return _problems(parts, masked, make_inputs(parts, [one.ids for one in masked], windows=windows))


@dataclass(frozen=True)
class _Masked:
    """Hold a text with masks: its ids, where the masks stand in them, and the text around them."""

    ids: list[int]
    places: list[int]
    around: list[str]  # one more than the masks; without the spaces that a mask takes with it
    eaten: list[str]  # the space that each mask took

    def filled(
        self, tokenizer: Tokenizer, found: Sequence[Sequence[tuple[int, float]]], tokens: int, windows: int
    ) -> Filling:
        """Put candidates into the text."""
        bests = [candidates[0][0] for candidates in found]
        masks = []
        for mask, candidates in enumerate(found):
            chosen = []
            for i, probability in candidates:
                text = self._text(tokenizer, [*bests[:mask], i, *bests[mask + 1 :]])
                chosen.append(Filler(_piece(tokenizer, i)[0], i, probability, text))
            masks.append(tuple(chosen))
        return Filling(self._text(tokenizer, bests), tuple(masks), tokens, windows)

    def _text(self, tokenizer: Tokenizer, ids: Sequence[int]) -> str:
        text = self.around[0]
        for i, eaten, rest in zip(ids, self.eaten, self.around[1:], strict=True):
            piece, continues = _piece(tokenizer, i)
            if continues:
                text = text.rstrip()
            elif eaten and piece[:1] == " ":
                piece = eaten + piece[1:]  # the space as it was typed
            elif not text:
                piece = piece.removeprefix(" ")
            text += piece + rest
        return text


def _masked(parts: Parts, texts: Sequence[str]) -> list[_Masked]:
    """Encode texts with masks as the model saw them in training."""
    tokenizer = parts.tokenizer
    mask = need(tokenizer.mask_id, "mask token")
    special = tokenizer.special_tokens[tokenizer.roles["mask"]]
    # A mask that was made of a token with its space has taken the space.
    takes_space = special.lstrip or (parts.published is None and _has_spaced_words(tokenizer))
    split = _pattern(parts).split
    later = _later(tokenizer, own=parts.published is None)
    return [_encoded(tokenizer, split(text), mask, takes_space, special.rstrip, later) for text in texts]


def _pattern(parts: Parts) -> re.Pattern[str]:
    """Give what a mask looks like in a text."""
    need(parts.tokenizer.mask_id, "mask token")
    return re.compile(f"{re.escape(parts.tokenizer.roles['mask'])}|{_SPELLINGS}")


def _encoded(
    tokenizer: Tokenizer,
    pieces: Sequence[str],
    mask: int,
    takes_space: bool,
    takes_next: bool,
    later: Callable[[str], list[int]],
) -> _Masked:
    """Encode the pieces of a text between its masks."""
    ids: list[int] = []
    places, around, eaten = [], [], []
    for k, piece in enumerate(pieces):
        last = k == len(pieces) - 1
        kept = piece.lstrip() if k and takes_next else piece
        if takes_space and not last:
            kept = kept.rstrip()
            eaten.append(piece[len(piece.rstrip()) :])
        elif not last:
            eaten.append("")
        around.append(piece if last or not takes_space else piece.rstrip())
        if kept:
            ids += tokenizer.encode(kept) if k == 0 else later(kept)
        if not last:
            places.append(len(ids))
            ids.append(mask)
    return _Masked(ids, places, around, eaten)


def _later(tokenizer: Tokenizer, *, own: bool) -> Callable[[str], list[int]]:
    """Give the way to encode what follows a mask: as it stands in a text, without a space put before it."""
    pieces = tokenizer.tokens(tokenizer.encode_part(".", first=False))
    if not own or not "".join(pieces).startswith(" "):
        return lambda text: tokenizer.encode_part(text, first=False)

    def after_a_line(text: str) -> list[int]:
        # Ours put a space before every text, and cut at a line feed, which is then left out.
        ids, spans = tokenizer.offsets("\n" + text)
        return [i for i, (_, end) in zip(ids, spans, strict=True) if end > 1]

    return after_a_line


def _has_spaced_words(tokenizer: Tokenizer) -> bool:
    """Tell whether pieces carry the space before their word; characters and bytes don't."""
    pieces = (tokenizer.tokens([i])[0] for i in range(tokenizer.vocab_size))
    return any(len(piece) > 1 and piece[0] == " " and piece[1].isalnum() for piece in pieces)


def _piece(tokenizer: Tokenizer, index: int) -> tuple[str, bool]:
    """Give a piece as a reader sees it, and whether it goes on with the word before it."""
    piece = tokenizer.tokens([index])[0]
    return piece, tokenizer.id_to_token(index) == _CONTINUES + piece


def _problems(parts: Parts, masked: Sequence[_Masked], inputs: Sequence[Input]) -> dict[int, str]:
    none = {i: "has no mask; write [MASK], <mask> or ___ where a word is missing."
            for i, one in enumerate(masked) if not one.places}  # fmt: skip
    return {**check_lengths(inputs, parts.config), **none}
