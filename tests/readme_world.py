"""What README's commands name: small files, and tiny models in the published layouts that stand under their hub ids."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.tasks.readers import framed_tokenizer, put
from tests.tasks.small import TEXT
from tests.tasks.talker import words as chat_tokenizer
from tests.tiny_data import WORDS, sentences

import regard

BOTH: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BERT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
T5_TASKS = {
    "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 12},
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 2, "max_length": 12},
}


def write_files(folder: Path) -> None:
    """Write every file that README's commands read."""
    english = sentences(40)
    french = [" ".join(WORDS[word] for word in line.split()) for line in english]
    draw = random.Random(1)
    texts: dict[str, list[str]] = {
        "train.tsv": [f"{a}\t{b}" for a, b in zip(english, french, strict=True)],
        "valid.tsv": [f"{a}\t{b}" for a, b in zip(english[:6], french[:6], strict=True)],
        "train.en": english, "train.fr": french, "train.de": french, "val.en": english[:6], "val.de": french[:6],
        "test.en": english[:5],
        "book.txt": [f"It was a dark and stormy night; {line}." for line in english],
        "letters.txt": [f"Dear man, {line}." for line in english],
        "articles.txt": english[:8],
        "short.tsv": [f"{line} and {line}\t{line}" for line in english],
        "articles.jsonl": [json.dumps({"text": f"{line}."}) for line in english],
        "talks.jsonl": [
            json.dumps({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]})
            for a, b in zip(english, french, strict=True)
        ],
        "reviews.tsv": ["text\tlabel", *(f"{line}\t{draw.choice(['good', 'bad'])}" for line in english)],
        "films.tsv": ["text\tlabel", *(f"{line}\t{draw.choice(['war', 'war,love', 'love'])}" for line in english)],
        "names.conll": [
            "\n".join(f"{w}\t{'B-PER' if w in ('dog', 'cat', 'man') else 'O'}" for w in line.split()) + "\n"
            for line in english
        ],
        "trec/TREC.train.all": [f"{i % 6} what is the {('name', 'place')[i % 2]} of {i} ?" for i in range(40)],
    }  # fmt: skip
    for name, lines in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_models(folder: Path) -> None:
    """Save tiny random models of the published families, in folders called as their hub ids."""
    import transformers

    plain = regard.Tokenizer.train(TEXT.split("\n"), kind="bpe", vocab_size=300)
    framed, ended = framed_tokenizer(), framed_tokenizer("$A <eos>", "$A <eos> $B <eos>", kind="bpe")
    bart = framed_tokenizer("<bos> $A <eos>", "<bos> $A <eos> <eos> $B <eos>", kind="bpe")
    talking = chat_tokenizer()
    entails = {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}
    names = {"id2label": {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}}

    def size(tokenizer: regard.Tokenizer) -> int:
        return tokenizer.vocab_size

    gpt2 = transformers.GPT2Config(
        vocab_size=size(plain), n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=2
    )
    t5 = transformers.T5Config(
        vocab_size=size(ended), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=0, task_specific_params=T5_TASKS,
    )  # fmt: skip
    put(folder / "openai-community/gpt2", "GPT2LMHeadModel", gpt2, plain)
    put(folder / "openai-community/gpt2-large", "GPT2LMHeadModel", gpt2, plain, seed=2)
    put(folder / "google-t5/t5-small", "T5ForConditionalGeneration", t5, ended)
    for name, head, more in (
        ("google-bert/bert-base-uncased", "MaskedLM", {}),
        ("deepset/bert-base-cased-squad2", "QuestionAnswering", {}),
        ("dslim/bert-base-NER", "TokenClassification", names),
    ):
        config = transformers.BertConfig(vocab_size=size(framed), **BERT, **more)
        put(folder / name, f"BertFor{head}", config, framed)
    for name, family in (
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "Llama"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2"),
    ):
        config = getattr(transformers, f"{family}Config")(vocab_size=size(talking), **LLAMA)
        put(folder / name, f"{family}ForCausalLM", config, talking)
    mnli = transformers.BartConfig(vocab_size=size(bart), decoder_start_token_id=2, **BOTH, **entails)
    put(folder / "facebook/bart-large-mnli", "BartForSequenceClassification", mnli, bart)
    marian = transformers.MarianConfig(vocab_size=size(ended), decoder_start_token_id=0, **BOTH)
    put(folder / "Helsinki-NLP/opus-mt-en-de", "MarianMTModel", marian, ended)
