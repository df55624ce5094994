"""Pictures as SVG: the look's own numbers, well-formed, the same each time; and no word is anything but text."""

from __future__ import annotations

import base64
import math
import re
import struct
import unicodedata
import zlib
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from tests.look.pictures import HOSTILE, KINDS, hostile_look, look_at, pictures_of
from tests.tasks.small import make_parts

from regard.config import Kind
from regard.errors import ConfigError
from regard.look.draw import views
from regard.look.draw.colours import DARK, LIGHT, Scale, ramp
from regard.look.draw.payload import payload
from regard.look.draw.picture import Bars, Links, Panels
from regard.look.draw.scene import label
from regard.look.draw.svg import svg, write_svg
from regard.look.reading import Look
from regard.tasks.looking import look

SVG = "{http://www.w3.org/2000/svg}"
TIP = re.compile(r"^(.*) → (.*): (\S+)$", re.DOTALL)


def tips(text: str) -> list[tuple[str, str, float]]:
    found = [TIP.match(one.text or "") for one in ET.fromstring(text).iter(f"{SVG}title")]
    return [(one[1], one[2], float(one[3])) for one in found if one]


def pixels(text: str) -> list[np.ndarray]:
    """Read the palette's numbers in the images of pixels that we wrote."""
    found = []
    for image in ET.fromstring(text).iter(f"{SVG}image"):
        raw = base64.b64decode(image.attrib["href"].partition("base64,")[2])
        columns, rows = struct.unpack(">II", raw[16:24])
        size = struct.unpack(">I", raw[33:37])[0]
        palette = np.frombuffer(raw[41 : 41 + size], dtype=np.uint8).reshape(-1, 3)
        start = raw.index(b"IDAT") + 4
        lines = np.frombuffer(zlib.decompressobj().decompress(raw[start:]), dtype=np.uint8)
        found.append(palette[lines.reshape(rows, columns + 1)[:, 1:]])
    return found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_view_is_well_formed_and_the_same_each_time(kind: Kind, dark: bool) -> None:
    for picture in pictures_of(look_at(kind)).values():
        text = svg(picture, dark=dark)
        root = ET.fromstring(text)
        assert text == svg(picture, dark=dark)
        assert root.findtext(f"{SVG}title") == label(picture.title)
        said = root.findtext(f"{SVG}desc") or ""
        assert label(picture.how)[1:] in said and "differs by" in said
        ground = next(root.iter(f"{SVG}rect")).attrib["fill"]
        assert ground == (DARK if dark else LIGHT).ground
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for one in root.iter(f"{SVG}rect"):
            assert -1 <= float(one.attrib.get("x", 0)) <= width
            assert float(one.attrib.get("y", 0)) + float(one.attrib["height"]) <= height + 1
        for one in root.iter(f"{SVG}text"):
            assert 0 < float(one.attrib["x"]) < width and 0 < float(one.attrib["y"]) < height


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_tells_the_looks_weights(kind: Kind) -> None:
    found = look_at(kind)
    layer = list(found.layers)[-1]
    expected = found.weights(layer, 1)
    told = tips(svg(views.matrix(found, layer, 1)))
    assert [value for *_, value in told] == pytest.approx(expected.values.flatten().tolist(), rel=1e-5)
    names = [(label(row.text), label(column.text)) for row in expected.rows for column in expected.columns]
    assert [(row, column) for row, column, _ in told] == names


def test_colours_are_the_weights() -> None:
    found = look_at("encoder")
    picture = views.matrix(found, 0, 0)
    assert isinstance(picture.data, Panels)
    parts = picture.scale.parts(picture.data.panels[0].values.numpy())
    fills = [one.attrib["fill"] for one in ET.fromstring(svg(picture)).iter(f"{SVG}rect") if len(one)]
    assert fills == [LIGHT.colour(float(part)) for part in parts.flatten()]


@pytest.mark.parametrize("view", ["arcs", "alignment"])
def test_lines_are_the_rows_weights(view: str) -> None:
    found = look_at("encoder-decoder")
    layer = "encoder.1" if view == "arcs" else "cross.1"
    shown = views.Shown(hide=("special",), renormalise=True)
    make = views.arcs if view == "arcs" else views.alignment
    picture = make(found, layer, 0, 2, shown)
    row = found.row(layer, 0, 2, hide=("special",), renormalise=True)
    assert isinstance(picture.data, Links)
    assert [one.weight for one in picture.data.strands] == pytest.approx(row.values.tolist())
    drawn = sorted(value for *_, value in tips(svg(picture)))
    assert drawn == pytest.approx(sorted(v for v in row.values.tolist() if v >= picture.data.least), rel=1e-5)
    assert "without special tokens, renormalised" in picture.caption


def test_the_strongest_links_of_all_rows_are_drawn() -> None:
    found = look_at("decoder")
    picture = views.arcs(found, 1, 0)
    weights = found.weights(1, 0).values
    drawn = [value for *_, value in tips(svg(picture))]
    assert isinstance(picture.data, Links)
    assert len(drawn) == int((weights >= picture.data.least).sum()) >= len(weights)


@pytest.mark.parametrize(
    "extra", [{}, {"position": "alibi"}, {"attention_softcap": 3.0}, {"num_kv_heads": 1}]
)
def test_one_weight_is_told_step_by_step(extra: dict[str, object]) -> None:
    found = look(make_parts("decoder", **extra), "a dog runs")
    expected = found.row(1, 1, 5).values
    for column in (0, 3, 5):
        picture = views.numbers(found, 1, 1, 5, column)
        assert isinstance(picture.data, Bars)
        assert picture.data.steps[-1].value == pytest.approx(float(expected[column]), rel=1e-6)
        assert picture.data.steps[0].value == pytest.approx(math.fsum(picture.data.product))
    hidden = views.numbers(found, 1, 1, 2, 5)
    assert isinstance(hidden.data, Bars) and not hidden.data.allowed
    assert hidden.data.steps[-1].value == 0
    with pytest.raises(ConfigError, match="of one head"):
        views.numbers(found, 1)


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_words_are_text(dark: bool) -> None:
    for name, picture in pictures_of(hostile_look()).items():
        text = svg(picture, dark=dark)
        root = ET.fromstring(text)
        tags = {one.tag.removeprefix(SVG) for one in root.iter()}
        assert tags <= {
            "svg", "title", "desc", "rect", "text", "path", "image", "g", "defs", "linearGradient", "stop"
        }, name  # fmt: skip
        assert not [one for one in root.iter() for key in one.attrib if key.startswith("on")]
        for character in text.replace("\n", ""):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(character)
    shown = "".join(ET.fromstring(svg(views.matrix(hostile_look(), "cross.1", 0))).itertext())
    for word in HOSTILE:
        assert label(word) in shown


def test_a_large_matrix_is_an_image_of_the_same_weights() -> None:
    found = look(make_parts("decoder", context=256), "a dog runs " * 16)
    picture = views.matrix(found, 1, 0)
    (image,) = pixels(svg(picture))
    weights = found.weights(1, 0).values.numpy()
    assert image.shape[:2] == weights.shape and max(weights.shape) > views.LABELLED
    assert np.array_equal(image, LIGHT.pixels(Scale.log(len(weights)).parts(weights)))
    assert not list(ET.fromstring(svg(views.matrix(look_at("decoder"), 1, 0))).iter(f"{SVG}image"))


def test_a_long_text_is_drawn_in_cells_and_stays_small() -> None:
    found = look(make_parts("decoder", context=2048, num_layers=1), "a dog runs, the street is wide. " * 63)
    weights = found.weights(0, 0).values
    assert len(weights) >= 2000
    whole, pooled = views.matrix(found, 0, 0), views.map_of(found, 0, 0)
    assert isinstance(whole.data, Panels) and isinstance(pooled.data, Panels)
    (panel,) = whole.data.panels
    expected = [[float(weights[r : r + 2, c : c + 2].max()) for c in (0, 800, 1600)] for r in (0, 800, 1600)]
    assert panel.values[::400, ::400][:3, :3].tolist() == expected
    most, mean = pooled.data.panels
    assert bool((most.values >= mean.values).all()) and most.cell == 4
    assert "cells of 2 x 2 tokens, exact" in whole.caption
    for picture in [
        whole,
        pooled,
        views.overview(found),
        views.arcs(found, 0, 0, 1000),
        views.arcs(found, 0, 1),
    ]:
        assert len(svg(picture)) < 3_000_000


def test_of_a_long_text_the_words_that_get_most_are_kept() -> None:
    found = look(make_parts("encoder", context=512), "a dog runs " * 20)
    picture = views.arcs(found, 1, 0, 100)
    assert isinstance(picture.data, Links)
    values = found.row(1, 0, 100).values
    assert max(one.weight for one in picture.data.strands) == pytest.approx(float(values.max()))
    assert picture.data.rows[picture.data.looker[0]].start == 100
    assert "…" in [word.text for word in picture.data.rows]
    for one in picture.data.strands:
        assert one.weight == pytest.approx(float(values[picture.data.columns[one.column].start]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_one_token_is_drawn(kind: Kind) -> None:
    for picture in pictures_of_one(kind):
        ET.fromstring(svg(picture))


def pictures_of_one(kind: Kind) -> list[views.Picture]:
    found = look(make_parts(kind), "a", "a" if kind == "encoder-decoder" else None)
    layer = list(found.layers)[-1]
    hidden = views.Shown(hide=("first", "special"), renormalise=True)
    made = [
        views.matrix(found, layer, 0),
        views.overview(found),
        views.heads(found, layer),
        views.map_of(found, layer),
    ]
    made += [views.arcs(found, layer, 0), views.alignment(found, layer, 0, 0), views.numbers(found, layer, 0)]
    return [
        *made,
        views.matrix(found, layer, 0, hidden),
        views.arcs(found, layer, 0, 0, hidden),
        views.overview(found, hidden),
    ]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "look.svg"
    picture = views.overview(look_at("encoder"))
    write_svg(picture, path, bare=True)
    assert path.read_text(encoding="utf-8") == svg(picture, bare=True)
    assert label(picture.caption)[:20] not in "".join(
        one.text or "" for one in ET.fromstring(path.read_text(encoding="utf-8")).iter(f"{SVG}text")
    )
    with pytest.raises(OSError):
        write_svg(picture, path.parent / "no" / "look.svg")
    assert [one.name for one in path.parent.iterdir()] == ["look.svg"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_scale_is_read_without_hue(theme: str) -> None:
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in ramp(theme)]
    steps = np.diff(light) * (-1 if theme == "light" else 1)
    assert (steps > -1).all() and abs(light[-1] - light[0]) > 150


def test_a_scale_says_its_weights() -> None:
    scale = Scale.linear(0.13)
    assert (scale.high, scale.part(0.1), scale.ticks[-1]) == (0.2, 0.5, (1.0, "0.2"))
    assert Scale.linear(0.3, clipped=True).ticks[-1] == (1.0, "≥ 0.5")
    log = Scale.log(500)
    assert [name for _, name in log.ticks] == ["1e-4", "0.001", "0.01", "0.1", "1"]
    assert [log.part(10.0**-k) for k in (4, 2, 0)] == pytest.approx([0, 0.5, 1])
    assert log.part(0.0) == 0


def test_what_is_no_number_has_the_colour_of_nothing() -> None:
    nothing, most = LIGHT.pixels(np.array([0.0, 1.0])).tolist()
    assert LIGHT.pixels(np.array([np.nan, np.inf, -np.inf])).tolist() == [nothing, most, nothing]


def test_an_error_that_is_no_number_is_never_none() -> None:
    found = look_at("decoder")
    layer = found.layers["decoder.0"]
    query = layer.query.clone()
    query[0] = torch.nan
    broken = replace(layer, query=query)
    known = Look(found.sides, {"decoder.0": broken, "decoder.1": found.layers["decoder.1"]})
    assert math.isnan(known.error) and math.isnan(broken.error)
    assert [one["error"] < 1e-4 for one in payload(known)["layers"]] == [False, True]
