"""A map's cells are the means and maxima of the matrix that nobody stores."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.look import tiles
from regard.look.capture import Captured, capture
from regard.look.tiles import Pyramid, corpus_map
from regard.models.transformer import build


def layer_of(length: int, name: str = "decoder.1", **settings: Any) -> Captured:
    torch.manual_seed(0)
    kind = "encoder-decoder" if name.startswith("cross") else name.partition(".")[0]
    config = ModelConfig(
        kind=kind, vocab_size=50, width=16, num_layers=2, num_heads=2, context=4096, **settings
    )
    module: Any = build(config).eval()
    ids = torch.randint(5, 50, (1, length))
    with capture([name]) as kept:
        module.hidden(ids, ids[:, : length // 2]) if kind == "encoder-decoder" else module.hidden(ids)
    return kept.of()[name]


def pooled(whole: Tensor, cell: int, kind: str) -> Tensor:
    """Pool cell by cell, as one would by hand."""
    rows, columns = (math.ceil(size / cell) for size in whole.shape)
    cells = [
        [whole[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell] for j in range(columns)]
        for i in range(rows)
    ]
    return torch.tensor([[float(c.mean() if kind == "mean" else c.max()) for c in row] for row in cells])


@pytest.mark.parametrize("name", ["encoder.0", "decoder.1", "cross.1", "windowed"])
@pytest.mark.parametrize("length", [64, 75])
def test_every_level_is_the_matrix_pooled(name: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_SIDE", 32)
    monkeypatch.setattr(tiles, "_ROWS", 16)
    monkeypatch.setattr(tiles, "_COLUMNS", 24)
    layer = layer_of(length, "decoder.1", window=9) if name == "windowed" else layer_of(length, name)
    whole = layer.weights(1, slice(None), slice(None))
    pyramid = Pyramid([(layer, 1)])
    assert pyramid.base == (2 if length == 64 else 4)
    seen: list[int] = []
    for built in (False, True):
        if built:
            assert pyramid.build(progress=lambda done, rows: seen.append(done))
            assert seen[-1] == layer.shape[0]
        for cell in (1, 2, 4, 8, 16, 32, 64, 128):
            for kind in ("mean", "max"):
                grid = pyramid.window(cell=cell, kind=kind, exact=True)  # type: ignore[arg-type]
                assert grid.sampled is None
                assert_close(grid.values, pooled(whole, cell, kind))


def test_any_window_is_cut_out_of_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_SIDE", 16)
    layer = layer_of(90)
    pyramid = Pyramid([(layer, 0)])
    pyramid.build()
    for cell in (1, 2, 4, 8, 16):
        whole = pyramid.window(cell=cell, rows=100, columns=100).values
        part = pyramid.window(cell, 2 * cell, cell=cell, rows=3, columns=2)
        assert_close(part.values, whole[1:4, 2:4])
        assert (part.row, part.column) == (cell, 2 * cell)


@pytest.mark.parametrize("length", [64, 75])
def test_a_quick_window_samples_rows_and_then_columns_of_every_cell(length: int) -> None:
    layer = layer_of(length, "encoder.0")
    whole = layer.weights(1, slice(None), slice(None))
    cells, counted = math.ceil(length / 16), length // 16 + 1
    for most, words in (
        (10**9, "exact"), (length * counted * 3, "3 of 16 rows of each, all columns"),
        (cells * counted * 5, "1 of 16 rows of each, 5 of their columns"),
        (1, "1 of 16 rows of each, 1 of their columns"),
    ):  # fmt: skip
        peak, mean = (Pyramid([(layer, 1)]).window(cell=16, kind=kind, most=most) for kind in ("max", "mean"))  # type: ignore[arg-type]
        assert words in peak.how and words in mean.how and peak.values.shape == (cells, cells)
        assert bool((peak.values <= pooled(whole, 16, "max") + 1e-6).all())
        inside = pooled(whole, 16, "max") + 1e-6, -pooled(-whole, 16, "max") - 1e-6
        assert bool(((mean.values <= inside[0]) & (mean.values >= inside[1])).all())
    assert tiles._spread(slice(64, 75), 16, 2).tolist() == [66, 72]
    assert tiles._spread(slice(0, 40), 16, 3).tolist() == [2, 8, 13, 18, 24, 29, 33, 36, 38]


def test_a_preview_is_sampled_and_says_so_until_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_WINDOW", 256)
    monkeypatch.setattr(tiles, "_SIDE", 16)
    layer = layer_of(128)
    pyramid = Pyramid([(layer, 0)])
    first = pyramid.preview(8)
    assert first.sampled is not None
    assert first.sampled < first.cell == 16
    assert f"sampled: {first.sampled} of 16" in first.how
    exact = pooled(layer.weights(0, slice(None), slice(None)), 16, "mean")
    assert_close(first.values.sum(1), exact.sum(1), atol=0.02, rtol=0)  # rows sum to one, whichever are taken
    most = pyramid.preview(8, kind="max")
    assert (most.values <= pooled(layer.weights(0, slice(None), slice(None)), 16, "max") + 1e-6).all()
    pyramid.start().join(30)
    second = pyramid.preview(8)
    assert second.sampled is None
    assert_close(second.values, exact)


def test_a_build_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_ROWS", 16)
    monkeypatch.setattr(tiles, "_SIDE", 64)
    layer = layer_of(64)
    pyramid = Pyramid([(layer, 0)])
    assert not pyramid.build(stop=lambda: True)
    assert pyramid.done == 16
    assert pyramid.window(cell=1, rows=16).sampled is None
    assert pyramid.build()
    assert_close(pyramid.window(cell=8).values, pooled(layer.weights(0, slice(None), slice(None)), 8, "mean"))


def test_several_heads_are_one_map_of_their_mean() -> None:
    layer = layer_of(40)
    whole = (layer.weights(0, slice(None), slice(None)) + layer.weights(1, slice(None), slice(None))) / 2
    pyramid = Pyramid([(layer, 0), (layer, 1)])
    for kind in ("mean", "max"):
        assert_close(pyramid.window(cell=4, kind=kind).values, pooled(whole, 4, kind))  # type: ignore[arg-type]


def test_a_needle_is_seen_in_the_maximum_at_every_level() -> None:
    layer = layer_of(300)
    normaliser = layer.normaliser + 20.0  # every weight next to nothing,
    normaliser[0, 250] = layer.scores(0, [250], slice(None))[0, 17]  # but for one, which is 1
    layer = dataclasses.replace(layer, normaliser=normaliser)
    pyramid = Pyramid([(layer, 0)])
    pyramid.build()
    for cell in (1, 4, 32, 256):
        most = pyramid.window(cell=cell, kind="max", rows=300, columns=300).values
        assert float(most[250 // cell, 17 // cell]) >= 1 - 1e-6
    assert float(pyramid.window(cell=256).values.max()) < 0.1


def test_windows_that_cannot_be_are_refused() -> None:
    pyramid = Pyramid([(layer_of(40), 0)])
    for wrong in ({"cell": 3}, {"cell": 0}, {"row": 1, "cell": 2}, {"row": 40}, {"rows": 0}, {"column": -4}):
        with pytest.raises(ConfigError):
            pyramid.window(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one"):
        Pyramid([])
    with pytest.raises(ConfigError, match="the same rows"):
        Pyramid([(layer_of(40), 0), (layer_of(30), 0)])
    with pytest.raises(ConfigError, match="neither mean nor max"):
        pyramid.window(kind="median")  # type: ignore[arg-type]
    for side in (0, -3):
        with pytest.raises(ConfigError, match=f"side={side}"):
            pyramid.preview(side)
        with pytest.raises(ConfigError, match=f"side={side}"):
            corpus_map([[(layer_of(40), 0)]], side=side)


def test_texts_of_all_lengths_make_one_map() -> None:
    layers = [layer_of(length) for length in (7, 40, 41)]
    found, count = corpus_map([[(layer, 0)] for layer in layers], side=8)
    assert count == 3
    assert_close(found.sum(1), torch.ones(8))
    assert float(found.triu(2).abs().max()) < 1e-6  # causal: nothing beyond the diagonal's own cells
    whole = layers[1].weights(0, slice(None), slice(None))
    one, _ = corpus_map([[(layers[1], 0)]], side=8)
    assert_close(one, pooled(whole, 5, "mean") * 5)


@pytest.mark.parametrize("order", [1, -1])
def test_layers_with_other_windows_are_one_map_of_their_mean(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_ROWS", 8)
    monkeypatch.setattr(tiles, "_COLUMNS", 8)
    layers = [layer_of(40, "encoder.0", window=3), layer_of(40, "encoder.0")][::order]
    whole = sum(layer.weights(0, slice(None), slice(None)) for layer in layers) / 2
    assert isinstance(whole, Tensor)
    assert_close(Pyramid([(layer, 0) for layer in layers]).window().values, whole)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("kind", ["mean", "max"])
def test_a_cell_far_larger_than_the_matrix_takes_no_more_memory_than_it(
    kind: tiles.Kind, built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of(41, "cross.1")
    whole = layer.weights(0, slice(None), slice(None))
    pyramid = Pyramid([(layer, 0)])
    assert not built or pyramid.build()
    padded: list[int] = []
    pad = torch.nn.functional.pad

    def counted(*given: Any) -> Tensor:
        padded.append(pad(*given).numel())
        return pad(*given)

    monkeypatch.setattr(torch.nn.functional, "pad", counted)
    for cell in (32, 64, 2048):
        assert_close(pyramid.window(cell=cell, kind=kind).values, pooled(whole, cell, kind))
    assert max(padded, default=0) <= 64 * whole.shape[1]
