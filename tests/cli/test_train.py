"""`regard train`: every task from files to a model directory, and what is refused, kept and said on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny_data import DATA, TINY, measured, sentences, write_all

from regard.checkpoints.files import load_tensors
from regard.cli import main
from regard.runs import load_parts
from regard.tasks.registry import TASKS

FILES = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "regard.json",
    "metrics.jsonl", "curves.png", "checkpoints", "data",
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Be in a folder with small files for every task."""
    monkeypatch.chdir(write_all(tmp_path))
    return tmp_path


def record_of(run):
    return json.loads((run / "regard.json").read_text())


@pytest.mark.parametrize("task", DATA)
def test_every_task_trains_from_files(here, capsys, task):
    assert main(["train", task, *DATA[task], "--out", "run", *TINY, "--json"]) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out)  # exactly one object
    metric = TASKS[task].metric
    assert {"run": "run", "task": task, "steps": 4, "reason": "steps"}.items() <= said.items()
    assert metric in said["metrics"]
    run = here / "run"
    written = {path.name for path in run.iterdir()}
    assert written - {"generation_config.json", "confusion.png"} == FILES
    assert ("confusion.png" in written) == (task in ("classify", "tag"))
    assert ("generation_config.json" in written) == (task in ("translate", "generate", "denoise"))
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    record = record_of(run)
    assert record["precision"] == "fp32"
    assert record["result"]["metrics"] == said["metrics"]
    lines = measured(run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == [2, 4]
    parts = load_parts(run)
    assert sum(p.numel() for p in parts.module.parameters()) == parts.config.num_parameters()
    card = (run / "README.md").read_text()
    assert card.startswith("# run\n")
    assert f"regard train {task} {' '.join(DATA[task])} --" in card
    assert f"| {metric} |" in card
    assert "None" not in card
    assert main(["info", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["steps"] == 4


def test_the_cards_command_makes_the_same_model_in_a_process_of_its_own(here):
    words = [
        "train",
        "translate",
        *DATA["translate"],
        *TINY,
        "--no-bias",
        "--lowercase",
        "--valid",
        "pairs.en",
        "pairs.fr",
    ]
    assert main([*words, "--out", "run"]) == 0
    card = (here / "run" / "README.md").read_text()
    command = re.search(r"```sh\n(regard train .*)\n```", card).group(1)
    (here / "run").rename(here / "first")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=here, env=environment, capture_output=True, text=True, timeout=100
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for name in ("tokenizer.json", "config.json", "generation_config.json"):
        assert (here / "run" / name).read_bytes() == (here / "first" / name).read_bytes(), name
    again, first = (load_tensors(here / run / "model.safetensors") for run in ("run", "first"))
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert measured(here / "run") == measured(here / "first")


def test_flags_reach_the_model_and_the_training(here):
    words = [
        "--model",
        "transformer-base",
        "--no-bias",
        "--dropout",
        "0.25",
        "--position",
        "rotary",
        "--rotary-base",
        "500",
    ]
    assert (
        main(
            [
                "train",
                "translate",
                *DATA["translate"],
                "--out",
                "run",
                *TINY,
                *words,
                "--lr",
                "0.01",
                "--seed",
                "7",
            ]
        )
        == 0
    )
    config = load_parts("run").config
    assert (config.bias, config.dropout, config.position, config.rotary_base) == (
        False,
        0.25,
        "rotary",
        500.0,
    )
    assert config.norm_placement == "post"  # the preset's
    assert config.scale_embeddings
    training = record_of(here / "run")["training"]
    assert (training["lr"], training["seed"], training["epochs"]) == (0.01, 7, None)


def test_lowercase(here):
    (here / "upper.tsv").write_text("".join(f"{s.upper()}\t{s.upper()}\n" for s in sentences()))
    assert main(["train", "translate", "upper.tsv", "--out", "run", "--lowercase", *TINY]) == 0
    tokenizer = load_parts("run").tokenizer
    assert tokenizer.decode(tokenizer.encode("THE DOG")) == "the dog"
    assert "case:lc" in record_of(here / "run")["result"]["details"]["signature"]


def test_columns_and_broken_rows(here, capsys):
    rows = [{"en": s, "fr": s[::-1], "de": "nein"} for s in sentences(30)]
    text = "\n".join(json.dumps(row) for row in rows)
    (here / "rows.jsonl").write_text(f"{text}\n{{broken\n")
    words = ["train", "translate", "rows.jsonl", "--columns", "fr", "en", *TINY]
    assert main([*words, "--out", "run"]) == 2
    assert "rows.jsonl:31: not valid JSON" in capsys.readouterr().err
    assert not (here / "run").exists()
    assert main([*words, "--out", "run", "--skip-bad-rows"]) == 0
    assert "1 broken row is left out" in capsys.readouterr().err
    assert record_of(here / "run")["skipped"] == {"bad_train": 1}
    kept = [json.loads(line) for line in (here / "run" / "data" / "valid.jsonl").read_text().splitlines()]
    assert kept == [{"source": row["fr"], "target": row["en"]} for row in rows[27:]]


def test_standard_input_and_documents(here, monkeypatch):
    class Stream:
        buffer = (here / "text.txt").open("rb")

    monkeypatch.setattr(sys, "stdin", Stream())
    assert (
        main(["train", "generate", "-", "--documents", "line", "--valid", "text.txt", "--out", "run", *TINY])
        == 0
    )
    Stream.buffer.close()
    record = record_of(here / "run")
    assert record["data"] == ["-"]
    assert record["sizes"]["train"]["rows"] == 60


def test_a_trained_tokenizer_from_a_folder(here, capsys):
    assert main(["tokenize", "pairs.en", "pairs.fr", "--out", "words", "--kind", "char"]) == 0
    words = ["train", "translate", *DATA["translate"], "--tokenizer", "words", *TINY]
    assert main([*words, "--out", "run"]) == 0
    assert (here / "run" / "tokenizer.json").read_bytes() == (here / "words" / "tokenizer.json").read_bytes()
    capsys.readouterr()
    assert main([*words, "--out", "other", "--lowercase"]) == 2
    assert "this one is loaded" in capsys.readouterr().err


def test_the_default_folder_is_the_next_free_one(here, capsys):
    for number in (1, 2):
        assert main(["train", "fill", "text.txt", "--json", *TINY]) == 0
        assert json.loads(capsys.readouterr().out)["run"] == f"runs/fill-{number}"
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["fill-1", "fill-2"]


def test_a_folder_that_holds_something_is_not_touched(here, capsys):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    assert main(["train", "fill", "text.txt", "--out", "mine", *TINY]) == 2
    assert "--out mine is not empty; name another folder" in capsys.readouterr().err
    assert [p.name for p in (here / "mine").iterdir()] == ["thesis.txt"]
    (here / "empty").mkdir()
    assert main(["train", "fill", "text.txt", "--out", "empty", *TINY]) == 0


@pytest.mark.parametrize("out", [None, "run", "new/folders/run", "there"])
def test_a_failed_preparation_leaves_nothing_behind(here, capsys, out):
    (here / "there").mkdir()
    before = sorted(here.rglob("*"))
    words = ["train", "translate", *DATA["translate"], "--context", "5", *TINY]
    assert main([*words, *(["--out", out] if out else [])]) == 2
    assert sorted(here.rglob("*")) == before
    assert "pairs.en:1: 54 of 54 texts need more than the context of 5 tokens" in capsys.readouterr().err


def test_texts_that_are_too_long_are_left_out_when_asked(here, capsys):
    pairs = [(s, s) for s in sentences(38)]
    pairs[3] = (" ".join(["dog"] * 30), "dog")
    pairs[7] = ("dog", " ".join(["dog"] * 41))
    (here / "long.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
    words = ["train", "translate", "long.tsv", "--context", "20", *TINY]
    assert main([*words, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"long.tsv:4: 1 of 35 texts .* the longest \d+; set --context \d+, or .* --skip-long", error
    )
    assert main([*words, "--out", "run", "--skip-long"]) == 0
    assert "2 texts are longer than the context of 20 and left out" in capsys.readouterr().err
    assert record_of(here / "run")["skipped"] == {"too_long_train": 2}
    assert record_of(here / "run")["sizes"]["train"]["rows"] == 33
    from regard.data.store import TokenStore

    stores = [TokenStore.open(here / "run" / "data" / "train" / f"{n}.tokens") for n in ("source", "target")]
    tokenizer = load_parts("run").tokenizer
    for store in stores:
        assert [tokenizer.decode(ids).strip() for ids in store] == [
            a for i, (a, _) in enumerate(pairs[:35]) if i not in (3, 7)
        ]


def test_a_larger_vocabulary_than_the_data_gives_is_said(here, capsys):
    assert main(["train", "fill", "text.txt", "--vocab-size", "9000", "--out", "run", *TINY]) == 0
    assert re.search(r"the data gives a vocabulary of \d+ tokens, not 9000", capsys.readouterr().err)


def test_python_takes_what_the_command_line_takes(here):
    from regard import train

    events = []
    settings = {"width": 16, "num_heads": 2, "num_layers": 1, "steps": 2, "precision": "fp32", "warmup": 0}
    found = train("classify", "labels.tsv", out="run", report=events.append, minutes=None, **settings)
    assert found.path == Path("run")
    assert found.training.steps == 2
    assert set(found.evaluation.metrics) >= {"accuracy"}
    kinds = [type(event).__name__ for event in events]
    assert kinds[0] == "Working"
    assert kinds.index("Prepared") < kinds.index("Started") < kinds.index("Ended")
