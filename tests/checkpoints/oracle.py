"""Compare a model with the published implementation it came from: logits, states and attention, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from regard.checkpoints.load import Loaded, load_model, save_model
from regard.look.capture import Capture, capture
from regard.models.transformer import EncoderDecoder
from regard.nn.attention import record

RELATIVE = 1e-5
"""The largest difference from the oracle, relative to its largest value."""


def tiny(make: Any, config: Any, seed: int = 0) -> Any:
    """Make one of the oracle's models with weights that hide nothing: norms, biases and tables are random too."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = make(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.add_(torch.randn_like(buffer))
    return model


def padded(
    lengths: tuple[int, ...], side: str, *, vocabulary: int, pad: int, low: int = 5
) -> tuple[Tensor, Tensor]:
    """Draw ids (B, T) with their mask, padded on one side."""
    width = max(lengths)
    ids = torch.full((len(lengths), width), pad)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    draw = torch.Generator().manual_seed(sum(lengths))
    for i, length in enumerate(lengths):
        span = slice(0, length) if side == "right" else slice(width - length, width)
        ids[i, span] = torch.randint(low, vocabulary, (length,), generator=draw)
        mask[i, span] = True
    return ids, mask


def near(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Assert that two tensors are equal up to rounding in fp32."""
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    worst = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6))
    assert worst <= RELATIVE, f"{what}: relative difference {worst:.2e}"


@torch.no_grad()
def states(stack: Any, run: Any) -> tuple[Any, list[Tensor]]:
    """Run something, and give its result with what enters a stack's first block and what leaves every block."""
    seen: list[Tensor] = []
    hooks = [
        stack.blocks[0].register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(args[0]), with_kwargs=True
        )
    ]
    hooks += [
        block.register_forward_hook(lambda m, args, out: seen.append(out)) for block in stack.blocks[:-1]
    ]
    hooks.append(stack.register_forward_hook(lambda m, args, out: seen.append(out)))
    try:
        return run(), seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def check_stack(loaded: Loaded, theirs: Any, side: str, **kwargs: Any) -> None:
    """Compare an encoder or a decoder on a padded batch: logits, every state, every attention weight.

    `last_norm` is theirs, where the last of their states comes before it.
    """
    config, last_norm = loaded.config, kwargs.pop("last_norm", lambda state: state)
    ids, mask = padded((9, 4, 7), side, vocabulary=config.vocab_size, pad=config.pad_id or 0)
    # Where a family doesn't count padding itself, its users are told to give positions.
    given: dict[str, Any] = {"attention_mask": mask.long(), **kwargs.pop("theirs", {})}
    if kwargs.pop("positions", False):
        given["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
    expected = theirs(ids, output_hidden_states=True, output_attentions=True, **given)
    module: Any = loaded.module
    with record() as recorder:
        logits, seen = states(module.stack, lambda: module(ids, key_mask=mask, **kwargs))
    scores = expected.logits if "logits" in expected else expected.last_hidden_state
    per_token = scores.shape[:2] == ids.shape
    near(logits[mask] if per_token else logits, scores[mask] if per_token else scores, "logits")
    theirs_seen = (*expected.hidden_states[:-1], last_norm(expected.hidden_states[-1]))
    for i, (a, b) in enumerate(zip(seen, theirs_seen, strict=True)):
        near(a[mask], b[mask], f"state {i}")
    name = "decoder" if module.causal else "encoder"
    with capture() as captured:
        module.hidden(ids, key_mask=mask, **kwargs)
    for i, weights in enumerate(expected.attentions):
        rows = mask[:, None, :, None].expand_as(weights)
        near(recorder[f"{name}.{i}"][rows], weights[rows], f"attention {i}")
        check_captured(captured, f"{name}.{i}", weights, mask)


def check_captured(captured: Capture, name: str, expected: Tensor, real: Tensor) -> None:
    """Compare what a look computes again with the oracle's weights, to 1e-6, and with the layer's own output.

    On top comes a relative share: the states of two passes in single precision differ by so much themselves.
    """
    for text, weights in enumerate(expected):
        layer = captured.of(text)[name]
        assert layer.error < 1e-5, f"{name}: {layer.error}"
        for head, theirs in enumerate(weights):
            ours = layer.weights(head, slice(None), slice(None))
            torch.testing.assert_close(ours[real[text]], theirs[real[text]], atol=1e-6, rtol=RELATIVE)
            row = int(real[text].nonzero()[-1])
            whole = layer.row(head, row)
            assert abs(float(whole.sum()) - 1) < 1e-6
            torch.testing.assert_close(whole.float(), theirs[row], atol=1e-6, rtol=RELATIVE)


@torch.no_grad()
def check_both(loaded: Loaded, theirs: Any, side: str) -> None:
    """Compare an encoder-decoder on a padded batch of sources and one of targets."""
    module, config = loaded.module, loaded.config
    assert isinstance(module, EncoderDecoder)
    source, mask = padded((9, 4, 7), side, vocabulary=config.vocab_size, pad=config.pad_id or 0)
    target, target_mask = padded((5, 6, 6), "right", vocabulary=config.vocab_size, pad=config.pad_id or 0)
    target[:, 0] = config.start or 0
    expected = theirs(
        input_ids=source, attention_mask=mask.long(), decoder_input_ids=target,
        decoder_attention_mask=target_mask.long(), output_hidden_states=True, output_attentions=True,
    )  # fmt: skip
    with record() as recorder:
        (logits, read), written = states(
            module.decoder,
            lambda: states(
                module.encoder, lambda: module(source, target, source_mask=mask, target_mask=target_mask)
            ),
        )
    near(logits[target_mask], expected.logits[target_mask], "logits")
    for i, (a, b) in enumerate(zip(read, expected.encoder_hidden_states, strict=True)):
        near(a[mask], b[mask], f"encoder state {i}")
    for i, (a, b) in enumerate(zip(written, expected.decoder_hidden_states, strict=True)):
        near(a[target_mask], b[target_mask], f"decoder state {i}")
    with capture() as captured:
        module.hidden(source, target, source_mask=mask, target_mask=target_mask)
    parts = (
        ("encoder", expected.encoder_attentions, mask),
        ("decoder", expected.decoder_attentions, target_mask),
        ("cross", expected.cross_attentions, target_mask),
    )
    for name, attentions, real in parts:
        for i, weights in enumerate(attentions):
            rows = real[:, None, :, None].expand_as(weights)
            near(recorder[f"{name}.{i}"][rows], weights[rows], f"{name} attention {i}")
            check_captured(captured, f"{name}.{i}", weights, real)


def check_round_trip(loaded: Loaded, folder: Path, again: Path, theirs: Any) -> Any:
    """Save here, and compare bit by bit with what was loaded; give the oracle's model of the saved folder."""
    assert save_model(again, loaded.module.state_dict(), loaded.config, family=loaded.family) == loaded.family
    first, second = load_file(folder / "model.safetensors"), load_file(again / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load_model(again).config == loaded.config
    model, notes = type(theirs).from_pretrained(again, attn_implementation="eager", output_loading_info=True)
    assert not any(notes.values()), notes
    ours, own = model.state_dict(), theirs.state_dict()
    assert all(torch.equal(ours[name], own[name]) for name in own)
    return model.eval()
