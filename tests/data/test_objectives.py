"""The objectives: each batch says exactly what is asked of the model, and nothing mixes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.data import corruption
from regard.data.batches import Batches
from regard.data.objectives import (
    Classify,
    DenoiseBART,
    DenoiseT5,
    Fill,
    Generate,
    Tag,
    Translate,
)
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError

PAD, BOS, EOS, MASK, VOCAB = 0, 1, 2, 4, 60
MARKS = {"pad": PAD, "eos": EOS}
SENTINELS = [50, 51, 52, 53, 54]
SEQUENCES = st.lists(st.lists(st.integers(5, 49), max_size=12), min_size=1, max_size=8).filter(any)


def store(sequences: list[list[int]]) -> TokenStore:
    return TokenStore.of(sequences, VOCAB)


def drawn(number: int, longest: int = 12, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 50, rng.integers(1, longest + 1)).tolist() for _ in range(number)]


def everything(objective: Any, *, seed: int = 0, epoch: int = 0) -> dict[str, Any]:
    count = len(objective.lengths(seed, epoch))
    batch = objective.collate(np.arange(count), seed=seed, epoch=epoch)
    for name, value in batch.items():
        assert name == "tokens" or isinstance(value, torch.Tensor)
        assert name == "tokens" or value.dtype == (torch.bool if name.endswith("mask") else torch.int64)
    return batch


def real(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    assert bool((mask[:, :-1] >= mask[:, 1:]).all())  # padded on the right only
    assert bool((ids[~mask] == PAD).all())
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


@given(
    pairs=st.lists(
        st.tuples(st.lists(st.integers(5, 49), max_size=6), st.lists(st.integers(5, 49), max_size=6)),
        min_size=1,
    )
)
def test_translate(pairs: list[tuple[list[int], list[int]]]) -> None:
    objective = Translate(store([s for s, _ in pairs]), store([t for _, t in pairs]), bos=BOS, **MARKS)
    batch = everything(objective)
    assert real(batch["source"], batch["source_mask"]) == [[*s, EOS] for s, _ in pairs]
    assert real(batch["target_in"], batch["target_mask"]) == [[BOS, *t] for _, t in pairs]
    scored = batch["target_out"] != -100
    assert torch.equal(scored, batch["target_mask"])
    assert [row[keep].tolist() for row, keep in zip(batch["target_out"], scored, strict=True)] == [
        [*t, EOS] for _, t in pairs
    ]
    assert batch["tokens"] == sum(len(t) + 1 for _, t in pairs)
    assert objective.lengths(0, 0).tolist() == [[len(s) + 1, len(t) + 1] for s, t in pairs]
    assert batch["index"].tolist() == list(range(len(pairs)))


def test_too_long_is_an_error_or_asked_for() -> None:
    """Faults, row 12: text longer than the context is never cut in silence."""
    sequences = [[5], [5] * 9, [5, 5], [5] * 7]
    labels = [0, 1, 0, 1]
    made = {
        "translate": lambda **s: Translate(store(sequences), store(sequences), bos=BOS, **MARKS, **s),
        "classify": lambda **s: Classify(store(sequences), labels, **MARKS, **s),
        "tag": lambda **s: Tag(
            store(sequences), store([[0] * len(q) for q in sequences]), store(sequences), **MARKS, **s
        ),
    }
    for make in made.values():
        with pytest.raises(
            DataError, match=r"example 2 has 10 tokens .* 2 of 4 .* context of 5; make the context 10"
        ):
            make(context=5)
        objective = make(context=5, skip_long=True)
        assert objective.skipped == 2
        assert everything(objective)["index"].tolist() == [0, 2]
        assert everything(make(context=10))["index"].tolist() == [0, 1, 2, 3]
        with pytest.raises(DataError, match="no examples within the context of 1"):
            make(context=1, skip_long=True)


def test_what_does_not_belong_together() -> None:
    one, two = store([[5]]), store([[5], [6]])
    with pytest.raises(DataError, match="1 sources but 2 targets"):
        Translate(one, two, bos=BOS, **MARKS)
    with pytest.raises(DataError, match="1 texts but 2 labels"):
        Classify(one, [0, 1], pad=PAD)
    with pytest.raises(DataError, match="do not belong"):
        Tag(one, store([[0, 0]]), one, pad=PAD)
    with pytest.raises(DataError, match="more words than tags"):
        everything(Tag(store([[5, 6]]), store([[0, 1]]), store([[3]]), pad=PAD))


# -------------------------------------------------------------------------------------------------- generate


@given(sequences=SEQUENCES, context=st.integers(1, 9), epoch=st.integers(0, 9), phase=st.booleans())
def test_every_token_but_the_first_is_predicted_once(
    sequences: list[list[int]], context: int, epoch: int, phase: bool
) -> None:
    stream = [i for s in sequences for i in s]
    if len(stream) < 2:
        return
    objective = Generate(store(sequences), context=context, pad=PAD, random_phase=phase)
    batch = everything(objective, epoch=epoch)
    assert set(batch) == {"ids", "labels", "tokens", "index"}
    scored = batch["labels"] != -100
    assert batch["labels"][scored].tolist() == stream[1:]
    assert batch["ids"][scored].tolist() == stream[:-1]
    assert batch["tokens"] == len(stream) - 1
    assert objective.lengths(0, epoch).tolist() == scored.sum(1).tolist()
    assert objective.lengths(0, epoch).max() <= context and objective.lengths(0, epoch).min() >= 1
    assert bool((batch["ids"][~scored] == PAD).all())


def test_windows_begin_elsewhere_in_each_epoch() -> None:
    objective = Generate(store([list(range(5, 50)) * 10]), context=32, pad=PAD)
    first = {int(objective.lengths(0, epoch)[0]) for epoch in range(20)}
    assert len(first) > 5
    fixed = Generate(store([list(range(5, 50)) * 10]), context=32, pad=PAD, random_phase=False)
    assert {int(fixed.lengths(0, epoch)[0]) for epoch in range(20)} == {32}


@given(sequences=SEQUENCES, context=st.integers(1, 20), with_bos=st.booleans(), epoch=st.integers(0, 3))
def test_packed_documents_never_mix(
    sequences: list[list[int]], context: int, with_bos: bool, epoch: int
) -> None:
    start = [BOS] if with_bos else []
    documents = [start + s for s in sequences]
    # Each document has its own tokens, so that one can tell where a token comes from.
    documents = [
        [i if i == BOS else 5 + 12 * d + k for k, i in enumerate(s)] for d, s in enumerate(documents)
    ]
    plain = [d[1:] if with_bos else d for d in documents]
    if not any(len(d) > 1 for d in documents):
        return
    objective = Generate(
        TokenStore.of(plain, 200), context=context, pad=PAD, packed=True, bos=BOS if with_bos else None
    )
    batch = everything(objective, epoch=epoch)
    ids, labels, numbers, positions = (batch[k] for k in ("ids", "labels", "documents", "positions"))
    assert ids.shape[1] <= context
    found: list[tuple[int, ...]] = []
    for row in range(len(ids)):
        inside = numbers[row] >= 0
        assert torch.equal(inside, labels[row] != -100)
        assert bool((ids[row][~inside] == PAD).all()) and bool((positions[row][~inside] == 0).all())
        used = numbers[row][inside].unique_consecutive().tolist()
        assert used == list(range(len(used)))
        for number in used:
            here = numbers[row] == number
            size = int(here.sum())
            assert positions[row][here].tolist() == list(range(size))
            inputs, targets = ids[row][here].tolist(), labels[row][here].tolist()
            assert inputs[1:] == targets[:-1]
            # All of a piece comes from one document, in order and without a gap.
            source = next(d for d in documents if targets[-1] in d[1:])
            place = source.index(targets[-1])
            assert source[place - size + 1 : place + 1] == targets
            assert source[place - size : place] == inputs
            assert size == context or place == len(source) - 1
            found += [(t,) for t in targets]
    assert sorted(t for (t,) in found) == sorted(t for d in documents for t in d[1:])
    assert batch["tokens"] == len(found)
    assert objective.lengths(0, epoch).tolist() == (numbers >= 0).sum(1).tolist()


def test_packing_draws_anew_in_each_epoch() -> None:
    objective = Generate(store(drawn(50)), context=16, pad=PAD, packed=True)
    first, again, second = (Batches(objective, batch_size=4).batch(e, 0)["ids"].tolist() for e in (0, 0, 1))
    assert first == again != second
    fixed = Generate(store(drawn(50)), context=16, pad=PAD, packed=True, random_phase=False)
    assert everything(fixed)["ids"][0].tolist() == everything(fixed, epoch=1)["ids"][0].tolist()


def test_nothing_to_generate() -> None:
    for packed, sequences in ((False, [[5]]), (False, [[]]), (True, [[5], [6], []])):
        with pytest.raises(DataError, match="nothing to predict"):
            Generate(store(sequences), context=4, pad=PAD, packed=packed)
    with pytest.raises(ConfigError, match="context=0"):
        Generate(store([[5, 6]]), context=0, pad=PAD)
    with pytest.raises(ConfigError, match="bos has no effect"):
        Generate(store([[5, 6]]), context=4, pad=PAD, bos=BOS)


# ---------------------------------------------------------------------------------------------- denoising


@given(sequences=SEQUENCES, marked=st.booleans(), epoch=st.integers(0, 3))
def test_fill_asks_only_for_what_it_hid(sequences: list[list[int]], marked: bool, epoch: int) -> None:
    marks = {"bos": BOS, "eos": EOS} if marked else {}
    settings = {"mask": MASK, "pad": PAD, "context": 8, "specials": range(5), **marks}
    batch = everything(Fill(store(sequences), **settings), epoch=epoch)
    room = 8 - len(marks)
    windows = [s[k : k + room] for s in sequences for k in range(0, len(s), room)]
    hidden = batch["labels"] != -100
    restored = torch.where(hidden, batch["labels"], batch["ids"])
    expected = [[BOS, *w, EOS] if marked else w for w in windows]
    assert [row[keep].tolist() for row, keep in zip(restored, batch["key_mask"], strict=True)] == expected
    assert bool((hidden.sum(1) >= 1).all())
    assert not bool((hidden & ~batch["key_mask"]).any())
    assert not bool(torch.isin(batch["labels"][hidden], torch.tensor([PAD, BOS, EOS, MASK])).any())
    assert batch["tokens"] == int(hidden.sum())


def test_fill_hides_the_shares_of_the_paper() -> None:
    objective = Fill(
        store([drawn(1, 100, seed=k)[0] * 50 for k in range(20)]),
        mask=MASK,
        pad=PAD,
        context=64,
        specials=range(5),
    )
    batch = everything(objective)
    hidden = batch["labels"] != -100
    share = hidden.sum() / batch["key_mask"].sum()
    masked = (batch["ids"][hidden] == MASK).float().mean()
    kept = (batch["ids"][hidden] == batch["labels"][hidden]).float().mean()
    assert abs(float(share) - 0.15) < 0.01
    assert abs(float(masked) - 0.8) < 0.03
    assert abs(float(kept) - 0.1) < 0.03
    assert not bool(torch.isin(batch["ids"][hidden], torch.arange(4)).any())


@given(
    ids=st.lists(st.integers(5, 49), max_size=40),
    share=st.floats(0.05, 0.95),
    spans=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_spans_put_back_give_the_text(ids: list[int], share: float, spans: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sentinels = SENTINELS[:spans]
    kept, left_out = corruption.corrupt_spans(
        np.array(ids, np.int64), rng, sentinels=sentinels, share=share, mean_span=3.0
    )
    pieces: dict[int, list[int]] = {}
    for i in left_out.tolist():
        if i in sentinels:
            current = pieces.setdefault(i, [])
        else:
            current.append(i)
    assert left_out[-1] in sentinels and not pieces[int(left_out[-1])]
    assert all(pieces[i] for i in kept.tolist() if i in sentinels)
    assert [j for i in kept.tolist() for j in (pieces[i] if i in sentinels else [i])] == ids
    used = [i for i in kept.tolist() if i in sentinels]
    assert used == sentinels[: len(used)] and list(pieces) == sentinels[: len(used) + 1]
    places = [k for k, i in enumerate(kept.tolist()) if i in sentinels]
    assert all(b - a > 1 for a, b in pairwise(places))  # spans do not touch


@given(sequences=SEQUENCES, context=st.integers(2, 20), sentinels=st.integers(2, 5))
def test_t5_lengths_are_exact(sequences: list[list[int]], context: int, sentinels: int) -> None:
    objective = DenoiseT5(
        store(sequences), sentinels=SENTINELS[:sentinels], start=PAD, context=context, **MARKS
    )
    batch = everything(objective)
    sizes = torch.stack([batch["source_mask"].sum(1), batch["target_mask"].sum(1)], dim=1)
    assert sizes.tolist() == objective.lengths(0, 0).tolist()
    for line, keep in zip(batch["target_out"], batch["target_mask"], strict=True):
        assert line[keep][-1] == EOS
    assert bool((batch["target_in"][:, 0] == PAD).all())
    assert torch.equal(batch["target_in"][:, 1:][batch["target_mask"][:, 1:]],
                       batch["target_out"][:, :-1][batch["target_mask"][:, 1:]])  # fmt: skip
    assert batch["tokens"] == int(batch["target_mask"].sum())


def test_t5_leaves_out_the_share_of_the_paper() -> None:
    ids = np.arange(100_000) % 45 + 5
    kept, left_out = corruption.corrupt_spans(
        ids, np.random.default_rng(0), sentinels=range(100, 20_000), share=0.15, mean_span=3.0
    )
    assert (kept < 100).sum() == 85_000 and (left_out < 100).sum() == 15_000
    assert (kept >= 100).sum() == 5_000


@given(sequences=SEQUENCES, context=st.integers(2, 20), ends=st.sampled_from([(), (5, 6, 7)]))
def test_bart_asks_for_the_clean_text(
    sequences: list[list[int]], context: int, ends: tuple[int, ...]
) -> None:
    objective = DenoiseBART(
        store(sequences), mask=MASK, start=EOS, context=context, sentence_ends=ends, **MARKS
    )
    batch = everything(objective)
    room = context - 1
    windows = [s[k : k + room] for s in sequences for k in range(0, len(s), room)]
    assert real(batch["target_in"], batch["target_mask"]) == [[EOS, *w] for w in windows]
    sources = real(batch["source"], batch["source_mask"])
    limits = objective.lengths(0, 0)
    for source, window, limit in zip(sources, windows, limits, strict=True):
        assert source[-1] == EOS and MASK in source
        assert len(source) <= limit[0] and len(window) + 1 <= limit[1]
        kept = [i for i in source[:-1] if i != MASK]
        assert sorted(kept) == sorted(set(kept)) or all(kept.count(i) <= window.count(i) for i in kept)
        if not ends:
            remaining = iter(window)
            assert all(i in remaining for i in kept)  # in the same order


def test_bart_masks_the_share_of_the_paper() -> None:
    ids = np.arange(100_000) % 45 + 5
    noisy = corruption.infill(ids, np.random.default_rng(0), mask=MASK, share=0.3, mean_span=3.0)
    assert (noisy != MASK).sum() == 70_000
    assert abs((noisy == MASK).sum() - 10_000) < 500


@given(ids=st.lists(st.integers(5, 9), max_size=20), seed=st.integers(0, 9))
def test_sentences_change_places_whole(ids: list[int], seed: int) -> None:
    def sentences(sequence: list[int]) -> list[list[int]]:
        parts: list[list[int]] = [[]]
        for i in sequence:
            parts[-1].append(i)
            if i == 5:
                parts.append([])
        return sorted(p for p in parts if p)

    array = np.array(ids, np.int64)
    shuffled = corruption.permute_sentences(array, np.random.default_rng(seed), ends=[5]).tolist()
    assert sorted(shuffled) == sorted(ids)
    if not ids or ids[-1] == 5:  # otherwise the last one may run into its neighbour
        assert sentences(shuffled) == sentences(ids)


def test_noise_settings_that_cannot_be() -> None:
    one = store([[5, 6]])
    for make, reason in (
        (lambda: Fill(one, mask=MASK, pad=PAD, context=8, probability=0), "probability=0"),
        (lambda: Fill(one, mask=MASK, pad=PAD, context=2, bos=BOS, eos=EOS), "context=2 leaves no room"),
        (lambda: Fill(one, mask=MASK, pad=PAD, context=2, specials=range(VOCAB)), "no ordinary tokens"),
        (lambda: DenoiseT5(one, sentinels=[9], start=0, context=8, **MARKS), "1 sentinels"),
        (lambda: DenoiseT5(one, sentinels=SENTINELS, start=0, context=8, share=1.0, **MARKS), "share=1.0"),
        (lambda: DenoiseBART(one, mask=MASK, start=0, context=8, mean_span=0.5, **MARKS), "mean_span=0.5"),
    ):
        with pytest.raises(ConfigError, match=reason):
            make()
    with pytest.raises(DataError, match="every document is empty"):
        Fill(store([[]]), mask=MASK, pad=PAD, context=8)


# ------------------------------------------------------------------------------------------- encoder tasks


@pytest.mark.parametrize("marks", [{}, {"bos": BOS, "eos": EOS}])
def test_classify(marks: dict[str, int]) -> None:
    sequences = [[5, 6, 7], [8], []] if marks else [[5, 6, 7], [8]]
    batch = everything(Classify(store(sequences), [2, 0, 1][: len(sequences)], pad=PAD, **marks))
    assert batch["labels"].tolist() == [2, 0, 1][: len(sequences)]
    assert batch["tokens"] == len(sequences)
    expected = [[BOS, *s, EOS] if marks else s for s in sequences]
    assert real(batch["ids"], batch["key_mask"]) == expected


@pytest.mark.parametrize("marks", [{}, {"bos": BOS, "eos": EOS}])
def test_tags_stand_on_first_pieces(marks: dict[str, int]) -> None:
    words = [["walking", "home"], ["a", "longer", "sentence"]]
    tags = [[3, 1], [0, 2, 0]]
    tokenizer = Tokenizer.train(["walking home a longer sentence"], kind="char")
    encoded = [tokenizer.encode_words(w) for w in words]
    objective = Tag(
        TokenStore.of([ids for ids, _ in encoded], tokenizer.vocab_size),
        TokenStore.of([numbers for _, numbers in encoded], 1 << 16),
        TokenStore.of(tags, 4),
        pad=PAD,
        **marks,
    )
    batch = everything(objective)
    shift = len(marks) // 2
    for row, (ids, numbers) in enumerate(encoded):
        labels = batch["labels"][row].tolist()
        expected = [tags[row][n] if k == 0 or numbers[k - 1] != n else -100 for k, n in enumerate(numbers)]
        assert labels[shift : shift + len(ids)] == expected
        assert set(labels[:shift] + labels[shift + len(ids) :]) <= {-100}
    assert batch["tokens"] == 5


# ----------------------------------------------------------------------------------- what all have in common


def objectives() -> dict[str, Any]:
    data = store(drawn(40))
    return {
        "translate": Translate(data, store(drawn(40, seed=1)), bos=BOS, **MARKS),
        "windows": Generate(data, context=16, pad=PAD),
        "packed": Generate(data, context=16, pad=PAD, packed=True, bos=BOS),
        "fill": Fill(data, mask=MASK, pad=PAD, context=16, specials=range(5)),
        "t5": DenoiseT5(data, sentinels=SENTINELS, start=PAD, context=16, **MARKS),
        "bart": DenoiseBART(data, mask=MASK, start=EOS, context=16, sentence_ends=[5], **MARKS),
        "classify": Classify(data, [0] * 40, pad=PAD),
        "tag": Tag(data, store([list(range(len(s))) for s in data]), data, pad=PAD),
    }


@pytest.mark.parametrize("name", list(objectives()))
def test_a_batch_depends_on_seed_epoch_and_number_alone(name: str) -> None:
    one, two = (Batches(objectives()[name], tokens_per_batch=100, seed=3) for _ in range(2))
    two.batch(0, 1)
    for k, batch in enumerate(two.iterate(5, 1), 1):
        same = one.batch(5, k)
        assert set(batch) == set(same)
        for key, value in batch.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(same[key]))


@pytest.mark.parametrize("name", list(objectives()))
def test_an_example_is_the_same_in_any_batch(name: str) -> None:
    """Noise belongs to the example, not to its neighbours or its place."""
    objective = objectives()[name]
    number = len(objective.lengths(0, 0))
    together = objective.collate(np.arange(number), seed=0, epoch=0)
    for k in (0, number // 2, number - 1):
        alone = objective.collate(np.array([k]), seed=0, epoch=0)
        for key, value in alone.items():
            if key != "tokens":
                row = together[key][k]
                assert torch.equal(row[: value.shape[1]] if value.ndim == 2 else row[None], value.reshape(-1))


@pytest.mark.parametrize("name", list(objectives()))
def test_lengths_bound_what_comes(name: str) -> None:
    objective = objectives()[name]
    costs = objective.lengths(0, 2)
    for k in range(len(costs)):
        batch = objective.collate(np.array([k]), seed=0, epoch=2)
        if costs.ndim == 2:
            assert batch["source"].shape[1] <= costs[k][0] and batch["target_in"].shape[1] <= costs[k][1]
        else:
            assert batch["ids"].shape[1] == costs[k]


@pytest.mark.parametrize("name", ["fill", "t5", "bart"])
def test_noise_is_drawn_anew_in_each_epoch_and_for_each_seed(name: str) -> None:
    objective = objectives()[name]
    key = "ids" if name == "fill" else "source"
    first, second, other = (
        everything(objective, seed=s, epoch=e)[key].tolist() for s, e in ((0, 0), (0, 1), (1, 0))
    )
    assert first != second and first != other
