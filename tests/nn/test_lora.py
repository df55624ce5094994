"""LoRA: it begins as nothing, learns alone, and merged it is what it was applied."""

from __future__ import annotations

import pytest
import torch

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.models.transformer import build
from regard.nn.lora import TARGETS, LoRALinear, adapters, add_lora, merged

ENCODER = ModelConfig(kind="encoder", vocab_size=20, width=16, num_heads=2, num_layers=2, context=16)
DECODER = ModelConfig(
    kind="decoder", vocab_size=20, width=16, num_heads=4, num_kv_heads=2, num_layers=2, context=16, gated=True,
    activation="silu", position="rotary", bias=False,
)  # fmt: skip
BOTH = ModelConfig(kind="encoder-decoder", vocab_size=20, width=16, num_heads=2, num_layers=2, context=16)


def run(module, config):
    ids = torch.arange(24).view(2, 12) % config.vocab_size
    return module(ids, ids.flip(1)) if config.kind == "encoder-decoder" else module(ids)


def adapted(config, *, targets=("query", "value"), rank=3, alpha=6.0):
    torch.manual_seed(1)
    module = build(config).eval()
    before = run(module, config).detach()
    names = add_lora(module, rank=rank, alpha=alpha, targets=targets)
    return module, before, names


@pytest.mark.parametrize("config", [ENCODER, DECODER, BOTH], ids=["encoder", "decoder", "both"])
@torch.no_grad()
def test_merged_is_what_is_applied(config):
    targets = [t for t in TARGETS if t != "gate" or config.gated]
    module, before, names = adapted(config, targets=targets)
    layers = {"encoder": 2 * 6, "decoder": 2 * 7, "encoder-decoder": 2 * 6 + 2 * 10}[config.kind]
    assert len(names) == len(adapters(module.state_dict())) == layers
    # B is zero; without an adapter a processor may have a kernel for whole blocks, which rounds otherwise
    torch.testing.assert_close(run(module, config), before, atol=1e-6, rtol=1e-5)
    for down, up in adapters(module.state_dict()).values():
        assert down.shape[0] == up.shape[1] == 3
        up.normal_(std=0.3)
    applied = run(module, config)
    assert float((applied - before).abs().max()) > 0.05
    plain = build(config).eval()
    plain.load_state_dict(merged(module.state_dict(), alpha=6.0))
    torch.testing.assert_close(run(plain, config), applied, rtol=1e-4, atol=1e-5)


def test_only_adapters_learn():
    module, _, names = adapted(ENCODER)
    frozen = {n: p.clone() for n, p in module.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        run(module, ENCODER).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    learnt = {n for n, p in module.named_parameters() if p.requires_grad}
    assert learnt == {f"{name}.lora_{part}" for name in names for part in ("down", "up")}
    now = dict(module.named_parameters())
    assert all(torch.equal(now[name], weights) for name, weights in frozen.items())
    assert all(bool(up.any()) for _, up in adapters(module.state_dict()).values())


def test_the_head_is_no_target():
    module, _, names = adapted(ENCODER, targets=["output"])
    assert names == [f"stack.blocks.{i}.attention.output" for i in range(2)]
    assert not isinstance(module.head.output, LoRALinear)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"targets": ["querry"]}, "did you mean .query"),
        ({"targets": ["gate"]}, "have no gate"),
        ({"targets": []}, "lora_targets is empty"),
        ({"rank": 0}, "lora=0"),
        ({"alpha": 0.0}, "lora_alpha=0"),
    ],
)
def test_what_cant_be_is_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        adapted(ENCODER, **settings)


def test_adapters_on_adapters_are_refused():
    module, _, _ = adapted(ENCODER)
    with pytest.raises(ConfigError, match="merge them first"):
        add_lora(module, rank=2, alpha=2.0)
