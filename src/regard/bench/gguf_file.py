"""A GPT-2 model as a GGUF file, for llama.cpp.

The names of tensors and settings are those of the format's published lists (ggml's docs/gguf.md, and the `gguf`
package's table of architectures): a block's norms are attn_norm and ffn_norm, its projections attn_qkv, attn_output,
ffn_up and ffn_down, each (outputs, inputs) as torch's linear layers have them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SINGLE = {
    "wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight", "ln_f.weight": "output_norm.weight",
    "ln_f.bias": "output_norm.bias",
}  # fmt: skip
_BLOCK = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
_NORMAL, _CONTROL = 1, 3  # kinds of tokens


def gguf_name(name: str) -> str | None:
    """Give the name in GGUF of a tensor of a GPT-2 folder; None for what is no weight.

    >>> gguf_name("transformer.h.3.attn.c_attn.weight")
    'blk.3.attn_qkv.weight'
    """
    name = name.removeprefix("transformer.")
    if name in _SINGLE:
        return _SINGLE[name]
    parts = name.split(".")
    piece, last = ".".join(parts[2:-1]), parts[-1]
    if parts[0] == "h" and piece in _BLOCK and last in ("weight", "bias"):
        return f"blk.{parts[1]}.{_BLOCK[piece]}.{last}"
    return None


def write_gguf(folder: Path, path: Path) -> None:
    """Write the GPT-2 model of a folder (config.json, model.safetensors, vocab.json, merges.txt) as one file in fp16.

    Matrices are fp16, vectors and positions fp32, as the format's tools write them.
    """
    import gguf
    import numpy as np
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_name("regard-bench")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_vocabulary(writer, folder)
    with safe_open(str(folder / "model.safetensors"), framework="numpy") as weights:
        for name in weights.keys():  # noqa: SIM118
            theirs = gguf_name(name)
            if theirs is None:
                continue
            tensor = weights.get_tensor(name)
            if tensor.ndim == 2 and theirs.startswith("blk."):
                tensor = tensor.T  # GPT-2's own files hold (inputs, outputs)
            half = tensor.ndim == 2 and theirs != "position_embd.weight"
            writer.add_tensor(theirs, np.ascontiguousarray(tensor, np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: Path, path: Path, kind: str) -> None:
    """Write a file anew as llama.cpp's own tool does: kind "Q8_0" or "Q4_0"."""
    import llama_cpp

    settings: Any = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = 1
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), settings)
    if code:
        raise RuntimeError(f"llama.cpp could not write {path.name}: {code}")


def _add_vocabulary(writer: Any, folder: Path) -> None:
    words = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    tokens = sorted(words, key=words.__getitem__)
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    end = words["<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if k == end else _NORMAL for k in range(len(tokens))])
    writer.add_token_merges([merge for merge in merges if merge])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
