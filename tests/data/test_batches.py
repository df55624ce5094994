"""Token files and batches: exact on disk, every example once an epoch, each batch a pure function of its number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.data import packing
from regard.data.batches import Batches
from regard.data.objectives import Translate
from regard.data.store import TokenStore
from regard.errors import ConfigError, DataError


def lengths_of(number: int, *, columns: int = 1, seed: int = 0) -> np.ndarray:
    """Draw lengths as sentences have them: most of them short, few long."""
    rng = np.random.default_rng(seed)
    drawn = np.clip(np.round(rng.lognormal(2.8, 0.5, (number, columns))), 1, 200).astype(np.int64)
    if columns == 2:  # translations are about as long as what they translate
        drawn[:, 1] = np.clip(np.round(drawn[:, 0] * rng.normal(1.0, 0.2, number)), 1, 300)
    return drawn if columns == 2 else drawn[:, 0]


def collate(index: np.ndarray, *, seed: int, epoch: int) -> dict[str, Any]:
    return {"index": torch.from_numpy(np.array(index)), "about": (seed, epoch)}


def batches(lengths: np.ndarray, **settings: Any) -> Batches:
    return Batches(None, **({"collate": collate, "lengths": lengths, "tokens_per_batch": 400} | settings))


# ---------------------------------------------------------------------------------------------- token files


@given(
    sequences=st.lists(st.lists(st.integers(0, 299), max_size=9), max_size=9),
    vocab_size=st.sampled_from([300, 1 << 16, (1 << 16) + 1, 1 << 20]),
)
def test_what_is_written_is_read(
    sequences: list[list[int]], vocab_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "a.tokens"
    for store in (TokenStore.write(path, iter(sequences), vocab_size), TokenStore.of(sequences, vocab_size)):
        assert len(store) == len(sequences)
        assert [s.tolist() for s in store] == sequences
        assert store.lengths.tolist() == [len(s) for s in sequences]
        assert store.lengths.dtype == store.offsets.dtype == np.int64
        assert store.flat.tolist() == [i for s in sequences for i in s]
        assert store.flat.dtype == (np.uint16 if vocab_size <= 1 << 16 else np.uint32)
        assert store.vocab_size == vocab_size
    assert [p.name for p in path.parent.iterdir()] == ["a.tokens"]


def test_the_file_is_mapped_not_read(tmp_path: Path) -> None:
    store = TokenStore.write(tmp_path / "a", [[1, 2], np.array([3])], 10)
    assert isinstance(store.flat, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.flat[0] = 5
    assert store[-1].tolist() == [3]
    with pytest.raises(IndexError):
        store[2]


def test_writing_goes_by_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.data.store.FLUSH_IDS", 4)
    sequences = [[k] * (k % 5) for k in range(40)]
    assert [s.tolist() for s in TokenStore.write(tmp_path / "a", sequences, 40)] == sequences
    with pytest.raises(DataError, match=r"sequence 17 has the id 40, and the vocabulary has 40"):
        TokenStore.of([*sequences[:17], [1, 40]], 40)


@pytest.mark.parametrize("wrong", [-1, 10, 1 << 40, 1 << 80])
def test_giant_ids_are_refused_and_the_old_file_stays(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "a"
    TokenStore.write(path, [[1]], 10)
    with pytest.raises(DataError, match=f"sequence 1 has the id {wrong}"):
        TokenStore.write(path, [[2], [3, wrong]], 10)
    assert TokenStore.open(path)[0].tolist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def sequences() -> Iterator[list[int]]:
        yield [1]
        raise DataError("broken row")

    with pytest.raises(DataError, match="broken row"):
        TokenStore.write(tmp_path / "a", sequences(), 10)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    TokenStore.write(path, [[1, 2, 3], [4]], 10)
    whole = path.read_bytes()
    with pytest.raises(DataError, match="can't be read"):
        TokenStore.open(tmp_path / "none")
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"not a file of token ids|cut off"):
            TokenStore.open(path)
    path.write_bytes(whole[:8] + (9).to_bytes(8, "little") + whole[16:])
    with pytest.raises(DataError, match="unknown format"):
        TokenStore.open(path)
    path.write_bytes(whole[:-16] + (9).to_bytes(8, "little") + whole[-8:])
    with pytest.raises(DataError, match="overlap"):
        TokenStore.open(path)


# --------------------------------------------------------------------------------------------------- plans


@given(
    number=st.integers(1, 150),
    columns=st.sampled_from([1, 2]),
    budget=st.integers(1, 500) | st.none(),
    shuffle=st.booleans(),
    bucket=st.booleans(),
    world=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_every_example_once(
    number: int, columns: int, budget: int | None, shuffle: bool, bucket: bool, world: int, epoch: int
) -> None:
    lengths = lengths_of(number, columns=columns)
    size = {"tokens_per_batch": budget, "batch_size": 7 if budget is None else None}
    settings = size | {"shuffle": shuffle, "bucket": bucket, "world": world}
    if number < world:
        return
    alone = batches(lengths, **(settings | {"world": 1})).plan(epoch)
    if len(alone) % world and all(len(index) == 1 for index in alone):
        with pytest.raises(DataError, match="too few examples"):  # no batch can be halved
            batches(lengths, rank=0, **settings).plan(epoch)
        return
    plans = [batches(lengths, rank=rank, **settings).plan(epoch) for rank in range(world)]
    assert len({len(plan) for plan in plans}) == 1
    together = [index for plan in plans for index in plan]
    assert sorted(np.concatenate(together).tolist()) == list(range(number))
    for index in together:
        longest = lengths[index].reshape(len(index), columns).max(axis=0).sum()
        assert len(index) <= 7 if budget is None else len(index) == 1 or len(index) * longest <= budget


@given(seed=st.integers(0, 5), epoch=st.integers(0, 5), start=st.integers(0, 9))
def test_a_batch_is_a_function_of_seed_epoch_and_number(seed: int, epoch: int, start: int) -> None:
    lengths = lengths_of(300)
    fresh = batches(lengths, seed=seed)
    used = batches(lengths, seed=seed)
    for other in (epoch + 1, epoch, 0):
        used.batch(other, 0)
    np.random.seed(seed + start)  # noqa: NPY002 - the global state must not matter
    rest = list(used.iterate(epoch, start))
    assert len(rest) == fresh.num_batches(epoch) - start
    for k, batch in enumerate(rest, start):
        again = fresh.batch(epoch, k)
        assert torch.equal(batch["index"], again["index"])
        assert batch["about"] == (seed, epoch)


def test_order_changes_with_epoch_and_seed_only_if_shuffled() -> None:
    lengths = lengths_of(200)

    def order(epoch: int, **settings: Any) -> list[int]:
        return np.concatenate(batches(lengths, **settings).plan(epoch)).tolist()

    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)
    assert order(0, shuffle=False) == order(1, shuffle=False, seed=3)
    assert order(0, shuffle=False, bucket=False) == list(range(200))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("budget", [2000, 8000])
def test_buckets_waste_little(columns: int, budget: int) -> None:
    lengths = lengths_of(20_000, columns=columns)

    def wasted(**settings: Any) -> float:
        plan = batches(lengths, tokens_per_batch=budget, **settings).plan(0)
        flat = lengths.reshape(len(lengths), columns)
        padded = sum(len(index) * int(flat[index].max(axis=0).sum()) for index in plan)
        return 1 - lengths.sum() / padded

    assert wasted() < 0.1
    assert wasted(bucket=False) > 0.4
    # Batches fill their budget, but for the last of a length.
    sizes = [
        len(i) * lengths[i].reshape(len(i), columns).max(axis=0).sum()
        for i in batches(lengths, tokens_per_batch=budget).plan(0)
    ]
    assert np.mean(sizes) > 0.9 * budget


def test_a_large_plan_sorts_within_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.data.batches.POOL", 100)
    lengths = lengths_of(1050)
    plan = batches(lengths).plan(0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(1050))


def test_one_example_too_long_is_a_batch_alone() -> None:
    plan = batches(np.array([3, 1000, 3]), tokens_per_batch=10).plan(0)
    assert sorted(sorted(index.tolist()) for index in plan) == [[0, 2], [1]]


def test_settings_that_cannot_be() -> None:
    lengths = lengths_of(4)
    for settings, reason in (
        ({"batch_size": 3}, "either tokens_per_batch or batch_size"),
        ({"tokens_per_batch": None}, "either tokens_per_batch or batch_size"),
        ({"tokens_per_batch": 0}, "tokens_per_batch=0 must be at least 1"),
        ({"tokens_per_batch": None, "batch_size": -1}, "batch_size=-1 must be at least 1"),
        ({"rank": 2, "world": 2}, "rank=2 must be"),
        ({"seed": -1}, "seed=-1"),
    ):
        with pytest.raises(ConfigError, match=reason):
            batches(lengths, **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too few examples to give 5 workers"):
        batches(lengths, world=5).plan(0)
    with pytest.raises(DataError, match="no examples"):
        batches(lengths[:0]).plan(0)


# ----------------------------------------------------------------------------------------------- the thread


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
def test_prefetched_batches_come_in_order(prefetch: int) -> None:
    given_batches = batches(lengths_of(100))
    plan = given_batches.plan(0)
    found = [b["index"].tolist() for b in given_batches.iterate(0, 2, prefetch)]
    assert found == [index.tolist() for index in plan[2:]]
    assert list(given_batches.iterate(0, len(plan), prefetch)) == []


def test_an_error_is_raised_at_its_batch() -> None:
    def fails(index: np.ndarray, *, seed: int, epoch: int) -> dict[str, Any]:
        if 5 in index:
            raise DataError("example 5 is broken")
        return collate(index, seed=seed, epoch=epoch)

    settings = {
        "collate": fails,
        "tokens_per_batch": None,
        "batch_size": 2,
        "shuffle": False,
        "bucket": False,
    }
    steps = batches(lengths_of(20), **settings).iterate(0)
    assert [next(steps)["index"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match="example 5"):
        next(steps)
    assert not running()


def test_leaving_early_ends_the_thread() -> None:
    steps = batches(lengths_of(1000)).iterate(0)
    next(steps)
    assert running()
    steps.close()  # type: ignore[attr-defined]
    assert not running()


def test_only_a_few_batches_are_made_ahead() -> None:
    made: list[int] = []

    def count(index: np.ndarray, *, seed: int, epoch: int) -> dict[str, Any]:
        made.append(1)
        return collate(index, seed=seed, epoch=epoch)

    steps = batches(lengths_of(1000), collate=count).iterate(0, prefetch=3)
    next(steps)
    assert len(made) <= 1 + 3
    steps.close()  # type: ignore[attr-defined]


def running() -> bool:
    return any(t.name.startswith("regard-batches") for t in threading.enumerate())


def test_batches_of_an_objective() -> None:
    rng = np.random.default_rng(0)
    store = TokenStore.of([rng.integers(5, 50, n).tolist() for n in lengths_of(60)], 50)
    objective = Translate(store, store, bos=1, eos=2, pad=0)
    scored = sum(b["tokens"] for b in Batches(objective, tokens_per_batch=200).iterate(0))
    assert scored == int(store.lengths.sum()) + len(store)
    for batch in Batches(objective, tokens_per_batch=200).iterate(1):
        assert batch["source"].numel() + batch["target_in"].numel() <= 200 or len(batch["index"]) == 1


# -------------------------------------------------------------------------------------------------- packing


@given(sizes=st.lists(st.integers(0, 25), max_size=40), capacity=st.integers(1, 12), seed=st.integers(0, 9))
def test_rows_hold_whole_documents(sizes: list[int], capacity: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(sizes))
    plan = packing.pack(np.array(sizes, np.int64), order, capacity)
    rows = [list(plan.rows(r)) for r in range(len(plan.row_lengths))]
    assert [sum(size for _, _, size in row) for row in rows] == plan.row_lengths.tolist()
    assert all(0 < n <= capacity for n in plan.row_lengths)
    covered = sorted((d, start + k) for row in rows for d, start, size in row for k in range(size))
    assert covered == [(d, k) for d, n in enumerate(sizes) for k in range(n)]
    pieces = [piece for row in rows for piece in row]
    assert all(start % capacity == 0 for _, start, _ in pieces)  # cut only where there is no other way
    # No two rows could have been one.
    left = sorted(plan.row_lengths.tolist())
    assert len(left) < 2 or left[0] + left[1] > capacity


def test_packing_fills_the_rows() -> None:
    sizes = lengths_of(3000)
    plan = packing.pack(sizes, np.arange(3000), 128)
    assert plan.row_lengths.mean() > 0.97 * 128
