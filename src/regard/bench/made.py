"""The models that are compared: published shapes with drawn weights, written as their families are published.

Each is made once, in a process of its own, below the folder that the sides read from; a folder that is there is taken
as it is. The other libraries' formats are converted from it by their own tools.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

TINY = {"width": 32, "num_heads": 2, "num_layers": 2}
END = "<|endoftext|>"


class Made:
    """Make one model or one of its conversions, once.

    Args:
        kind: "gpt2", "gpt2-ctranslate2", "gpt2-gguf", "marian", "marian-ctranslate2" or "bert".
        folder: what to write; the kinds with a dash read the model beside it.
        seed: of the weights.
        tiny: of a size for tests.
        source: what a conversion reads: the model's folder, or a file in fp16 for a coarser one.
        detail: how a conversion stores weights: float32 or int8; F16, Q8_0 or Q4_0.
        texts: sentences to learn the vocabulary of "bert" from.
    """

    def __init__(
        self, kind: str, folder: str, seed: int, tiny: bool = False, source: str = "", detail: str = "",
        texts: list[str] | None = None,
    ) -> None:  # fmt: skip
        self._work = lambda partial: _KINDS[kind](
            partial, seed=seed, tiny=tiny, source=Path(source), detail=detail, texts=texts or []
        )
        self._folder = Path(folder)

    def run(self) -> None:
        """Write it whole or not at all."""
        if self._folder.exists():
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        partial = self._folder.with_name(self._folder.name + ".partial")
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
        self._work(partial)
        partial.rename(self._folder)


def gpt2(folder: Path, *, seed: int, tiny: bool, **_: Any) -> None:
    """Write GPT-2 with 124 million weights, and a vocabulary of bytes and pairs of bytes."""
    import torch

    import regard
    from regard.data.vocabularies import bytes_of_characters
    from regard.models.families import preset
    from regard.models.transformer import build

    folder.mkdir()
    end = 1000 if tiny else 50_256
    characters = list(bytes_of_characters())
    pairs = [(a, b) for a in characters for b in characters][: end - len(characters)]
    tokens = [*characters, *(a + b for a, b in pairs), END]
    (folder / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8"
    )
    merges = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in pairs)])
    (folder / "merges.txt").write_text(merges + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END, "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = regard.Tokenizer.load(folder)
    ends = {"vocab_size": end + 1, "bos_id": end, "eos_id": end}
    config = preset("gpt2", **ends, **({**TINY, "context": 256} if tiny else {}))
    torch.manual_seed(seed)
    module = build(config).eval()
    _spread(module, 0.05)
    regard.Model(module, tokenizer, config, family="gpt2").save(folder)


def marian(folder: Path, *, seed: int, tiny: bool, **_: Any) -> None:
    """Write a translator of Marian's size: 6 and 6 layers, width 512, and 32,000 tokens; no vocabulary."""
    import torch

    import regard
    from regard.models.families import preset
    from regard.models.transformer import build

    words = 500 if tiny else 32_000
    sizes = {**TINY, "context": 256} if tiny else {}
    config = preset("marian", vocab_size=words, pad_id=words - 1, start_id=words - 1, **sizes)
    torch.manual_seed(seed)
    module: Any = build(config).eval()
    _spread(module, 0.05)
    with torch.no_grad():  # CTranslate2 begins with zeros, and never writes the padding
        for name, parameter in module.named_parameters():
            if "embedding" in name and parameter.shape == (words, config.width):
                parameter[words - 1] = 0
            elif parameter.shape == (words,):
                parameter[words - 1] = -1e4
    regard.Model(module, None, config, family="marian").save(folder)


def bert(folder: Path, *, seed: int, tiny: bool, texts: list[str], **_: Any) -> None:
    """Write a classifier of BERT-base's size with two labels, and word pieces learned from the sentences."""
    import torch

    import regard
    from regard.models.families import preset
    from regard.models.transformer import build

    tokenizer = regard.Tokenizer.train(
        texts, kind="wordpiece", vocab_size=500 if tiny else 30_522, lowercase=True
    )
    ids = {"pad_id": tokenizer.pad_id, "bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    head = {"head": "classify", "labels": ("negative", "positive"), "pooling": "first", "pooler": True}
    head |= {"head_transform": False, "output_bias": False}
    config = preset("bert-base", vocab_size=tokenizer.vocab_size, **ids, **head, **(TINY if tiny else {}))
    torch.manual_seed(seed)
    module = build(config).eval()
    regard.Model(module, tokenizer, config, family="bert").save(folder)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    around = {"cls": ["<bos>", tokenizer.bos_id], "sep": ["<eos>", tokenizer.eos_id]}
    settings["post_processor"] = {"type": "BertProcessing", **around}  # as published models frame a text
    path.write_text(json.dumps(settings), encoding="utf-8")


def ctranslate2(folder: Path, *, source: Path, detail: str, **_: Any) -> None:
    """Convert a model for CTranslate2; `detail` is how its weights are stored (float32, int8)."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return _Vocabulary(source)

    Converter(str(source)).convert(str(folder), quantization=detail)


def gguf(path: Path, *, source: Path, detail: str, **_: Any) -> None:
    """Write a model for llama.cpp; `detail` is how its weights are stored (F16, Q8_0, Q4_0)."""
    from regard.bench.gguf_file import quantise, write_gguf

    if detail == "F16":
        write_gguf(source, path)
    else:
        quantise(source, path, detail)


class _Vocabulary:
    """Stand for a tokenizer where token ids are compared: a word for each id."""

    def __init__(self, folder: Path) -> None:
        self._size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        marian = "marian" in folder.name
        self.eos_token = self.bos_token = word(0 if marian else self._size - 1)
        self.unk_token = word(1)
        self._last = {"<pad>": self._size - 1} if marian else {}

    def get_vocab(self) -> dict[str, int]:
        words = {word(i): i for i in range(self._size - len(self._last))}
        return {**words, **self._last}


def word(token: int) -> str:
    """Give the word that CTranslate2 has for a token's id."""
    return f"t{token}"


def _spread(module: nn.Module, std: float) -> None:
    """Draw the matrices of the blocks wider, so that what they write, and not the embedding, decides the next token."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if (
                parameter.ndim == 2
                and "embedding" not in name
                and "position" not in name
                and "head" not in name
            ):
                parameter.normal_(std=std)


_KINDS: dict[str, Callable[..., None]] = {
    "gpt2": gpt2, "marian": marian, "bert": bert, "gpt2-ctranslate2": ctranslate2, "marian-ctranslate2": ctranslate2,
    "gpt2-gguf": gguf,
}  # fmt: skip
