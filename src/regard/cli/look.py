"""`regard look`: what a model attends to in a text, in the terminal and as pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from regard.cli.defaults import choose, is_name
from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.cli.texts import FLAGS, Asked, Flags, Named
from regard.errors import ConfigError, DataError

if TYPE_CHECKING:
    from regard.look.draw.picture import Picture
    from regard.look.reading import Look

_ROWS = 3  # heads whose row of a word is shown
_LARGE = 1024  # tokens from which a matrix is a map
_NARROW = 20  # columns of a terminal, at least: COLUMNS=0 says nothing of it


@dataclass(frozen=True)
class _Wanted:
    """Hold what of a look was asked for."""

    view: str | None
    layer: int | str | None
    head: int | None
    row: str | None
    column: str | None
    shown: dict[str, Any]


def command(
    model: Named = None,
    /,
    *texts: str,
    target: str | None = None,
    pair: str | None = None,
    file: Path | None = None,
    encoding: str = "utf-8",
    max_tokens: OptionalCount = None,
    source_language: str | None = None,
    target_language: str | None = None,
    view: Literal["matrix", "arcs", "overview", "alignment", "heads", "numbers", "map"] | None = None,
    layer: str | None = None,
    head: OptionalCount = None,
    row: str | None = None,
    column: str | None = None,
    words: bool = False,
    hide: Annotated[
        list[Literal["special", "first"]] | None, Parameter(consume_multiple=True, negative=())
    ] = None,
    renormalise: bool = False,
    html: Path | None = None,
    svg: Path | None = None,
    png: Path | None = None,
    dark: bool = False,
    bare: bool = False,
    dpi: OptionalCount = None,
    flags: Flags = FLAGS,
) -> None:
    """Show what a model attends to while it reads a text, or while it writes one.

    Without a layer: every head in little, and a word's row. With --layer: its heads side by side; with --head: its
    matrix; with --row: what that word looks at, in that head or in those that look at most. An encoder-decoder writes
    --target, or what it translates the text to.

    Parameters
    ----------
    texts
        What the model reads: one text.
    target
        What an encoder-decoder writes.
    pair
        The second text, for an encoder of pairs.
    file
        Read the text from a file.
    encoding
        Of --file.
    max_tokens
        For a decoder: write so many tokens after the text first, and look along them too.
    source_language
        As in translate.
    target_language
        As in translate.
    view
        Which picture; unset: as said above.
    layer
        A number, or a name as in encoder.3, cross.0 or encoder.3.5, which names its head too.
    head
        Its number; unset: the mean of a layer's.
    row
        The word that looks, or a token's number from 0 (-1 is the last); it#2 is the second `it`.
    column
        With --view numbers: the word that is looked at; unset: the one that gets most.
    words
        Whole words instead of tokens.
    hide
        Leave out special tokens, the first token, or both.
    renormalise
        Divide what is left of a row by its sum.
    html
        Write one page with the whole interaction.
    svg
        Write the picture as SVG.
    png
        Write the picture as PNG.
    dark
        Pictures on dark ground.
    bare
        Pictures without title and caption.
    dpi
        Pixels an inch of --png; unset: 192.
    """
    files = {name: path for name, path in (("html", html), ("svg", svg), ("png", png)) if path is not None}
    _check(files, view=view, layer=layer, head=head, row=row, column=column, dark=dark or bare, dpi=dpi)
    asked = Asked(_purpose(model, target, flags), model, texts, flags)
    text = _text(asked.texts, file, encoding)
    look = asked.open().look(
        text, target, pair=pair, max_tokens=max_tokens, source_language=source_language,
        target_language=target_language,
    )  # fmt: skip
    wanted = _Wanted(
        view, int(layer) if layer is not None and layer.isdecimal() else layer, head, row, column,
        {"words": words, "hide": tuple(dict.fromkeys(hide or ())), "renormalise": renormalise},
    )  # fmt: skip
    pictures = _pictures(look, wanted)
    if not flags.json:
        _print(pictures, asked.out)
    for name, path in files.items():
        _write(name, path, look, pictures[0], wanted, dark=dark, bare=bare, dpi=192 if dpi is None else dpi)
        asked.out.line(f"{path}: {'a page with every view' if name == 'html' else pictures[0].title}")
    asked.result({"text": text, "pictures": [picture.plain() for picture in pictures], "files": files})


def _check(
    files: dict[str, Path], *, view: str | None, layer: str | None, head: int | None, row: str | None,
    column: str | None, dark: bool, dpi: int | None,
) -> None:  # fmt: skip
    """Refuse flags that would do nothing, and files that can't be written, before anything is loaded."""
    if head is not None and layer is None:
        raise ConfigError(f"--head {head} is of which layer? Give --layer too.")
    if column is not None and view != "numbers":
        raise ConfigError("--column is for --view numbers.")
    if row is not None and view in ("overview", "heads", "matrix", "map"):
        raise ConfigError(
            f"--view {view} shows every row; leave --row out, or choose arcs, alignment or numbers."
        )
    if view == "overview" and layer is not None:
        raise ConfigError("--view overview shows every layer; leave --layer out.")
    if dark and not ("svg" in files or "png" in files):
        raise ConfigError("--dark and --bare are for --svg and --png.")
    if dpi is not None and "png" not in files:
        raise ConfigError("--dpi is for --png.")
    if dpi is not None and dpi < 1:
        raise ConfigError(f"--dpi {dpi} makes no picture; 192 is usual, 600 is for print.")
    places = [_place(path) for path in files.values()]
    if len(set(places)) < len(places):
        raise ConfigError("two pictures can't have one file; give each its own.")


def _place(path: Path) -> str:
    """Give where a file lies, its links followed.

    Raises:
        ConfigError: it can't be written there.
    """
    try:
        place = os.path.realpath(path)
        parent = Path(place).parent if path.is_symlink() else path.parent
        if Path(place).is_dir():
            raise ConfigError(f"{path} can't be written: it is a folder.")
        if not parent.is_dir():
            raise ConfigError(f"{path} can't be written: {parent} is no folder.")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be written: {_reason(error)}.") from None
    return place


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _purpose(model: str | None, target: str | None, flags: Flags) -> str:
    """Choose what the model is for where none is named: the demo's and other translators come first."""
    if flags.model is not None or (model is not None and is_name(model)):
        return "score"
    try:
        choose("translate", lambda note: None)
    except ConfigError:
        return "score" if target is None else "translate"
    return "translate"


def _text(texts: list[str], file: Path | None, encoding: str) -> str:
    if file is not None:
        from regard.data.formats import text_encoding

        if texts:
            raise ConfigError("give a text or --file, not both.")
        name = text_encoding(encoding)
        try:
            return file.read_text(encoding=name).removeprefix("\ufeff").rstrip("\n")
        except UnicodeError:
            raise DataError(f"{file} is no {encoding} text; name its --encoding.") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{file} can't be read: {_reason(error)}.") from None
    if encoding != "utf-8":
        raise ConfigError("--encoding is for --file.")
    if len(texts) != 1:
        raise ConfigError(f"give one text to look at, or --file; there are {len(texts)}.")
    return texts[0]


def _pictures(look: Look, wanted: _Wanted) -> list[Picture]:
    """Make the pictures that were asked for; the first is the one that files get."""
    from regard.look.draw import views
    from regard.look.draw.choice import rank_heads, telling_row, token_of

    shown = views.Shown(**wanted.shown)
    view, layer, head, row = wanted.view, wanted.layer, wanted.head, wanted.row
    if view is None and layer is None and row is None:
        name, number, far = telling_row(look)
        return [views.overview(look, shown), _line(look, name)(look, name, number, far, shown)]
    if layer is None and row is not None and view in (None, "arcs", "alignment"):
        best = rank_heads(look, row)[:_ROWS]
        how: Any = {"arcs": views.arcs, "alignment": views.alignment}
        return [
            how.get(view, _line(look, one.layer))(
                look, one.layer, one.head, token_of(look, one.layer, row), shown
            )
            for one in best
        ]
    if view == "overview":
        return [views.overview(look, shown)]
    where: tuple[str, int | None]
    token: int | str | None = None
    if layer is not None:
        found, head = look.where(layer, head)
        where = found.name, head
    elif row is not None:
        where = rank_heads(look, row)[0][:2]
    else:
        cross = [name for name in look.layers if name.startswith("cross")]
        name, number, token = telling_row(look, cross[-1] if cross else None)
        where = name, number
    if row is not None:
        token = token_of(look, where[0], row)
    return [_one(look, wanted, *where, token)]


def _one(look: Look, wanted: _Wanted, layer: str, head: int | None, token: int | str | None) -> Picture:
    """Make one picture of one layer."""
    from regard.look.draw import views

    shown, view = views.Shown(**wanted.shown), wanted.view
    if view is None:
        large = max(look.layers[layer].shape) > _LARGE and shown.is_plain
        view = "heads" if head is None else "map" if large else "matrix"
        if wanted.row is not None:
            view = "arcs" if look.rows_of(layer) is look.columns_of(layer) else "alignment"
    if view in ("numbers", "map") and not shown.is_plain:
        raise ConfigError(f"--view {view} is of single tokens; leave out --words, --hide and --renormalise.")
    if view == "heads":
        if head is not None and wanted.layer is not None:
            raise ConfigError("--view heads shows all heads of a layer; leave --head out.")
        return views.heads(look, layer, shown)
    if view == "numbers":
        from regard.look.draw.choice import telling_row, token_of

        if head is None or token is None:
            _, head, found = telling_row(look, layer, head)
            token = found if token is None else token
        column = None if wanted.column is None else token_of(look, layer, wanted.column)
        return views.numbers(look, layer, head, token, column)
    if view == "matrix":
        return views.matrix(look, layer, head, shown)
    if view == "map":
        return views.map_of(look, layer, head)
    row = token if wanted.row is not None else None
    return (views.arcs if view == "arcs" else views.alignment)(look, layer, head, row, shown)


def _line(look: Look, layer: str) -> Callable[..., Picture]:
    """Choose how one row of a layer is drawn: over its sentence, or between two."""
    from regard.look.draw import views

    return views.arcs if look.rows_of(layer) is look.columns_of(layer) else views.alignment


def _print(pictures: list[Picture], out: Output) -> None:
    from rich.console import Console

    from regard.look.draw.text import in_terminal

    console = Console(file=out.stream, highlight=False, markup=False, soft_wrap=False)
    console.width = max(_NARROW, console.width)
    for picture in pictures:
        for thing in in_terminal(picture, console.width):
            console.print(thing)


def _write(
    name: str, path: Path, look: Look, picture: Picture, wanted: _Wanted, *, dark: bool, bare: bool, dpi: int
) -> None:  # fmt: skip
    """Write a picture; a page has every view of the layer and the head that were named, or of all.

    Raises:
        DataError: the file can't be written.
    """
    try:
        if name == "html":
            from regard.look.draw.html import write_html

            found, head = (None, None) if wanted.layer is None else look.where(wanted.layer, wanted.head)
            chosen = None if found is None else [found.name]
            write_html(look, path, layers=chosen, heads=None if head is None else [head])
        elif name == "svg":
            from regard.look.draw.svg import write_svg

            write_svg(picture, path, dark=dark, bare=bare)
        else:
            from regard.look.draw.png import write_png

            write_png(picture, path, dark=dark, bare=bare, dpi=dpi)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be written: {_reason(error)}.") from None
