"""Draw attention as one HTML file that holds everything: a double-click opens it, and it makes no request.

The page may do nothing but run the one script whose hash stands in it, so that a text which holds markup or script is
text there. The script is the component of web/, which a build puts beside this file.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.checkpoints.files import atomic_file
from regard.errors import DependencyError
from regard.look.draw.payload import Pyramids, payload

if TYPE_CHECKING:
    from regard.look.reading import Look

__all__ = ["component", "html", "page", "write_html"]

ASSET = Path(__file__).parent / "assets" / "look.js"

_STYLE = (
    "html,body{height:100%;margin:0}#regard-look{min-height:100%}"
    "body{background:#fdfcf9;color:#1e2229;font:16px/1.5 system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){body{background:#14171c;color:#ebe8e0}}"
    "#regard-look>p{padding:2rem}"
)


def component() -> str:
    """Give the built component, a JavaScript module, as it may stand inside a page.

    Raises:
        DependencyError: it was not built.
    """
    try:
        script = ASSET.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DependencyError(
            "the interactive page was not built; run `make web` in the repository, or install a wheel of regard."
        ) from None
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


def html(
    look: Look, *, layers: Collection[str] | None = None, heads: Collection[int] | None = None,
    title: str | None = None, pyramids: Pyramids = True,
) -> str:  # fmt: skip
    """Draw a look as one HTML page with the whole interaction; the arguments are those of `payload`.

    Raises:
        ConfigError: no such layer or head.
        DependencyError: the component was not built.
    """
    return page(payload(look, layers=layers, heads=heads, title=title, pyramids=pyramids))


def write_html(
    look: Look, path: str | Path, *, layers: Collection[str] | None = None,
    heads: Collection[int] | None = None, title: str | None = None, pyramids: Pyramids = True,
) -> None:  # fmt: skip
    """Write `html` to a file, whole or not at all."""
    text = html(look, layers=layers, heads=heads, title=title, pyramids=pyramids)
    with atomic_file(Path(path)) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def page(data: dict[str, Any]) -> str:
    """Put a payload and the component into one page."""
    script = component()
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(_STYLE)}'",
            "worker-src blob:",
            "img-src data: blob:",
            "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # Only letters, digits and punctuation without a meaning in markup: nothing in it can end the element.
    body = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    body = body.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    name = "".join(c if c.isprintable() else "\ufffd" for c in str(data["title"]))[:200]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{markup.escape(name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        '<div id="regard-look"><p>This page draws attention with a script.</p></div>\n'
        f'<script type="application/json" id="regard-look-data">{body}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
