"""Kernels of our own: what they give, and that nothing needs them."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close

from regard.nn import native, streaming
from regard.nn.attention import Attend
from regard.nn.masks import Mask

has_kernel = pytest.mark.skipif(
    native.load("long_attention") is None,
    reason="no C compiler, or a processor without AVX-512 BF16 (or with AMX, where torch's kernel is faster)",
)


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


def exact(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Attend by the equation in double precision."""
    groups = query.shape[1] // key.shape[1]
    near, far = (x.double().repeat_interleave(groups, 1) for x in (key, value))
    scores = query.double() @ near.transpose(-1, -2) * scale
    if causal:
        scores.masked_fill_(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    return scores.softmax(-1) @ far, scores.logsumexp(-1)


@has_kernel
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 63, 95, 97, 256, 258, 1100])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(2, 2, 64), (4, 2, 64), (2, 1, 128)])
def test_the_long_kernel_gives_what_the_equation_gives(
    heads: int, kv_heads: int, size: int, length: int, causal: bool
) -> None:
    keys = length if causal else 3 * length // 2
    query = drawn(2, heads, length, size, seed=1)
    key, value = drawn(2, kv_heads, keys, size, seed=2), drawn(2, kv_heads, keys, size, seed=3)
    kernel = native.long_attention(query, key, value)
    assert kernel is not None
    mixed, normaliser = kernel(query, key, value, 0.2, causal)
    expected, total = exact(query, key, value, 0.2, causal=causal)
    assert_close(normaliser.double(), total, atol=1e-5, rtol=1e-6)
    assert_close(mixed.double(), expected, atol=1e-2, rtol=1e-2)  # a bfloat16 has eight bits
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=causal, scale=0.2, enable_gqa=True
    )
    ours_off, theirs_off = (float((x.double() - expected).abs().mean()) for x in (mixed, theirs))
    assert ours_off <= 1.1 * theirs_off + 1e-9


@has_kernel
def test_scores_of_any_size_neither_overflow_nor_vanish() -> None:
    query, key, value = (drawn(1, 1, 400, 64, seed=seed, scale=30) for seed in (1, 2, 3))
    kernel = native.long_attention(query, key, value)
    assert kernel is not None
    mixed, normaliser = kernel(query, key, value, 1.0, True)
    expected, total = exact(query, key, value, 1.0, causal=True)
    assert_close(normaliser.double(), total, atol=0.02, rtol=1e-6)
    assert float((mixed.double() - expected).abs().max()) < 0.02 * float(expected.abs().max())


@has_kernel
@pytest.mark.parametrize("size", [1e4, 1e5, 1e9])
def test_huge_scores_choose_the_largest_key_alone(size: float) -> None:
    query, key, value = (
        drawn(1, 1, 600, 64, seed=1, scale=size),
        drawn(1, 1, 600, 64, seed=2),
        drawn(1, 1, 600, 64),
    )
    kernel = native.long_attention(query, size * key, value)
    assert kernel is not None
    mixed, normaliser = kernel(query, size * key, value, 1.0, True)
    expected, total = exact(query, size * key, value, 1.0, causal=True)
    assert_close(normaliser.double(), total, atol=0, rtol=1e-6)
    assert_close(mixed.double(), expected, atol=1e-2, rtol=1e-2)


@has_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_type_changes_nothing(dtype: torch.dtype) -> None:
    query, key, value = (drawn(1, 1, 300, 64, seed=seed) for seed in (1, 2, 3))
    kernel = native.long_attention(query, key, value)
    assert kernel is not None
    expected = kernel(query, key, value, 0.125, True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = kernel(query, key, value, 0.125, True)
    finally:
        torch.set_default_dtype(before)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_gradients_and_tensors_without_numbers_are_left_to_torch() -> None:
    x = drawn(1, 1, 8, 64)
    grown = x.clone().requires_grad_()
    assert native.long_attention(grown, x, x) is None
    assert native.long_attention(x, x, torch._neg_view(x)) is None
    with FakeTensorMode():
        fake = torch.zeros(1, 1, 8, 64, dtype=torch.bfloat16)
        assert native.long_attention(fake, fake, fake) is None


@has_kernel
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    query, key, value = (drawn(1, 1, 300, 64, seed=seed) for seed in (1, 2, 3))
    key[0, 0, 270] = bad
    kernel = native.long_attention(query, key, value)
    assert kernel is not None
    mixed, normaliser = kernel(query, key, value, 0.125, True)
    assert not normaliser[0, 0, 275].isfinite()
    assert mixed[0, 0, 275].isnan().any()
    assert normaliser[0, 0, :270].isfinite().all()
    assert mixed[0, 0, :270].isfinite().all()


@has_kernel
@pytest.mark.parametrize("long", [16, 2**28])  # in parts, or all heads at once
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_long_text_in_bfloat16_takes_it(kv_heads: int, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query = drawn(1, 4, 130, 64)
    key, value = drawn(1, kv_heads, 130, 64, seed=1), drawn(1, kv_heads, 130, 64, seed=2)
    theirs = streaming.attend_with_normaliser(Attend(), query, key, value, Mask(causal=True), None)
    monkeypatch.setattr(streaming, "_LONG", long)
    monkeypatch.setattr(streaming, "_OWN", 16)
    monkeypatch.setattr(streaming, "_FLASH", None)
    ours = streaming.attend_with_normaliser(Attend(), query, key, value, Mask(causal=True), None)
    assert_close(ours[1], theirs[1], atol=1e-4, rtol=1e-4)
    assert_close(ours[0], theirs[0], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 64), (torch.bfloat16, 48), (torch.float16, 64)])
def test_other_tensors_are_left_to_torch(dtype: torch.dtype, size: int) -> None:
    x = torch.zeros(1, 1, 8, size, dtype=dtype)
    assert native.long_attention(x, x, x) is None


ASK = "from regard.nn import native; print(native.load('long_attention') is None)"


def asked(**environment: str) -> str:
    """Ask a fresh process whether there is no kernel."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.strip()


def test_it_can_be_declined(tmp_path: Path) -> None:
    assert asked(REGARD_NATIVE="0", XDG_CACHE_HOME=str(tmp_path)) == "True"
    assert not list(tmp_path.iterdir())


def test_no_compiler_or_a_broken_one_is_no_fault(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    assert asked(PATH=str(tools), XDG_CACHE_HOME=str(tmp_path / "a")) == "True"
    broken = tools / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert asked(PATH=f"{tools}:/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path / "b")) == "True"
    empty = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo 'int x;' | PATH=/usr/bin:/bin exec /usr/bin/cc -shared -x c - -o "$2"
"""
    broken.write_text(empty)  # says that all is well, and makes a library without the functions
    assert asked(PATH=f"{tools}:/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path / "b")) == "True"
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file()]


@has_kernel
def test_it_is_compiled_once_and_only_for_this_user(tmp_path: Path) -> None:
    assert asked(XDG_CACHE_HOME=str(tmp_path)) == "False"
    folder = tmp_path / "regard" / "native"
    (made,) = folder.iterdir()
    before = made.stat().st_mtime_ns
    assert asked(XDG_CACHE_HOME=str(tmp_path)) == "False"
    assert made.stat().st_mtime_ns == before
    assert folder.stat().st_mode & 0o777 == 0o700
    whole = made.read_bytes()
    for broken in (whole[:8000], b"", whole[:-40]):
        made.write_bytes(broken)  # half of a file would kill the process that loads it
        assert asked(XDG_CACHE_HOME=str(tmp_path)) == "False"
        assert made.read_bytes()[-32:] == hashlib.sha256(made.read_bytes()[:-32]).digest()
    for open_one in (folder, folder.parent):
        open_one.chmod(0o777)
        assert asked(XDG_CACHE_HOME=str(tmp_path)) == "True", "others could put their code there"
        open_one.chmod(0o700)


@has_kernel
def test_a_place_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "regard").write_text("a file in the way")
    assert asked(XDG_CACHE_HOME=str(tmp_path)) == "True"


@pytest.mark.parametrize(("rows", "columns"), [(32, 16), (768, 2304), (37, 19), (1, 40), (100, 3), (5, 33)])
def test_a_transposed_matrix_is_rounded_as_torch_does(rows: int, columns: int) -> None:
    if native.load("turning") is None:
        pytest.skip("no C compiler, or a processor without AVX-512 BF16 and VNNI")
    stored = torch.randn(rows, columns)
    stored[0, 0], stored[-1, -1] = float("nan"), float("inf")
    found = native.half_of_turned(stored.t())
    expected = stored.t().bfloat16().contiguous()
    if rows == 1 or columns == 1:
        assert found is None  # nothing is transposed there
        return
    assert found is not None and found.is_contiguous()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def test_what_is_no_transposed_matrix_is_left_to_torch() -> None:
    x = torch.randn(8, 6)
    for other in (
        x,
        x.double().t(),
        x.bfloat16().t(),
        torch.randn(2, 3, 4).mT,
        x[:, ::2].t(),
        x.t().requires_grad_(),
    ):
        assert native.half_of_turned(other) is None
