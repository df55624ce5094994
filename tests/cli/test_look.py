"""`regard look`: what is shown, what is written, and what is refused on one line."""

from __future__ import annotations

import json
import os
import threading
import unicodedata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.tasks.small import make_parts, save

from regard.cli import main
from regard.look.draw.html import ASSET
from regard.model import load

TEXT = "the dog sings"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    kinds = ("encoder", "decoder", "encoder-decoder")
    return {kind: str(save(make_parts(kind, words="bpe"), folder / kind)) for kind in kinds}


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0) -> str:
        assert main(["look", *words]) == code, capsys.readouterr().err
        found = capsys.readouterr()
        return found.out if code == 0 else found.err

    return run


def given(kind: str) -> list[str]:
    return ["--target", "un chat"] if kind == "encoder-decoder" else []


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_it_shows_every_head_and_then_a_row(models: dict[str, str], kind: str, ran: Any) -> None:
    lines = ran(models[kind], TEXT, *given(kind)).splitlines()
    assert lines[0] == "Every head of every layer"
    assert any(line.startswith(f"  {'encoder' if kind != 'decoder' else kind}.1") for line in lines)
    assert any("looks at" in line for line in lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("view", ["matrix", "arcs", "overview", "alignment", "heads", "numbers", "map"])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_every_view_is_shown_and_written(
    models: dict[str, str], kind: str, view: str, ran: Any, tmp_path: Path
) -> None:
    files = [
        "--svg",
        str(tmp_path / "a.svg"),
        "--dark",
        *(["--png", str(tmp_path / "a.png")] if view == "arcs" else []),
    ]
    found = json.loads(ran(models[kind], TEXT, *given(kind), "--view", view, *files, "--json"))
    assert [picture["view"] for picture in found["pictures"]] == [view]
    assert all(picture["how"] and picture["error"] < 1e-4 for picture in found["pictures"])
    ET.parse(tmp_path / "a.svg")
    assert view != "arcs" or (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ran(models[kind], TEXT, *given(kind), "--view", view)


def test_numbers_are_the_looks(models: dict[str, str], ran: Any) -> None:
    look = load(models["encoder-decoder"]).look(TEXT, "un chat")
    words = [models["encoder-decoder"], TEXT, "--target", "un chat", "--json"]
    (picture,) = json.loads(ran(*words, "--layer", "cross.1", "--head", "1"))["pictures"]
    assert picture["panels"][0]["values"] == look.weights("cross.1", 1).values.tolist()
    assert picture["panels"][0]["how"] == look.weights("cross.1", 1).how
    hidden = [
        "--layer",
        "encoder.0.1",
        "--row",
        "dog",
        "--words",
        "--hide",
        "special",
        "first",
        "--renormalise",
    ]
    (picture,) = json.loads(ran(*words, *hidden))["pictures"]
    row = look.row("encoder.0.1", None, "dog", words=True, hide=("special", "first"), renormalise=True)
    assert [one["weight"] for one in picture["links"]] == pytest.approx(row.values.tolist())
    assert [one["to"] for one in picture["links"]] == [word.text for word in row.columns]
    assert "renormalised" in picture["how"]
    (picture,) = json.loads(ran(*words, "--layer", "cross.0", "--head", "0", "--view", "numbers", "--row", "1",
                                "--column", "dog"))["pictures"]  # fmt: skip
    assert picture["steps"][-1]["value"] <= 1 and picture["column"] in "dog"


def test_a_row_without_a_layer_is_shown_in_the_heads_that_look_most_at_others(
    models: dict[str, str], ran: Any
) -> None:
    look = load(models["encoder"]).look(TEXT)
    found = json.loads(ran(models["encoder"], TEXT, "--row", "sings", "--json"))["pictures"]

    def share(layer: str, head: int) -> float:
        row = look.row(layer, head, "sings")
        return sum(
            float(value) for value, column in zip(row.values, row.columns, strict=True)
            if not column.special and column.start > 0 and not row.word.start <= column.start < row.word.end
        )  # fmt: skip

    every = sorted((share(layer, head) for layer in look.layers for head in range(2)), reverse=True)
    assert [share(one["layer"], one["head"]) for one in found] == pytest.approx(every[:3])


def test_a_decoder_looks_along_what_it_writes(models: dict[str, str], ran: Any) -> None:
    (picture,) = json.loads(
        ran(
            models["decoder"],
            "the dog",
            "--max-tokens",
            "4",
            "--view",
            "map",
            "--layer",
            "1",
            "--head",
            "0",
            "--json",
        )
    )["pictures"]
    alone = load(models["decoder"]).look("the dog", max_tokens=4)
    assert len(picture["panels"][0]["values"]) == alone.layers["decoder.1"].shape[0]


def test_a_text_comes_from_a_file(models: dict[str, str], ran: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfthe dog\nsings\n")
    found = json.loads(
        ran(models["encoder"], "--file", str(tmp_path / "text"), "--view", "overview", "--json")
    )
    assert found["text"] == "the dog\nsings"
    (tmp_path / "text").write_bytes(b"\xff\xfe")
    assert "is no utf-8 text" in ran(models["encoder"], "--file", str(tmp_path / "text"), code=2)


@pytest.mark.skipif(not ASSET.is_file(), reason="the interactive page was not built")
def test_a_page_is_written(models: dict[str, str], ran: Any, tmp_path: Path) -> None:
    assert "a page with every view" in ran(models["encoder"], TEXT, "--html", str(tmp_path / "look.html"))
    assert "<!doctype html>" in (tmp_path / "look.html").read_text(encoding="utf-8")


def test_hostile_texts_are_text(models: dict[str, str], ran: Any, tmp_path: Path) -> None:
    hostile = "<script>a\x1b[2J</script> \u202edog & \x07"
    shown = ran(models["encoder"], hostile, "--svg", str(tmp_path / "a.svg"))
    shown += ran(models["encoder"], hostile, "--view", "arcs", "--svg", str(tmp_path / "b.svg"))
    for text in (shown, *(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())):
        for character in text.replace("\n", ""):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(character)
    assert not [one for one in ET.parse(tmp_path / "b.svg").iter() if "script" in one.tag]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--row", "doq"], "no word 'doq'. did you mean 'dog'?"),
        (["--layer", "7"], "there is no layer 'encoder.7'"),
        (["--layer", "1", "--head", "9"], "there is no head 9"),
        (["--head", "1"], "of which layer"),
        (["--view", "numbers", "--words"], "single tokens"),
        (["--view", "overview", "--row", "dog"], "leave --row out"),
        (["--view", "heads", "--layer", "1", "--head", "0"], "leave --head out"),
        (["--column", "dog"], "--view numbers"),
        (["--dark"], "--svg and --png"),
        (["--dpi", "9"], "--png"),
        (["--target", "x"], "encoder-decoder"),
        (["--max-tokens", "3"], "for a decoder"),
        (["another"], "give one text"),
        (["--file", "none.txt"], "give a text or --file, not both"),
        (["--svg", "no/such/a.svg"], "no/such is no folder"),
        (["--svg", "."], "it is a folder"),
        (["--svg", "a", "--png", "a"], "each its own"),
        (["--svg", "a", "--png", "../{}/a"], "each its own"),
        (["--svg", "n" * 5000], "name too long"),
        (["--svg", "a\0b"], "can't be written: embedded null byte"),
        (["--png", "a.png", "--dpi", "0"], "--dpi 0 makes no picture"),
        (["--source-language", "en"], "for an encoder-decoder"),
        (["--layer", "encoder.0.²"], "is no head"),
    ],
)
def test_what_cannot_be_is_one_line(
    models: dict[str, str],
    words: list[str],
    said: str,
    ran: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = ran(models["encoder"], TEXT, *(word.format(tmp_path.name) for word in words), code=2)
    assert said.casefold() in found.casefold() and found.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_is_one_line(
    models: dict[str, str], ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import regard.look.draw.svg as drawn

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawn, "write_svg", full)
    assert "can't be written: No space left" in ran(
        models["encoder"], TEXT, "--svg", str(tmp_path / "a.svg"), code=2
    )


def test_without_a_name_a_translator_comes_first(
    models: dict[str, str], ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    save(make_parts("encoder-decoder"), tmp_path / "runs" / "demo")
    found = json.loads(ran(TEXT, "--target", "un chat", "--view", "overview", "--json"))
    assert found["model"] == "runs/demo"


@pytest.mark.parametrize(
    ("name", "said"), [("a\0b", "null byte"), ("n" * 5000, "name too long"), ("no", "No such")]
)
def test_a_file_that_cannot_be_read_is_one_line(
    models: dict[str, str], name: str, said: str, ran: Any
) -> None:
    found = ran(models["encoder"], "--file", name, code=2)
    assert "can't be read" in found and said.casefold() in found.casefold() and found.count("\n") == 1


def test_two_links_to_one_file_are_one_file(models: dict[str, str], ran: Any, tmp_path: Path) -> None:
    (tmp_path / "b.png").symlink_to(tmp_path / "a.svg")
    words = ["--svg", str(tmp_path / "a.svg"), "--png", str(tmp_path / "b.png")]
    assert "each its own" in ran(models["encoder"], TEXT, *words, code=2)
    (tmp_path / "c.svg").symlink_to(tmp_path / "none" / "c.svg")
    assert "none is no folder" in ran(models["encoder"], TEXT, "--svg", str(tmp_path / "c.svg"), code=2)


def test_a_picture_goes_through_a_pipe(models: dict[str, str], ran: Any, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    ran(models["encoder"], TEXT, "--view", "arcs", "--svg", str(pipe))
    reader.join(30)
    assert read[0].startswith(b"<svg") and pipe.is_fifo()


@pytest.mark.skipif(not ASSET.is_file(), reason="the interactive page was not built")
@pytest.mark.parametrize(
    ("words", "layers", "heads"),
    [
        (["--row", "dog"], ["encoder.0", "encoder.1"], [0, 1]),
        (["--view", "matrix"], ["encoder.0", "encoder.1"], [0, 1]),
        (["--layer", "1"], ["encoder.1"], [0, 1]),
        (["--layer", "encoder.1.1", "--row", "dog"], ["encoder.1"], [1]),
    ],
)
def test_a_page_has_every_view_of_what_was_named(
    models: dict[str, str], words: list[str], layers: list[str], heads: list[int], ran: Any, tmp_path: Path
) -> None:
    ran(models["encoder"], TEXT, *words, "--html", str(tmp_path / "look.html"))
    page = (tmp_path / "look.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="regard-look-data">')[1].split("</script>")[0])
    assert [one["name"] for one in data["layers"]] == layers
    assert all(one["heads"] == heads for one in data["layers"])


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_terminal_without_a_width_is_a_narrow_one(
    models: dict[str, str], columns: str, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = ran(models["encoder"], TEXT, "--row", "dog").splitlines()
    assert any("looks at" in line for line in lines) and 10 < max(map(len, lines)) <= 20


def test_tokens_that_find_no_room_are_refused_before_they_are_written(
    models: dict[str, str], ran: Any
) -> None:
    found = ran(models["decoder"], "the dog", "--max-tokens", "9999999", code=2)
    assert "leaves room for" in found and "or less" in found
