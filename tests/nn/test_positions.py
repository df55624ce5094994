"""Positions: each kind against its paper's formula, or against another implementation of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.nn.positions import (
    Alibi,
    Learned,
    Position,
    Rotary,
    Sinusoidal,
    T5Relative,
    alibi_slopes,
    make_position,
    rotate,
)


def rotary(**changes: float | str | None) -> ModelConfig:
    """Give a configuration with heads of 8 numbers."""
    return ModelConfig(kind="decoder", vocab_size=3, width=8, num_heads=1, position="rotary", **changes)


def test_halved_sinusoids_are_the_same_numbers_in_another_order() -> None:
    places = torch.arange(50)
    pairs = Sinusoidal(12).encode(places)
    assert torch.equal(
        Sinusoidal(12, halves=True).encode(places), torch.cat((pairs[:, 0::2], pairs[:, 1::2]), dim=1)
    )


def test_linear_scaling_makes_a_long_text_look_short() -> None:
    short, long = Rotary(rotary()), Rotary(rotary(rotary_scaling="linear", rotary_factor=4.0))
    assert_close(long.frequencies() * 4, short.frequencies())


def test_llama3_scaling_stretches_slow_turns_only() -> None:
    # Llama 3.1's own settings; wavelengths below 8192 / 4 are kept, above 8192 / 1 stretched eightfold.
    config = ModelConfig(
        kind="decoder", vocab_size=3, width=128, num_heads=1, position="rotary", rotary_base=500_000.0,
        rotary_scaling="llama3", rotary_factor=8.0, rotary_context=8192,
    )  # fmt: skip
    plain, scaled = Rotary(config.replace(rotary_scaling="none")).frequencies(), Rotary(config).frequencies()
    wavelengths = 2 * math.pi / plain
    fast, slow = wavelengths < 2048, wavelengths > 8192
    assert_close(scaled[fast], plain[fast])
    assert_close(scaled[slow], plain[slow] / 8)
    between = (plain / scaled)[~fast & ~slow]
    assert len(between) > 2 and (between.diff() > 0).all() and between.min() >= 1 and between.max() <= 8


def test_a_windows_own_base_is_not_scaled() -> None:
    config = rotary(rotary_base=1e6, rotary_window_base=1e4, rotary_scaling="linear", rotary_factor=8.0)
    assert_close(Rotary(config, windowed=True).frequencies(), Rotary(rotary(rotary_base=1e4)).frequencies())
    assert_close(Rotary(config).frequencies() * 8, Rotary(rotary(rotary_base=1e6)).frequencies())


def test_unused_rows_of_a_learned_table_come_first() -> None:
    learned = Learned(4, 3, offset=2)
    assert learned.embedding.weight.shape == (6, 3)
    assert_close(learned.add(torch.zeros(1, 2, 3), torch.tensor([0, 3]))[0], learned.embedding.weight[[2, 5]])


def test_sinusoids_are_those_of_the_paper() -> None:
    width, encoded = 12, Sinusoidal(12).encode(torch.arange(50))
    for p in range(50):
        for i in range(width // 2):
            angle = p / 10_000 ** (2 * i / width)
            assert math.isclose(float(encoded[p, 2 * i]), math.sin(angle), abs_tol=1e-5)
            assert math.isclose(float(encoded[p, 2 * i + 1]), math.cos(angle), abs_tol=1e-5)


@given(shift=st.integers(0, 40))
@settings(deadline=None, max_examples=10)
def test_a_shifted_sinusoid_is_a_linear_function_of_the_unshifted(shift: int) -> None:
    width, positions = 16, torch.arange(30)
    encode = Sinusoidal(width).encode
    turn = torch.zeros(width, width)  # one rotation for every pair, the same for all positions
    for i in range(width // 2):
        angle = shift / 10_000 ** (2 * i / width)
        cos, sin = math.cos(angle), math.sin(angle)
        turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[cos, sin], [-sin, cos]])
    assert_close(encode(positions + shift), encode(positions) @ turn.T, atol=1e-5, rtol=0)


@given(shift=st.integers(-20, 200), positions=st.lists(st.integers(20, 60), min_size=2, max_size=6))
@settings(deadline=None, max_examples=25)
def test_rotary_scores_depend_on_differences_only(shift: int, positions: list[int]) -> None:
    draw = torch.Generator().manual_seed(1)
    query, key = (torch.randn(1, 2, len(positions), 8, generator=draw) for _ in range(2))
    places = torch.tensor(positions)

    def scores(at: torch.Tensor) -> torch.Tensor:
        rotation = Rotary(rotary()).terms(at, at).rotation
        assert rotation is not None
        return rotate(query, rotation) @ rotate(key, rotation).mT

    assert_close(scores(places), scores(places + shift), atol=1e-4, rtol=1e-4)
    assert_close(scores(places).diagonal(dim1=-2, dim2=-1), (query * key).sum(-1), atol=1e-5, rtol=1e-5)


def test_rotary_turns_pairs_as_complex_numbers() -> None:
    x, positions = torch.randn(2, 3, 5, 8), torch.tensor([[0, 1, 2, 3, 4], [7, 7, 8, 90, 3]])
    rotation = Rotary(rotary(rotary_base=500.0)).terms(positions, positions).rotation
    assert rotation is not None
    pairs = torch.complex(x[..., :4], x[..., 4:])
    angles = positions[:, None, :, None] * 500.0 ** -(torch.arange(4) / 4)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    assert_close(rotate(x, rotation), torch.cat((turned.real, turned.imag), dim=-1), atol=1e-5, rtol=1e-5)
    assert_close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))


def test_alibi_has_the_slopes_of_its_paper() -> None:
    # Press et al. 2022, section 3: for 8 heads 1/2, 1/4, ..., 1/256; for other numbers, the published code's rule:
    # those of the next lower power of two, then every second one of the next higher (12 heads: of 16).
    eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(8).tolist() == eight
    sixteen = [2 ** (-i / 2) for i in range(1, 17)]
    assert alibi_slopes(16).tolist() == pytest.approx(sixteen)
    assert alibi_slopes(12).tolist() == pytest.approx(eight + sixteen[0:8:2])
    assert alibi_slopes(1).tolist() == [2**-8]


def test_alibi_lowers_scores_by_slope_times_distance() -> None:
    bias = Alibi(4).terms(torch.tensor([5, 6]), torch.arange(7)).bias
    assert bias is not None
    part, bias = bias.part(torch.tensor([1]), slice(2, 5)), bias.dense
    assert torch.equal(part, bias[:, :, 1:, 2:5])
    assert bias.shape == (1, 4, 2, 7)
    for h, slope in enumerate(alibi_slopes(4).tolist()):
        for t, s in ((0, 0), (0, 5), (1, 2), (0, 6)):
            assert float(bias[0, h, t, s]) == pytest.approx(-slope * abs(5 + t - s))


@pytest.mark.parametrize("bidirectional", [True, False], ids=["both-ways", "causal"])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 12), (16, 20)])
def test_t5_buckets_are_those_of_transformers(bidirectional: bool, buckets: int, distance: int) -> None:
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = torch.arange(-600, 601)
    expected = modeling.T5Attention._relative_position_bucket(
        distances, bidirectional=bidirectional, num_buckets=buckets, max_distance=distance
    )
    assert torch.equal(T5Relative(2, buckets, distance, bidirectional).bucket(distances), expected)


def test_t5_gives_each_query_its_own_row_of_distances() -> None:
    position = T5Relative(3, 8, 20, True)
    positions = torch.tensor([[0, 1, 2, 3], [5, 0, 9, 2]])
    made = position.terms(positions, positions).bias
    assert made is not None
    bias = made.dense
    assert bias.shape == (2, 3, 4, 4)
    assert torch.equal(made.part(slice(1, 3), torch.tensor([0, 3])), bias[:, :, 1:3][..., [0, 3]])
    assert torch.equal(made.from_key(1).dense, bias[..., 1:])
    bucket = position.bucket(torch.tensor([9 - 5]))
    assert torch.equal(bias[1, :, 0, 2], position.embedding.weight[bucket][0])


@pytest.mark.parametrize("kind", ["none", "sinusoidal", "learned", "rotary", "alibi", "t5"])
def test_positions_may_be_shared_by_the_rows_or_their_own(kind: str) -> None:
    config = ModelConfig(kind="encoder", vocab_size=5, width=16, num_heads=2, position=kind)
    position, x, shared = make_position(config, bidirectional=True), torch.randn(3, 6, 16), torch.arange(6)
    own = shared.expand(3, 6)
    assert_close(position.add(x, shared), position.add(x, own))
    one, many = position.terms(shared, shared), position.terms(own, own)
    biases = [None if terms.bias is None else terms.bias.dense for terms in (one, many)]
    for left, right in (biases, *zip(one.rotation or (), many.rotation or (), strict=True)):
        if left is not None and right is not None:
            assert len(left) == 1
            assert len(right) == 3
            assert_close(left.expand_as(right), right)


def test_each_kind_is_made_by_its_name() -> None:
    def made(kind: str) -> type:
        config = ModelConfig(kind="encoder", vocab_size=5, width=16, num_heads=2, position=kind)
        return type(make_position(config, bidirectional=True))

    kinds = {"none": Position, "sinusoidal": Sinusoidal, "learned": Learned, "rotary": Rotary, "alibi": Alibi}
    assert {kind: made(kind) for kind in kinds} == kinds
    assert made("t5") is T5Relative


def test_no_position_adds_nothing() -> None:
    x = torch.randn(1, 2, 4)
    assert Position().add(x, torch.arange(2)) is x
    assert Position().terms(torch.arange(2), torch.arange(2)).bias is None
