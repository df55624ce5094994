"""A folder that is saved again keeps what others need to use it: inputs, tokenizer settings, search, sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import regard
from regard.conversion import convert
from regard.tasks.record import describe

transformers = pytest.importorskip("transformers")

TEXT = "the cat sat on the mat. a dog runs in the park! hello world, how are you?"


@pytest.fixture(scope="module")
def words() -> regard.Tokenizer:
    return regard.Tokenizer.train(TEXT.split("."), kind="bpe", vocab_size=290)


def published(folder: Path, tokenizer: regard.Tokenizer, name: str, kind: str, **settings: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(vocab_size=tokenizer.vocab_size, **settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}{kind}")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model


LLAMA = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64,
}  # fmt: skip
BERT = {**LLAMA, "type_vocab_size": 2}
BART = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "kind", "settings", "segments"),
    [
        ("GPT2", "LMHeadModel", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}, False),
        ("Llama", "ForCausalLM", LLAMA, False),
        ("DistilBert", "ForMaskedLM", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}, False),
        ("Bert", "ForMaskedLM", BERT, True),
    ],
)
def test_the_usual_call_elsewhere_gives_our_logits(
    tmp_path: Path, words: regard.Tokenizer, name: str, kind: str, settings: dict[str, Any], segments: bool
) -> None:
    published(tmp_path / "read", words, name, kind, **settings)
    ours = regard.load(tmp_path / "read")
    ours.save(tmp_path / "written")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "written")
    model = getattr(transformers, f"{name}{kind}").from_pretrained(tmp_path / "written").eval()
    inputs = theirs("the cat sat", return_tensors="pt")
    assert ("token_type_ids" in inputs) is segments
    with torch.no_grad():
        torch.testing.assert_close(
            model(**inputs).logits, ours.logits(inputs["input_ids"]), atol=1e-5, rtol=1e-5
        )


def test_a_published_tokenizer_keeps_its_class_and_settings(tmp_path: Path, words: regard.Tokenizer) -> None:
    source = tmp_path / "source"
    words.save(source)
    own = {
        "tokenizer_class": "RobertaTokenizer", "model_max_length": 512, "add_prefix_space": True,
        "mask_token": "<mask>", "cls_token": "<bos>", "sep_token": "<eos>", "chat_template": "{{ messages }}",
        "tokenizer_file": "nowhere.json",
    }  # fmt: skip
    (source / "tokenizer_config.json").write_text(json.dumps(own))
    loaded = regard.Tokenizer.load(source)
    loaded.save(tmp_path / "again", segments=False)
    written = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    own.pop("tokenizer_file")
    assert written == {**own, "model_input_names": ["input_ids", "attention_mask"]}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert type(theirs).__name__ == "RobertaTokenizerFast" and theirs.mask_token_id == words.mask_id
    loaded.chat_template = "{{ other }}"
    loaded.save(tmp_path / "other")
    assert regard.Tokenizer.load(tmp_path / "other").chat_template == "{{ other }}"
    # What was trained here takes the names of special tokens for text elsewhere too, also when it is saved again.
    regard.Tokenizer.load(_saved(words, tmp_path / "ours")).save(tmp_path / "twice")
    assert json.loads((tmp_path / "twice" / "tokenizer_config.json").read_text())["split_special_tokens"]
    # A lone tokenizer.json gets the class that opens it, and no rule of ours.
    (source / "tokenizer_config.json").unlink()
    regard.Tokenizer.load(source).save(tmp_path / "lone")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "lone")
    assert theirs("a<eos>").input_ids[-1] == words.eos_id == theirs.eos_token_id


def _saved(tokenizer: regard.Tokenizer, folder: Path) -> Path:
    tokenizer.save(folder)
    return folder


def test_an_older_folder_keeps_how_it_writes(tmp_path: Path, words: regard.Tokenizer) -> None:
    published(tmp_path / "old", words, "Bart", "ForConditionalGeneration", **BART)
    (tmp_path / "old" / "generation_config.json").unlink()
    edit(
        tmp_path / "old" / "config.json", num_beams=3, no_repeat_ngram_size=2, min_length=5, max_length=12,
        eos_token_id=[2, 9], task_specific_params={"summarization": {"min_length": 7, "prefix": "say: "}},
    )  # fmt: skip
    one = regard.load(tmp_path / "old")
    one.save(tmp_path / "new")
    other = regard.load(tmp_path / "new")
    assert one.parts.published == other.parts.published
    assert other.parts.published is not None and other.parts.published.eos == (2, 9)
    task = other.parts.published.task("summarization")
    assert task is not None and (task.prefix, task.published.min_length) == ("say: ", 7)
    said = json.loads((tmp_path / "new" / "generation_config.json").read_text())
    assert (said["num_beams"], said["eos_token_id"], said["max_length"]) == (3, [2, 9], 12)
    # A file of its own without the ends gets those of config.json.
    edit(tmp_path / "old" / "config.json", num_beams=None)
    (tmp_path / "old" / "generation_config.json").write_text('{"num_beams": 2}')
    regard.load(tmp_path / "old").save(tmp_path / "newer")
    said = json.loads((tmp_path / "newer" / "generation_config.json").read_text())
    assert (said["num_beams"], said["eos_token_id"]) == (2, [2, 9])


def test_a_sentence_encoder_is_saved_and_described(tmp_path: Path, words: regard.Tokenizer) -> None:
    source = tmp_path / "source"
    published(source, words, "Bert", "Model", **BERT)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in steps]
    (source / "modules.json").write_text(json.dumps(modules))
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    found = convert(source, tmp_path / "written")
    assert (found.written, found.difference) == ("bert", 0.0)
    one, other = regard.load(source), regard.load(tmp_path / "written")
    assert other.sentences == {"pooling": "mean", "normalise": True, "max_length": 32}
    assert one.embed("the cat").vector.tolist() == other.embed("the cat").vector.tolist()
    assert describe(tmp_path / "written")["sentences"] == other.sentences


def test_convert_measures_what_a_precision_loses(tmp_path: Path, words: regard.Tokenizer) -> None:
    model = published(tmp_path / "read", words, "Llama", "ForCausalLM", **LLAMA)
    found = convert(tmp_path / "read", tmp_path / "half", precision="bf16")
    assert 0 < found.difference < 0.2 * found.scale
    assert convert(tmp_path / "read", tmp_path / "whole").difference == 0
    with torch.no_grad():
        model.model.embed_tokens.weight[7, 3] = 1e6
    model.save_pretrained(tmp_path / "read")
    with (
        pytest.warns(UserWarning, match=r"embedding\.weight.* too large for fp16"),
        pytest.warns(UserWarning, match="NaN or infinite weights"),
    ):
        convert(tmp_path / "read", tmp_path / "small", precision="fp16")
