"""Paint a picture as PNG: the shapes that SVG writes, at a resolution of choice, by matplotlib's painter.

Nothing of matplotlib's settings is read where it matters, and none is changed; words are no formulas. A character
that no font here has becomes a box.
"""

from __future__ import annotations

import io
import itertools
from functools import cache
from pathlib import Path
from typing import Any, Literal

from regard.checkpoints.files import atomic_file
from regard.errors import ConfigError
from regard.look.draw.colours import DARK, LIGHT
from regard.look.draw.layout import lay_out
from regard.look.draw.picture import Picture
from regard.look.draw.scene import Box, Curve, Image, Item, Letters, Scene, Strip

__all__ = ["png", "write_png"]

_INCH = 96.0  # units of a scene
_POINT = 72.0 / _INCH
_MOST = 2**28  # pixels
# Families that have what the first lacks; others are asked only where none of these is there.
_FIRST = "DejaVu Sans"
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Arial Unicode MS", "Unifont",
)  # fmt: skip
_NO_GLYPH = "\u25a1"


def png(picture: Picture, *, dark: bool = False, bare: bool = False, dpi: int = 192) -> bytes:
    """Draw a picture as PNG.

    Args:
        picture: what `regard.look.draw.views` made of a look.
        dark: for a dark ground.
        bare: without title and caption.
        dpi: pixels an inch; 96 draws a unit of the SVG as a pixel.

    Raises:
        ConfigError: the picture would be too large.
    """
    return _paint(lay_out(picture, DARK if dark else LIGHT, bare=bare), dpi)


def write_png(
    picture: Picture, path: str | Path, *, dark: bool = False, bare: bool = False, dpi: int = 192
) -> None:
    """Write `png` to a file, whole or not at all."""
    made = png(picture, dark=dark, bare=bare, dpi=dpi)
    with atomic_file(Path(path)) as temporary:
        temporary.write_bytes(made)


def _paint(scene: Scene, dpi: int) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if dpi < 1 or scene.width * scene.height * (dpi / _INCH) ** 2 > _MOST:
        raise ConfigError(
            f"dpi={dpi} makes no picture of a size that can be; 192 is usual, 600 is for print."
        )
    figure = Figure(
        figsize=(scene.width / _INCH, scene.height / _INCH), dpi=dpi, facecolor=scene.ground, edgecolor="none"
    )  # fmt: skip
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.set_autoscale_on(False)
    order = 0
    for is_plain, items in itertools.groupby(scene.items, _is_plain):
        if is_plain:
            order += 1
            _add_cells(axes, [item for item in items if isinstance(item, Box)], order)
            continue
        for item in items:
            order += 1
            _add(axes, item, order)
    made = io.BytesIO()
    canvas.print_png(made, metadata={"Software": None})
    return made.getvalue()


def _is_plain(item: Item) -> bool:
    return isinstance(item, Box) and item.crisp and item.fill is not None and not item.stroke


def _add_cells(axes: Any, items: list[Box], order: int) -> None:
    """Draw many rectangles as one thing, which is ten times as quick."""
    from matplotlib.collections import PolyCollection

    outlines = [
        ((b.x, b.y), (b.x + b.width, b.y), (b.x + b.width, b.y + b.height), (b.x, b.y + b.height))
        for b in items
    ]
    colours = [item.fill for item in items]
    cells = PolyCollection(outlines, facecolors=colours, edgecolors="none", linewidths=0, antialiaseds=False)
    cells.set_zorder(order)
    cells.set_snap(True)
    axes.add_artist(cells)


def _add(axes: Any, item: Item, order: int) -> None:
    match item:
        case Box():
            _add_box(axes, item, order)
        case Letters():
            _add_letters(axes, item, order)
        case Curve():
            _add_curve(axes, item, order)
        case Image():
            smooth = "nearest" if item.width >= item.pixels.shape[1] else "antialiased"
            _add_image(axes, item, item.pixels, smooth, order)
        case Strip():
            from matplotlib.colors import to_rgb

            colours = [[to_rgb(colour) for colour in item.colours]]
            _add_image(axes, item, colours, "bilinear", order)


def _add_image(axes: Any, item: Image | Strip, pixels: Any, smooth: str, order: int) -> None:
    from matplotlib.image import AxesImage

    image = AxesImage(
        axes, extent=(item.x, item.x + item.width, item.y + item.height, item.y), interpolation=smooth,
        origin="upper", resample=False, zorder=order,
    )  # fmt: skip
    image.set_data(pixels)
    axes.add_artist(image)


def _add_box(axes: Any, item: Box, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    look: dict[str, Any] = {
        "facecolor": item.fill or "none", "edgecolor": item.stroke or "none",
        "linewidth": _POINT if item.stroke else 0, "antialiased": not item.crisp, "zorder": order, "snap": item.crisp,
    }  # fmt: skip
    if item.radius:
        style = f"round,pad=0,rounding_size={item.radius}"
        axes.add_artist(FancyBboxPatch((item.x, item.y), item.width, item.height, boxstyle=style, **look))
    else:
        axes.add_artist(Rectangle((item.x, item.y), item.width, item.height, **look))


def _add_letters(axes: Any, item: Letters, order: int) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    text, families = _spelled(item.text)
    font = FontProperties(
        family=list(families), size=item.size * _POINT, weight="bold" if item.bold else "normal", style="normal",
        variant="normal", stretch="normal",
    )  # fmt: skip
    sides: dict[str, Literal["left", "center", "right"]] = {
        "start": "left",
        "middle": "center",
        "end": "right",
    }
    axes.add_artist(
        Text(
            item.x, item.y, text, color=item.fill, fontproperties=font, rotation=-item.angle,
            rotation_mode="anchor", horizontalalignment=sides[item.anchor],
            verticalalignment="baseline", usetex=False, parse_math=False, zorder=order,
        )
    )  # fmt: skip


def _add_curve(axes: Any, item: Curve, order: int) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    codes = [Outline.MOVETO, *([Outline.CURVE4] * 3 if len(item.points) == 4 else [Outline.LINETO])]
    axes.add_artist(
        PathPatch(
            Outline(item.points, codes), facecolor="none", edgecolor=item.stroke, linewidth=item.width * _POINT,
            alpha=item.opacity, capstyle="round", zorder=order,
        )
    )  # fmt: skip


@cache
def _spelled(text: str) -> tuple[str, tuple[str, ...]]:
    """Choose the families that have a text's characters, and put a box for what none has."""
    families, missing = [_FIRST], {ord(c) for c in text if not c.isascii()} - _glyphs(_FIRST)
    if missing:
        for family in (*_FAMILIES, *_others()):
            found = missing & _glyphs(family)
            if found:
                families.append(family)
                missing -= found
            if not missing:
                break
    return "".join(_NO_GLYPH if ord(c) in missing else c for c in text), tuple(families)


@cache
def _files() -> dict[str, Any]:
    """Find the upright faces of the fonts that are here, by family."""
    from matplotlib.font_manager import fontManager

    found: dict[str, Any] = {}
    for entry in fontManager.ttflist:
        if entry.style == "normal" and (
            entry.name not in found or str(entry.weight) in ("400", "normal", "regular")
        ):
            found[entry.name] = entry
    return found


@cache
def _others() -> tuple[str, ...]:
    return tuple(sorted(set(_files()) - {_FIRST, *_FAMILIES, "Last Resort High-Efficiency", "Last Resort"}))


@cache
def _glyphs(family: str) -> frozenset[int]:
    """List the characters that a family has; none if it isn't here, or holds pictures that can't be painted."""
    from matplotlib.ft2font import FT2Font

    entry = _files().get(family)
    if entry is None or "color" in family.casefold():
        return frozenset()
    try:
        return frozenset(FT2Font(entry.fname).get_charmap())
    except (OSError, RuntimeError):  # a font that is broken, or of bitmaps
        return frozenset()
