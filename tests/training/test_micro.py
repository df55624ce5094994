import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.tiny import TinyBatches, TinyModel

from regard.training.loss import IGNORED, sequence_loss
from regard.training.micro import is_out_of_memory, micro_batches, next_smaller


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 7), length=st.integers(1, 9), most=st.integers(1, 60))
def test_parts_are_the_batch(seed, rows, length, most):
    batch = TinyBatches(seed, rows, length).batch(0, 0)
    parts = list(micro_batches(batch, most))
    assert sum(len(part["ids"]) for part in parts) == rows
    assert sum(int((part["labels"] != IGNORED).sum()) for part in parts) == batch["tokens"]
    for part in parts:
        assert len(part["ids"]) == 1 or part["ids"].numel() <= most
        assert part["ids"].shape == part["labels"].shape == part["key_mask"].shape
    model = TinyModel(dropout=0)
    whole = sequence_loss(model, batch).loss
    torch.testing.assert_close(sum(sequence_loss(model, part).loss for part in parts), whole)


def test_padding_columns_are_cut_off_each_side_by_itself():
    mask = torch.tensor(
        [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=torch.bool
    )
    ids = torch.arange(20).reshape(4, 5)
    batch = {
        "source": ids, "source_mask": mask, "target_in": ids, "target_out": ids,
        "target_mask": mask.flip(0), "tokens": 11,
    }  # fmt: skip
    parts = list(micro_batches(batch, 5))
    assert [part["source"].shape[1] for part in parts] == [2, 5, 1, 3]
    assert [part["target_out"].shape[1] for part in parts] == [3, 1, 5, 2]


def test_without_a_mask_only_causal_text_is_cut():
    ids = torch.arange(8).reshape(2, 4)
    labels = torch.tensor([[1, 2, IGNORED, IGNORED], [1, 2, 3, IGNORED]])
    causal = {"ids": ids, "labels": labels, "positions": ids, "documents": ids}
    assert [part["documents"].shape[1] for part in micro_batches(causal, 4)] == [2, 3]
    assert [part["ids"].shape[1] for part in micro_batches({"ids": ids, "labels": labels}, 4)] == [4, 4]


def test_halving_ends_at_one_row():
    batch = TinyBatches(rows=5, length=7).batch(0, 0)
    sizes, most = [], None
    while (most := next_smaller(batch, most)) is not None:
        sizes.append(len(next(iter(micro_batches(batch, most)))["ids"]))
    assert sizes == [2, 1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected
