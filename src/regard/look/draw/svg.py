"""Write a picture as SVG: text stays text, small matrices are shapes, large ones one image of pixels.

The same picture gives the same bytes. Words of strangers are text there, whatever they hold: markup is escaped, and
what could steer or reorder is a visible escape.
"""

from __future__ import annotations

import base64
import itertools
import re
import struct
import zlib
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from regard.checkpoints.files import atomic_file
from regard.look.draw.colours import DARK, LIGHT
from regard.look.draw.layout import lay_out
from regard.look.draw.picture import Picture
from regard.look.draw.scene import Box, Curve, Image, Item, Letters, Scene, Strip

__all__ = ["svg", "write_svg"]

_FONTS = (
    "'Noto Sans','Helvetica Neue',Arial,'DejaVu Sans',"
    "'Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif"
)
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def svg(picture: Picture, *, dark: bool = False, bare: bool = False) -> str:
    """Draw a picture as SVG.

    Args:
        picture: what `regard.look.draw.views` made of a look.
        dark: for a dark ground.
        bare: without title and caption, where a paper has its own.
    """
    return _write(lay_out(picture, DARK if dark else LIGHT, bare=bare))


def write_svg(picture: Picture, path: str | Path, *, dark: bool = False, bare: bool = False) -> None:
    """Write `svg` to a file, whole or not at all."""
    text = svg(picture, dark=dark, bare=bare)
    with atomic_file(Path(path)) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def _write(scene: Scene) -> str:
    width, height = _number(scene.width), _number(scene.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="{_FONTS}">',
        f"<title>{_text(scene.title)}</title>",
        f"<desc>{_text(scene.description)}</desc>",
        f'<rect width="{width}" height="{height}" fill="{scene.ground}"/>',
    ]
    strips = 0
    for is_crisp, items in itertools.groupby(scene.items, lambda item: isinstance(item, Box) and item.crisp):
        lines += ['<g shape-rendering="crispEdges">'] if is_crisp else []
        for item in items:
            if isinstance(item, Strip):
                strips += 1
                lines += _strip(item, f"scale{strips}")
            else:
                lines.append(_item(item))
        lines += ["</g>"] if is_crisp else []
    return "\n".join([*lines, "</svg>", ""])


def _item(item: Item) -> str:
    match item:
        case Box():
            return _box(item)
        case Letters():
            return _letters(item)
        case Curve():
            return _curve(item)
        case Image():
            picture = base64.b64encode(_png(item.pixels)).decode()
            enlarged = item.width >= item.pixels.shape[1]
            how = ' style="image-rendering:pixelated"' if enlarged else ""
            return f'<image {_place(item)} preserveAspectRatio="none"{how} href="data:image/png;base64,{picture}"/>'
        case Strip():
            raise AssertionError("a strip needs a name")


def _box(item: Box) -> str:
    parts = [f"<rect {_place(item)}", f'fill="{item.fill or "none"}"']
    if item.stroke:
        parts.append(f'stroke="{item.stroke}"')
    if item.radius:
        parts.append(f'rx="{_number(item.radius)}"')
    return _closed(" ".join(parts), "rect", item.tip)


def _letters(item: Letters) -> str:
    x, y = _number(item.x), _number(item.y)
    parts = [f'<text x="{x}" y="{y}" font-size="{_number(item.size)}" fill="{item.fill}"']
    if item.anchor != "start":
        parts.append(f'text-anchor="{item.anchor}"')
    if item.bold:
        parts.append('font-weight="600"')
    if item.angle:
        parts.append(f'transform="rotate({_number(item.angle)} {x} {y})"')
    if not item.text.isascii():
        parts.append('unicode-bidi="isolate"')
    if "  " in item.text:
        parts.append('xml:space="preserve"')
    return f"{' '.join(parts)}>{_text(item.text)}</text>"


def _curve(item: Curve) -> str:
    places = [f"{_number(x)} {_number(y)}" for x, y in item.points]
    path = f"M{places[0]}{'C' if len(places) == 4 else 'L'}{' '.join(places[1:])}"
    parts = f'<path d="{path}" fill="none" stroke="{item.stroke}" stroke-width="{_number(item.width)}"'
    parts += ' stroke-linecap="round"'
    if item.opacity < 1:
        parts += f' stroke-opacity="{_number(item.opacity)}"'
    return _closed(parts, "path", item.tip)


def _strip(item: Strip, name: str) -> list[str]:
    last = max(1, len(item.colours) - 1)
    stops = "".join(
        f'<stop offset="{_number(k / last, 4)}" stop-color="{colour}"/>'
        for k, colour in enumerate(item.colours)
    )
    return [
        f"<defs><linearGradient id={quoteattr(name)}>{stops}</linearGradient></defs>",
        f'<rect {_place(item)} fill="url(#{name})"/>',
    ]


def _closed(start: str, name: str, tip: str) -> str:
    return f"{start}><title>{_text(tip)}</title></{name}>" if tip else f"{start}/>"


def _place(item: Box | Image | Strip) -> str:
    x, y, width, height = (_number(v) for v in (item.x, item.y, item.width, item.height))
    return f'x="{x}" y="{y}" width="{width}" height="{height}"'


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def _text(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))


def _png(pixels: np.ndarray) -> bytes:
    """Pack pixels (R, C, 3) as a PNG, with a palette where 256 colours are enough, as they are for one scale."""
    rows, columns, _ = pixels.shape
    flat = pixels.reshape(-1, 3).astype(np.uint32)
    colours, codes = np.unique((flat[:, 0] << 16) | (flat[:, 1] << 8) | flat[:, 2], return_inverse=True)
    assert len(colours) <= 256
    palette = b"".join(int(colour).to_bytes(3, "big") for colour in colours)
    lines = np.zeros(
        (rows, columns + 1), dtype=np.uint8
    )  # each line begins with the number of its filter: none
    lines[:, 1:] = codes.reshape(rows, columns)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", palette),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
