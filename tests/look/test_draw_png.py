"""Pictures as PNG: the shapes of the SVG, at a resolution of choice, without a trace in matplotlib."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from tests.look.pictures import KINDS, hostile_look, look_at, pictures_of

from regard.config import Kind
from regard.errors import ConfigError
from regard.look.draw import views
from regard.look.draw.colours import DARK, LIGHT
from regard.look.draw.picture import Panels
from regard.look.draw.png import png, write_png
from regard.look.draw.svg import svg


def read(raw: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.rint(imread(io.BytesIO(raw))[..., :3] * 255).astype(int)


def rgb(colour: str) -> list[int]:
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_view_is_painted_the_same_each_time(kind: Kind) -> None:
    for name, picture in pictures_of(look_at(kind)).items():
        dark = name in ("matrix", "row", "overview")
        raw = png(picture, dark=dark, dpi=48)
        assert raw == png(picture, dark=dark, dpi=48)
        root = ET.fromstring(svg(picture))
        columns, rows = struct.unpack(">II", raw[16:24])
        assert (columns, rows) == (float(root.attrib["width"]) // 2, float(root.attrib["height"]) // 2)
        assert read(raw)[0, 0].tolist() == rgb((DARK if dark else LIGHT).ground)


def test_cells_have_the_colours_of_their_weights() -> None:
    picture = views.matrix(look_at("encoder"), 0, 0)
    assert isinstance(picture.data, Panels)
    image = read(png(picture, dpi=96))
    parts = picture.scale.parts(picture.data.panels[0].values.numpy())
    cells = [one for one in ET.fromstring(svg(picture)).iter("{http://www.w3.org/2000/svg}rect") if len(one)]
    for cell, part in zip(cells, parts.flatten(), strict=True):
        x, y = round(float(cell.attrib["x"])) + 3, round(float(cell.attrib["y"])) + 3
        assert image[y, x].tolist() == rgb(LIGHT.colour(float(part)))


def test_hostile_words_are_no_formulas_and_warn_of_nothing() -> None:
    for picture in pictures_of(hostile_look()).values():
        assert png(picture, dpi=40).startswith(b"\x89PNG")


def test_settings_of_matplotlib_stay_and_are_not_read() -> None:
    import matplotlib as mpl

    picture = views.arcs(look_at("decoder"), 0, 0)
    before, plain = dict(mpl.rcParams), png(picture, dpi=48)
    with mpl.rc_context({"text.usetex": True, "font.size": 40, "figure.facecolor": "red", "savefig.dpi": 10}):
        assert png(picture, dpi=48) == plain
    assert dict(mpl.rcParams) == before


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    picture = views.overview(look_at("encoder"))
    write_png(picture, tmp_path / "look.png", dpi=48, bare=True)
    assert (tmp_path / "look.png").read_bytes() == png(picture, dpi=48, bare=True)
    with pytest.raises(ConfigError, match="dpi=0"):
        write_png(picture, tmp_path / "other.png", dpi=0)
    with pytest.raises(ConfigError, match="600 is for print"):
        png(picture, dpi=100_000)
    assert [one.name for one in tmp_path.iterdir()] == ["look.png"]
