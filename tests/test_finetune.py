"""Training from a trained model: what is taken, what is new, what learns, and that a stopped run goes on exactly."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.checkpoints.oracle import tiny
from tests.tiny_data import measured, write_all
from tokenizers.processors import TemplateProcessing

import regard
from regard import runs
from regard.checkpoints.files import load_tensors
from regard.cli import main
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError
from regard.models.transformer import build
from regard.tasks import ending
from regard.tasks.base import DataSize
from regard.tasks.registry import get_task
from regard.tasks.starting import freeze
from regard.tasks.stored import open_prepared
from regard.tasks.tuning import gentle
from regard.training.config import TrainConfig
from regard.training.events import Stepped
from regard.training.loss import sequence_loss
from regard.training.optim import layer_scales, make_optimizers, set_learning_rate
from regard.training.weighting import balanced_weights, weighted_loss

FAST = {"precision": "fp32", "steps": 4, "evaluate_every": 2, "save_every": 2, "log_every": 1}
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the a dog cat man sees likes ."


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    monkeypatch.setattr(
        ending, "draw_curves", lambda *args, **kwargs: None
    )  # a picture takes as long as a run here
    return tmp_path


def bert(folder):
    """Save a tiny published BERT with its tokenizer, which frames its texts."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=13, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40,
    )  # fmt: skip
    tiny(transformers.BertForMaskedLM, config).save_pretrained(folder)
    return folder


def weights(run):
    return load_tensors(run / "model.safetensors")


def record(run):
    return json.loads((run / "regard.json").read_text())


# What is taken, and what is new


def test_a_published_encoder_learns_to_classify_and_is_saved_as_its_family_does(here):
    transformers = pytest.importorskip("transformers")
    bert(here / "bert")
    events = []
    found = runs.train("classify", "labels.tsv", start="bert", out="run", report=events.append, **FAST)
    assert {"accuracy", "macro_f1"} <= found.evaluation.metrics.keys()
    new = record(here / "run")["start"]["new"]
    assert new == ["pooler.dense.weight", "pooler.dense.bias", "head.output.weight", "head.output.bias"]
    assert any("weights of bert, new are pooler.dense.weight" in getattr(e, "summary", "") for e in events)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained("run").eval()
    assert type(theirs).__name__ == "BertForSequenceClassification"
    ids = torch.tensor([[2, 5, 7, 10, 3]])
    torch.testing.assert_close(
        regard.load("run").logits(ids), theirs(ids).logits.detach(), rtol=1e-4, atol=1e-5
    )
    assert not (here / "run/data/start.safetensors").exists()
    assert (here / "run/confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert "--from bert" in (here / "run/README.md").read_text()
    # the same labels again: the head is taken too
    runs.train("classify", "labels.tsv", start="run", out="again", **FAST)
    assert record(here / "again")["start"]["new"] == []


@pytest.mark.parametrize("task", ["classify", "tag", "fill"])
def test_texts_of_a_published_model_are_framed_once(here, task):
    bert(here / "bert")
    data = {"classify": "labels.tsv", "tag": "tags.conll", "fill": "text.txt"}[task]
    runs.train(task, data, start="bert", out="run", **FAST)
    chosen, parts = get_task(task), runs.load_parts("run")
    stores, _ = open_prepared(here / "run", chosen, record(here / "run"))
    examples = chosen.objective(stores["train"], parts.tokenizer, parts.config, seed=1)
    batch = examples.collate(np.arange(3), seed=1, epoch=0)
    for ids, real in zip(batch["ids"], batch["key_mask"], strict=True):
        row = ids[real].tolist()
        assert (row[0], row[-1]) == (2, 3) and not {2, 3} & set(row[1:-1])
    if task == "tag":
        assert batch["labels"][0, 0] == -100 and batch["labels"][0, 1] >= 0


def test_a_run_of_ours_that_generates_learns_to_classify(here):
    runs.train("generate", "text.txt", out="lm", width=16, num_heads=2, num_layers=1, **{**FAST, "warmup": 2})
    runs.train("classify", "labels.tsv", start="lm", out="run", lr=1e-12, **FAST)
    before, after = weights(here / "lm"), weights(here / "run")
    assert record(here / "run")["start"]["new"] == ["head.output.weight", "head.output.bias"]
    for name in before.keys() - {"head.output.weight"}:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-6)
    config = runs.load_parts("run").config
    assert (config.head, config.pooling, config.labels) == ("classify", "last", ("animal", "other"))


def test_pairs_for_a_published_encoder_decoder_are_framed_once(here):
    transformers = pytest.importorskip("transformers")
    runs.train("translate", ["pairs.en", "pairs.fr"], out="tokens", width=16, num_heads=2, num_layers=1,
               **{**FAST, "steps": 1, "warmup": 1})  # fmt: skip
    words = Tokenizer.load(here / "tokens")
    config = transformers.T5Config(
        vocab_size=words.vocab_size, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
        decoder_start_token_id=0, eos_token_id=2,
    )  # fmt: skip
    tiny(transformers.T5ForConditionalGeneration, config).save_pretrained(here / "t5")
    words.save(here / "t5")
    path = here / "t5/tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = json.loads(TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]).__getstate__())  # fmt: skip
    path.write_text(json.dumps(content))
    runs.train("translate", ["pairs.en", "pairs.fr"], start="t5", out="run", **FAST)
    chosen, parts = get_task("translate"), runs.load_parts("run")
    assert parts.tokenizer.frames and json.loads((here / "run/config.json").read_text())["model_type"] == "t5"
    stores, _ = open_prepared(here / "run", chosen, record(here / "run"))
    batch = chosen.objective(stores["train"], parts.tokenizer, parts.config, seed=1).collate(
        np.arange(2), seed=1, epoch=0
    )
    for name in ("source", "target_out"):
        assert ((batch[name] == 2).sum(1) == 1).all()
    assert (batch["target_in"][:, 0] == 0).all()


@pytest.mark.parametrize(
    ("task", "settings", "problem"),
    [
        ("classify", {"width": 32}, "width follows from bert"),
        ("classify", {"context": 8}, "context follows from bert"),
        ("fill", {"context": 400}, "context=400 is more than bert has, 40"),
        ("classify", {"model": "encoder-tiny"}, "model follows from bert"),
        ("classify", {"tokenizer": "char"}, "tokenizer follows from bert"),
        ("generate", {}, "generate needs a model of kind decoder; bert is an encoder"),
        ("classify", {"freeze": ["encoder.0-7"]}, "this model has no 'encoder.0-7'"),
        ("classify", {"freeze": ["decoder"]}, "this model has no 'decoder'"),
        (
            "classify",
            {"freeze": ["stack", "embedding", "segment_embedding", "pooler", "head"]},
            "nothing is left",
        ),
        ("classify", {"lora": 2, "lora_targets": ["gate"]}, "have no gate"),
        ("classify", {"lora": 2, "freeze": ["embedding"]}, "freeze has no effect with lora"),
        ("classify", {"adapter": True}, "adapter has no effect without lora"),
        ("fill", {"class_weights": "balanced"}, "class_weights='balanced' is for classify and tag"),
        ("fill", {"word_dropout": 0.3}, "word_dropout=0.3 is for classify and tag"),
    ],
)
def test_what_cant_be_is_refused(here, task, settings, problem):
    bert(here / "bert")
    data = {"classify": "labels.tsv"}.get(task, "text.txt")
    with pytest.raises(ConfigError, match=problem):
        runs.train(task, data, start="bert", out="run", **FAST, **settings)


def test_tuning_without_a_model_is_refused(here):
    with pytest.raises(
        ConfigError, match="freeze is for a model that was trained before; name it with --from"
    ):
        runs.train("classify", "labels.tsv", out="run", freeze=["embedding"], **FAST)
    with pytest.raises(CheckpointError, match="nowhere"):
        runs.train("classify", "labels.tsv", out="run", start="./nowhere", **FAST)
    assert not (here / "run").exists()


# What learns


def test_frozen_parts_stay(here):
    bert(here / "bert")
    runs.train(
        "tag", "tags.conll", start="bert", out="run", freeze=["embedding", "encoder.0"], lr=0.01, **FAST
    )
    before, after = load_file(here / "bert/model.safetensors"), load_file(here / "run/model.safetensors")
    for name in before.keys() & after.keys():
        frozen = "embeddings" in name or "layer.0." in name
        assert torch.equal(before[name], after[name]) == frozen, name


def test_freeze_counts_what_it_freezes():
    config = ModelConfig(kind="encoder-decoder", vocab_size=9, width=8, num_heads=2, num_layers=2, context=8)
    module = build(config)
    assert freeze(module, ["decoder.1"]) == sum(p.numel() for p in module.decoder.blocks[1].parameters())
    assert all(p.requires_grad for p in module.encoder.parameters())
    assert freeze(module, ["encoder.blocks.0.attention"]) == sum(
        p.numel()
        for m in (module.decoder.blocks[1], module.encoder.blocks[0].attention)
        for p in m.parameters()
    )


def test_layers_learn_at_rates_of_their_own():
    config = ModelConfig(kind="encoder", vocab_size=9, width=8, num_heads=2, num_layers=2, context=8)
    module = build(config)
    scales = layer_scales([n for n, _ in module.named_parameters()], 0.5)
    assert scales["embedding.weight"] == 0.125
    assert scales["stack.blocks.0.attention.query.weight"] == 0.25
    assert scales["stack.blocks.1.feed_forward.up.bias"] == 0.5
    both = layer_scales(["encoder.blocks.0.x", "decoder.blocks.0.x", "decoder.norm_out.weight"], 0.5)
    assert list(both.values()) == [0.25, 0.5, 1.0]
    for optimizer in ("adamw", "muon"):
        made = make_optimizers(module, TrainConfig(steps=1, optimizer=optimizer, layer_decay=0.5))
        set_learning_rate(made, 0.1)
        rates = {id(p): g["lr"] for o in made for g in o.param_groups for p in g["params"]}
        assert {n: rates[id(p)] for n, p in module.named_parameters()} == {
            n: pytest.approx(0.1 * scales[n]) for n, _ in module.named_parameters()
        }


def test_rates_fall_with_the_width_and_rise_for_adapters():
    size, suited = DataSize(1000, 100_000), {"batch_tokens": 1000}
    base = gentle(suited, 768, size, lora=False)
    assert 2e-5 <= base["lr"] <= 5e-5 and base["epochs"] == 3
    assert (
        gentle(suited, 1024, size, lora=False)["lr"]
        < base["lr"]
        < gentle(suited, 128, size, lora=False)["lr"]
    )
    assert gentle(suited, 768, size, lora=True)["lr"] == pytest.approx(10 * base["lr"])
    assert TrainConfig.from_dict(base).warmup < 3 * 25


def test_balanced_classes_weigh_the_same():
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 3])
    found = balanced_weights(labels, 4)
    assert found.tolist() == pytest.approx([9 / 18, 9 / 6, 1.0, 9 / 3])
    config = ModelConfig(
        kind="encoder", vocab_size=9, width=8, num_heads=2, num_layers=1, context=8, head="classify",
        labels=("a", "b", "c", "d"),
    )  # fmt: skip
    module = build(config).eval()
    batch = {
        "ids": torch.randint(0, 9, (9, 5)), "key_mask": torch.ones(9, 5, dtype=torch.bool),
        "labels": torch.tensor(labels),
    }  # fmt: skip
    sums = weighted_loss(found)(module, batch)
    each = torch.nn.functional.cross_entropy(module(batch["ids"]), batch["labels"], reduction="none")
    torch.testing.assert_close(sums.loss, (found[batch["labels"]] * each).sum())
    torch.testing.assert_close(
        weighted_loss(torch.ones(4))(module, batch).loss, sequence_loss(module, batch).loss
    )
    tagger = build(config.replace(head="tag")).eval()
    tags = torch.where(torch.rand(9, 5) < 0.5, torch.randint(0, 4, (9, 5)), -100)
    marked = {**batch, "labels": tags}
    torch.testing.assert_close(
        weighted_loss(torch.ones(4))(tagger, marked).loss, sequence_loss(tagger, marked).loss
    )


# LoRA in a run


def test_a_run_with_adapters_keeps_them_and_the_merged_weights(here):
    bert(here / "bert")
    runs.train(
        "tag", "tags.conll", start="bert", out="run", lora=2, lora_targets=["query", "up"], adapter=True, lr=0.05,
        **FAST,
    )  # fmt: skip
    before, after = load_file(here / "bert/model.safetensors"), load_file(here / "run/model.safetensors")
    changed = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert changed == {
        f"bert.encoder.layer.{i}.{part}.weight"
        for i in (0, 1)
        for part in ("attention.self.query", "intermediate.dense")
    }
    assert "lora" not in " ".join(after)
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = transformers.AutoModelForTokenClassification.from_pretrained("bert", num_labels=2)
    theirs = peft.PeftModel.from_pretrained(base, "run/adapter").eval()
    ids = torch.tensor([[2, 5, 7, 10, 3]])
    found = theirs(ids).logits.detach()
    torch.testing.assert_close(regard.load("run").logits(ids), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"lora": 2, "lora_targets": ["query", "down"]}, {"freeze": ["embedding"], "layer_decay": 0.7}],
    ids=["whole", "lora", "frozen"],
)
def test_a_stopped_run_goes_on_bit_for_bit(here, settings, monkeypatch):
    monkeypatch.setattr(ending, "draw_confusion", lambda *args: None)
    bert(here / "bert")
    common = {**FAST, "steps": 5, "lr": 0.01, **settings}
    runs.train("classify", "labels.tsv", start="bert", out="calm", **common)

    def interrupt(event):
        if isinstance(event, Stepped) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = runs.train("classify", "labels.tsv", start="bert", out="run", report=interrupt, **common)
    assert stopped.training.reason == "interrupted" and stopped.training.steps < 5
    (here / "bert").rename(here / "gone")  # a run has all it needs
    runs.train("classify", out="run", resume=True)
    assert measured(here / "run") == measured(here / "calm")
    ours, calm = weights(here / "run"), weights(here / "calm")
    assert ours.keys() == calm.keys() and all(torch.equal(ours[n], calm[n]) for n in calm)


def test_a_run_stopped_before_its_first_save_begins_with_the_same_weights(here, monkeypatch):
    bert(here / "bert")
    monkeypatch.setattr(ending, "draw_confusion", lambda *args: None)
    runs.train("classify", "labels.tsv", start="bert", out="calm", lora=2, **FAST)
    with monkeypatch.context() as patch:

        def killed(*args, **kwargs):
            raise RuntimeError("killed")

        patch.setattr(runs, "Trainer", killed)
        with pytest.raises(RuntimeError, match="killed"):
            runs.train("classify", "labels.tsv", start="bert", out="run", lora=2, **FAST)
    assert (here / "run/data/start.safetensors").is_file()
    runs.train("classify", out="run", resume=True)
    assert all(torch.equal(t, weights(here / "calm")[n]) for n, t in weights(here / "run").items())
    with pytest.raises(ConfigError, match="leave out lora"):
        runs.train("classify", out="run", resume=True, lora=4)


# Folds and tables


def test_folds_hold_every_row_out_once(here, capsys, monkeypatch):
    bert(here / "bert")
    monkeypatch.setattr(ending, "draw_confusion", lambda *args: None)
    words = ["train", "classify", "labels.tsv", "--from", "bert", "--out", "cv", "--folds", "3", "--precision", "fp32",
             "--steps", "2"]  # fmt: skip
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    held = [
        json.loads(line)["text"]
        for i in (1, 2, 3)
        for line in (here / f"cv/fold-{i}/data/valid.jsonl").read_text().splitlines()
    ]
    rows = [line.split("\t")[0] for line in (here / "labels.tsv").read_text().splitlines()[1:]]
    assert sorted(held) == sorted(rows) and held[:20] not in (rows[::3], rows[:20])  # drawn, not every third
    accuracies = [score["accuracy"] for score in said["scores"]]
    assert said["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert said["spread"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    kept = json.loads((here / "cv/folds.json").read_text())
    assert kept["best"] == f"fold-{1 + int(np.argmax(accuracies))}"
    assert kept["mean"] == said["mean"]
    for extra, problem in (
        (["--valid", "labels.tsv"], "leave --valid out"),
        (["--resume"], "--folds needs --out"),
    ):
        assert main([*words[:5], "--folds", "3", "--out", "cv2", *extra]) == 2
        assert problem in capsys.readouterr().err
    assert main(["train", "fill", "text.txt", "--from", "bert", "--out", "cv3", "--folds", "2"]) == 2
    assert "folds are of rows" in capsys.readouterr().err


def test_folds_that_were_stopped_go_on_with_the_same_call(here, monkeypatch):
    bert(here / "bert")
    monkeypatch.setattr(ending, "draw_confusion", lambda *args: None)
    call = {"task": "classify", "data": "labels.tsv", "start": "bert", "folds": 3, **FAST}
    calm = runs.train_folds(out="calm", **call)
    real, count = runs.train, iter(range(9))

    def stopped(*args, **kwargs):
        if next(count) == 1:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(runs, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.train_folds(out="cv", **call)
    assert (here / "cv/fold-1/regard.json").is_file() and not (here / "cv/folds.json").exists()
    with pytest.raises(ConfigError, match="begun with another folds"):
        runs.train_folds(out="cv", **{**call, "folds": 2})
    found = runs.train_folds(out="cv", **call)
    assert found.scores == calm.scores
    assert (here / "cv/folds.json").is_file()
    (here / "other").mkdir()
    (here / "other/file").write_text("x")
    with pytest.raises(ConfigError, match="is not empty"):
        runs.train_folds(out="other", **call)


def test_every_fold_knows_every_label(here, monkeypatch):
    monkeypatch.setattr(ending, "draw_confusion", lambda *args: None)
    (here / "rare.tsv").write_text("text\tlabel\n" + "a b\tx\nb c\ty\n" * 15 + "c d\trare\n")
    found = runs.train_folds("classify", "rare.tsv", folds=3, out="cv", **{**FAST, "model": "encoder-tiny"})
    for number in (1, 2, 3):
        config = json.loads((here / f"cv/fold-{number}/regard.json").read_text())["model"]
        assert config["labels"] == ["rare", "x", "y"]
    assert len(found.scores) == 3


def test_more_folds_than_rows_are_refused(here):
    with pytest.raises(DataError, match="60 rows are too few for 61 folds"):
        runs.train_folds("classify", "labels.tsv", folds=61, out="cv", **FAST)


def test_the_command_line_shows_a_table_of_classes(here, capsys):
    bert(here / "bert")
    words = ["train", "tag", "tags.conll", "--from", "bert", "--out", "run", "--freeze", "embedding", "encoder.0",
             "--class-weights", "balanced", "--layer-decay", "0.9", "--precision", "fp32", "--steps", "2"]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "per class" in said and "true label (rows), answer (columns)" in said and "B-N" in said
    assert (here / "run/confusion.png").is_file()
    assert main(["train", "classify", "labels.tsv", "--lora", "4"]) == 2
    assert "lora is for a model that was trained before; name it with --from" in capsys.readouterr().err
