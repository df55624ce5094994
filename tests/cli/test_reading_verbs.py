"""`regard fill`, `answer`, `embed` and `score`: texts, standard input and files; what they print and refuse."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tasks.small import SENTENCES, make_parts, save, translator, writer

from regard.cli import main
from regard.model import Model, load

MASKED = ["a d[MASK]g runs", "the <mask>nimal was ___ired"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    models = {
        "fill": make_parts("encoder"),
        "answer": make_parts("encoder", head="span", context=96),
        "generate": writer(),
        "translate": translator(),
    }
    return {name: str(save(parts, folder / name)) for name, parts in models.items()}


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_fill_shows_the_candidates_of_each_mask(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load(runs["fill"]).fill(MASKED, top=3)
    lines = shown(capsys, "fill", runs["fill"], *MASKED, "--top", "3").splitlines()
    assert lines[0] == MASKED[0]
    assert [float(line.split()[0]) for line in lines[1:4]] == pytest.approx(
        [one.probability for one in found[0].masks[0]], abs=1e-4
    )
    assert all(line.endswith(one.text) for line, one in zip(lines[1:4], found[0].masks[0], strict=True))
    assert lines[4:6] == [MASKED[1], "  mask 1"]
    assert len(lines) == 4 + 1 + 2 * 4
    feed(monkeypatch, "\n".join(MASKED))
    assert shown(capsys, "fill", runs["fill"], "--top", "3").splitlines() == lines
    first, second = json.loads(shown(capsys, "fill", runs["fill"], *MASKED, "--json"))["fillings"]
    assert (first["source"], first["text"]) == (MASKED[0], found[0].text)
    assert [len(mask) for mask in second["masks"]] == [5, 5]
    assert {"token", "id", "probability", "text"} == set(second["masks"][0][0])


def test_answer_shows_where_the_answer_stands(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    passage = "the animal was too tired"
    found = load(runs["answer"]).answer(passage, question="who?", top=2)
    lines = shown(capsys, "answer", runs["answer"], "--question", "who?", passage, "--top", "2").splitlines()
    for line, one in zip(lines, found.candidates, strict=True):
        assert line.split(maxsplit=2)[1:] == [f"{one.start}-{one.end}", one.text]
    words = (
        "answer",
        runs["answer"],
        passage,
        "a",
        "--question",
        "who?",
        "--json",
        "--allow-none",
        "--top",
        "200",
    )
    first, second = json.loads(shown(capsys, *words))["answers"]
    assert (first["source"], first["question"]) == (passage, "who?")
    assert None in [one["start"] for one in second["candidates"]]
    assert passage[first["start"] : first["end"]] == first["text"]
    assert "no answer" in shown(capsys, *[word for word in words if word != "--json"])


def test_score_shows_a_line_a_text_and_a_table_of_tokens(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = load(runs["generate"]).score("a dog")
    line = shown(capsys, "score", runs["generate"], "a dog")
    assert float(line.split()[0]) == pytest.approx(found.logprob, abs=1e-3)
    assert f"perplexity {found.perplexity:.4g}" in line
    assert line.endswith("5 tokens  a dog\n")
    table = shown(capsys, "score", runs["generate"], "a dog", "--tokens").splitlines()[1:]
    assert table[0].split() == ["token", "from", "to", "nats"]
    assert [float(row.split()[-1]) for row in table[1:]] == pytest.approx(
        [one.logprob for one in found.token_scores], rel=1e-3
    )
    assert "no token was scored" in shown(capsys, "score", runs["generate"], "")
    given = json.loads(shown(capsys, "score", runs["translate"], "a dog", "--source", "le", "--json"))[
        "scores"
    ][0]
    tabbed = json.loads(shown(capsys, "score", runs["translate"], "le\ta dog", "--json"))["scores"][0]
    assert given["logprob"] == tabbed["logprob"]
    assert given["way"] == "conditional"
    assert json.loads(shown(capsys, "score", runs["fill"], "a dog", "--json"))["scores"][0]["way"] == "pseudo"


def test_embed_prints_vectors_and_searches_a_file(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = load(runs["fill"])
    text = shown(capsys, "embed", runs["fill"], "a dog", "a", "--pooling", "first", "--normalise")
    rows = [[float(number) for number in line.split()] for line in text.splitlines()]
    np.testing.assert_allclose(
        rows, [one.vector for one in model.embed(["a dog", "a"], pooling="first", normalise=True)], rtol=1e-4
    )
    found = json.loads(shown(capsys, "embed", runs["generate"], "a dog", "--json"))["embeddings"][0]
    assert (found["source"], len(found["vector"]), found["pooling"]) == ("a dog", 16, "mean")
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(SENTENCES))
    words = ("embed", runs["fill"], "--search", str(lines), SENTENCES[2], "--top", "2")
    first, second = shown(capsys, *words).splitlines()
    assert first.split(maxsplit=2) == ["1.0000", "3", SENTENCES[2]]
    assert float(second.split()[0]) < 1
    matches = json.loads(shown(capsys, *words, "--json"))["searches"][0]["matches"]
    assert [one["number"] for one in matches] == [
        m.number for m in model.search(SENTENCES[2], SENTENCES, top=2).matches
    ]
    lines.write_text("a\n" + "z" * 70)
    assert main(list(words)) == 2
    assert f"{lines}: line 2 ('zzz" in capsys.readouterr().err


VERBS: list[tuple[str, str, list[str], list[str]]] = [
    ("fill", "fill", [], MASKED),
    ("answer", "answer", ["--question", "who?"], list(SENTENCES)),
    ("embed", "fill", [], list(SENTENCES)),
    ("score", "generate", [], ["a dog", "two birds sing."]),
    ("score", "translate", [], ["le\ta dog", "un\ttwo birds"]),
]


@pytest.mark.parametrize(("verb", "run", "flags", "lines"), VERBS)
def test_a_file_gives_a_json_object_a_line(
    verb: str, run: str, flags: list[str], lines: list[str], runs: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    long = "le\t" + "z" * 70 if run == "translate" else "z[MASK]" * 70
    source.write_text("\ufeff" + "\r\n".join([*lines, long]), newline="")
    words = [verb, runs[run], *flags, "--input", str(source), "--output", str(target)]
    assert main(words) == 2
    assert f"{source}:{len(lines) + 1}: has " in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
    shown(capsys, *words, "--skip-bad-rows")
    *rows, last = target.read_text().split("\n")[:-1]
    assert last == ""
    assert len(rows) == len(lines)
    model: Model = load(runs[run])
    for line, row in zip(lines, rows, strict=True):
        found: dict[str, Any] = json.loads(row)
        if verb == "fill":
            assert found["text"] == model.fill(line).text
        elif verb == "answer":
            assert found["start"] == model.answer(line, question="who?").start
        elif verb == "embed":
            assert found["vector"] == pytest.approx(model.embed(line).vector.tolist(), rel=1e-3, abs=1e-5)
        else:
            given, _, text = line.rpartition("\t")
            one = model.score(text, source=given) if given else model.score(text)
            assert found["logprob"] == pytest.approx(one.logprob, rel=1e-4)
            assert "token_scores" not in found


def test_embed_writes_a_matrix(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_text("a\n\nb\n" + "z" * 70)
    words = ["embed", runs["fill"], "--input", str(source), "--output", str(target)]
    assert main(words) == 2
    assert f"{source}:4: has 72 tokens" in capsys.readouterr().err
    assert "4 rows of 16 numbers; rows of NaN for 4" in shown(capsys, *words, "--skip-bad-rows")
    assert np.isnan(np.load(target)).any(1).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fill", "fill", "a dog"], "text 1 ('a dog') has no mask; write [MASK], <mask> or ___"),
        (["fill", "generate", "[MASK]"], "is a decoder and can't fill, which takes an encoder"),
        (["fill", "fill", "[MASK]", "--top", "0"], "top=0"),
        (["fill", "fill", "z" * 70 + "___"], "Shorten it, or read it in windows (--windows)."),
        (["answer", "answer", "a"], "question"),
        (["answer", "answer", "--question", "", "a"], "a question is empty"),
        (["answer", "fill", "--question", "who?", "a"], "can't answer"),
        (["score", "answer", "a"], "can't score"),
        (["score", "translate", "a"], "has no source: give --source, or a source, a tab and a target."),
        (["score", "generate", "a", "--source", "b"], "source has no effect"),
        (["score", "generate", "a", "--stride", "5"], "stride is for the windows"),
        (["embed", "fill", "a", "--top", "3"], "--top is for --search"),
        (["embed", "fill", "a", "--search", "no.txt"], "no.txt can't be read"),
        (["embed", "fill", "a", "--pooling", "meen"], "pooling"),
        (["embed", "fill", "--output", "x.npy"], "--input and --output go together"),
    ],
)
def test_what_can_not_be_is_refused_on_one_line(
    words: list[str], said: str, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words[0], runs[words[1]], *words[2:]]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["fill", "fill", "\x1b[31m \u202e[MASK]"],
        ["answer", "answer", "\x1b[31m \u202ea", "a", "--question", "who?"],
        ["score", "generate", "\x1b[31m \u202ea", "--tokens"],
    ],
)
def test_nothing_that_steers_a_terminal_is_printed(
    words: list[str], runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, words[0], runs[words[1]], *words[2:])
    assert not any(c in text for c in "\x1b\u202e")


@pytest.mark.parametrize("name", ["<eos>", "<pad>", "<bos>"])
def test_the_name_of_a_special_token_is_text(name: str, runs: dict[str, str]) -> None:
    """A token of these models is a character, so a name takes as many as it has letters known to the tokenizer."""
    encoder, writes, finds = (load(runs[run]) for run in ("fill", "generate", "answer"))
    more = len(encoder.tokenizer.encode(name))  # type: ignore[union-attr]
    assert more == len(name)
    assert encoder.fill(f"a [MASK]{name}").tokens == encoder.fill("a [MASK]").tokens + more
    assert encoder.embed(f"a{name}").tokens == encoder.embed("a").tokens + more
    assert writes.score(f"a{name}").scored == 1 + more
    found = finds.answer(f"{name} {name}", question=f"{name}?", top=300)
    assert {one.text[0] for one in found.candidates} == set(name)
    assert found.tokens == 3 + (2 * len(name) + 1) + (len(name) + 1)
