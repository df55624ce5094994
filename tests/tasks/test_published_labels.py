"""Classify and tag with published models: what the library they come from answers, and what it doesn't do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, TEXT
from tokenizers.processors import TemplateProcessing

import regard
from regard.errors import ConfigError, DataError

transformers = pytest.importorskip("transformers")

ROLES = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
NLI = ["contradiction", "neutral", "entailment"]


def words(kind: str, *, framed: bool = True) -> regard.Tokenizer:
    """Train a tokenizer that puts a frame around a text and around a pair."""
    tokenizer = regard.Tokenizer.train(TEXT.split("\n"), kind=kind, vocab_size=120 if kind != "bpe" else 300)
    backend = tokenizer._backend
    if framed:
        backend.post_processor = TemplateProcessing(
            single="<bos> $A <eos>", pair="<bos> $A <eos> $B:1 <eos>:1",
            special_tokens=[(name, backend.token_to_id(name)) for name in ("<bos>", "<eos>")],
        )  # fmt: skip
    roles = {name.removesuffix("_token"): token for name, token in ROLES.items()}
    return regard.Tokenizer(backend, specials=roles)


def published(
    folder: Path, architecture: str, tokenizer: regard.Tokenizer, labels: list[str], **more: Any
) -> Any:
    """Save a tiny model whose answers differ from text to text, and give it."""
    family = architecture.partition("For")[0]
    sizes: dict[str, Any] = {
        "Bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
                 "max_position_embeddings": 64},
        "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2},
        "Bart": {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
                 "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
                 "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
                 "forced_eos_token_id": None},
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(
        vocab_size=tokenizer.vocab_size, pad_token_id=0, id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)}, **{**sizes[family], **more},
    )  # fmt: skip
    torch.manual_seed(1)
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.0)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model


def pipeline(task: str, model: Any, tokenizer: regard.Tokenizer, **settings: Any) -> Any:
    names = [
        "input_ids",
        "attention_mask",
        *(["token_type_ids"] if model.config.model_type == "bert" else []),
    ]
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._backend, model_input_names=names, **ROLES
    )
    return transformers.pipeline(task, model=model, tokenizer=theirs, device="cpu", **settings)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Let the oracle warn, of its own rules for words for instance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("architecture", "more"),
    [("BertForSequenceClassification", {}), ("GPT2ForSequenceClassification", {}),
     ("BartForSequenceClassification", {}),
     ("BertForSequenceClassification", {"problem_type": "multi_label_classification"})],
)  # fmt: skip
def test_probabilities_are_the_published_ones(
    tmp_path: Path, architecture: str, more: dict[str, Any]
) -> None:
    tokenizer = words("bpe", framed=architecture[:3] != "GPT")
    model = published(tmp_path, architecture, tokenizer, ["good", "bad", "odd"], **more)
    oracle = pipeline("text-classification", model, tokenizer, top_k=None)
    ours = regard.load(tmp_path)
    assert ours.config.multi_label == bool(more)
    found = ours.classify(list(SENTENCES))
    best = set()
    for text, result in zip(SENTENCES, found, strict=True):
        (expected,) = oracle([text])
        assert [choice.label for choice in result.scores] == [row["label"] for row in expected]
        scores = [choice.score for choice in result.scores]
        # weights this wild make of the rounding of the last bit up to 3e-5 of a score, here and there
        assert scores == pytest.approx([row["score"] for row in expected], rel=1e-4, abs=2e-5)
        ids = tokenizer.frame(tokenizer.encode(text))[0]
        assert (result.tokens, result.windows) == (len(ids), 1)
        over = tuple(row["label"] for row in expected if row["score"] >= 0.5)
        assert result.chosen == (over if more else (expected[0]["label"],))
        best.add(tuple(round(score, 3) for score in scores))
    assert len(best) > 1
    again = tmp_path / "again"
    ours.save(again)
    assert regard.load(again).classify(list(SENTENCES)) == found


def test_pairs_are_judged_together(tmp_path: Path) -> None:
    tokenizer = words("bpe")
    model = published(tmp_path, "BertForSequenceClassification", tokenizer, ["no", "yes"])
    oracle, ours = pipeline("text-classification", model, tokenizer, top_k=None), regard.load(tmp_path)
    firsts, seconds = list(SENTENCES[:4]), list(SENTENCES[4:])
    seconds[1] = ""
    for first, second, result in zip(firsts, seconds, ours.classify(firsts, pair=seconds), strict=True):
        expected = oracle({"text": first, "text_pair": second}) if second else None
        if expected is None:
            continue  # the oracle takes an empty second text for none
        assert [c.label for c in result.scores] == [row["label"] for row in expected]
        assert [c.score for c in result.scores] == pytest.approx([row["score"] for row in expected], rel=1e-4)
    alone = ours.classify(firsts[0], pair=seconds[0])
    assert alone.score == pytest.approx(ours.classify(firsts, pair=seconds)[0].score)
    with pytest.raises(ConfigError, match="a list of 4 texts"):
        ours.classify(firsts, pair=seconds[:2])


@pytest.mark.parametrize("names", [NLI, ["ENTAILMENT", "other"]])
@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "BartForSequenceClassification"])
def test_labels_of_ones_own_are_the_published_pipelines(
    tmp_path: Path, architecture: str, names: list[str]
) -> None:
    tokenizer = words("bpe")
    model = published(tmp_path, architecture, tokenizer, names)
    # Weights are so large that in single precision either side is up to 3e-4 away from what is exact.
    oracle, ours = pipeline("zero-shot-classification", model.double(), tokenizer), regard.load(tmp_path)
    labels = ["dog", "tired cat", "rue"]
    for settings in ({}, {"multi_label": True}, {"template": "it was {}"}):
        given: dict[str, Any] = dict(settings)
        found = ours.classify(list(SENTENCES[:3]), labels=labels, **given)
        template = given.pop("template", "This example is {}.")
        for text, result in zip(SENTENCES[:3], found, strict=True):
            expected = oracle(text, labels, hypothesis_template=template, **given)
            assert [choice.label for choice in result.scores] == expected["labels"]
            assert [c.score for c in result.scores] == pytest.approx(expected["scores"], rel=5e-4)
    alone = ours.classify(SENTENCES[0], labels=["dog"])
    expected = oracle(SENTENCES[0], ["dog"], hypothesis_template="This example is {}.")
    assert alone.score == pytest.approx(expected["scores"][0], rel=1e-4)


def test_one_label_is_a_number(tmp_path: Path) -> None:
    tokenizer = words("bpe")
    model = published(
        tmp_path, "BertForSequenceClassification", tokenizer, ["stars"], problem_type="regression"
    )
    ids = torch.tensor([tokenizer.frame(tokenizer.encode(SENTENCES[0]))[0]])
    with torch.no_grad():
        wanted = float(model(ids).logits)
    result = regard.load(tmp_path).classify(SENTENCES[0])
    assert result.label == "stars"
    assert result.score == pytest.approx(wanted, rel=1e-4)
    two = tmp_path / "two"
    published(two, "BertForSequenceClassification", tokenizer, ["a", "b"], problem_type="regression")
    with pytest.raises(regard.RegardError, match="regression with 2 numbers"):
        regard.load(two)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize(("architecture", "kind"), [("Bert", "wordpiece"), ("GPT2", "bpe")])
def test_entities_are_the_published_pipelines(
    tmp_path: Path, architecture: str, kind: str, strategy: str
) -> None:
    tokenizer = words(kind, framed=architecture == "Bert")
    model = published(tmp_path, f"{architecture}ForTokenClassification", tokenizer, TAGS)
    oracle = pipeline("token-classification", model, tokenizer, aggregation_strategy=strategy)
    # Without bytes that share a character, which are one token here.
    texts = [text.rstrip(".") for text in SENTENCES if "," not in text and text.isascii()]
    # Elsewhere the oracle takes punctuation for a part of the word before it.
    if kind == "wordpiece":
        texts += ["the dog, the cat!", "it; was, tired."]
    number = 0
    for text, result in zip(texts, regard.load(tmp_path).tag(texts, strategy=strategy), strict=True):
        expected: list[Any] = []
        for row in oracle(text):
            part = text[row["start"] : row["end"]]
            if part.strip():
                start = row["end"] - len(part.lstrip())
                label = row["entity"] if strategy == "none" else row["entity_group"]
                expected.append(
                    (label, start, start + len(part.strip()), pytest.approx(row["score"], rel=1e-4))
                )
        found = [(one.label, one.start, one.end, one.score) for one in result.entities]
        assert found == expected, text
        number += len(found)
    assert number > 5


def test_punctuation_is_no_part_of_a_name(tmp_path: Path) -> None:
    tokenizer = words("bpe")
    published(tmp_path, "BertForTokenClassification", tokenizer, TAGS)
    ours = regard.load(tmp_path)
    text = 'the dog, the cat; "two birds" sing. l\'animal (fatigué) 👩\u200d👧 e\u0301te\u0301!'
    starts = {entity.start for entity in ours.tag(text).entities}
    ends = {entity.end for entity in ours.tag(text).entities}
    assert starts
    for mark in ',;".()!':
        at = text.index(mark)
        # A mark may be an entity of its own, but no word's tag covers it.
        for entity in ours.tag(text, strategy="none").entities:
            assert not entity.start < at < entity.end - 1
    assert all(text[start] != " " for start in starts)
    assert all(text[end - 1] != " " for end in ends)


def test_long_texts_are_refused_or_read_in_windows(tmp_path: Path) -> None:
    tokenizer = words("bpe")
    published(tmp_path / "c", "BertForSequenceClassification", tokenizer, NLI)
    published(tmp_path / "t", "BertForTokenClassification", tokenizer, TAGS)
    classifier, tagger = regard.load(tmp_path / "c"), regard.load(tmp_path / "t")
    long = ", ".join(SENTENCES * 3)
    length = len(tokenizer.encode(long)) + 2
    for verb in (classifier.classify, tagger.tag):
        with pytest.raises(DataError, match=rf"text 2 .*has {length} tokens; this model's context is 64"):
            verb(["a", long])
        short, cut = verb(["a", long], windows=True)
        assert (short.windows, short.tokens, str(short)) == (1, verb("a").tokens, str(verb("a")))
        assert cut.windows > 2
        assert str(cut) == str(verb(long, windows=True))
        assert cut.tokens > length
    own = classifier.classify(long, labels=["dog", "a much longer label"], windows=True)
    assert sum(choice.score for choice in own.scores) == pytest.approx(1)
    with pytest.raises(DataError, match="--windows"):
        classifier.classify(long, pair="a")
    with pytest.raises(ConfigError, match="no room beside"):
        classifier.classify(long, pair="the animal " * 30, windows=True)
