"""The whole models: their heads, their ties, their beginnings, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.models.zoo import SORTS, TOLERANCE, VOCABULARY, config, model, pad, rows
from torch import nn
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.models.transformer import Decoder, Encoder, EncoderDecoder, build, check_length, default_positions

PLAIN = {kind: f"{kind}/rotary/rmsnorm/pre" for kind in ("encoder", "decoder", "encoder-decoder")}


def call(net: nn.Module, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    return net(ids, ids, **kwargs) if isinstance(net, EncoderDecoder) else net(ids, **kwargs)


@pytest.mark.parametrize("sort", SORTS)
def test_the_predicted_number_of_weights_is_the_built_one(sort: str) -> None:
    both = sort.startswith("encoder-decoder")
    for changes in (
        {"bias": False, "qkv_bias": True, "num_kv_heads": 1, "head_size": 6, "tie_embeddings": False},
        {
            "query_key_norm": True,
            "embedding_norm": True,
            "gated": True,
            "head_transform": True,
            "output_bias": True,
        }
        | (
            {"share_embeddings": False, "num_decoder_layers": 1}
            if both
            else {"pooler": True, "num_segments": 3}
        ),
    ):
        wanted = config(sort, **changes)
        with torch.device("meta"):
            net = build(wanted)
        assert sum(p.numel() for p in net.parameters()) == wanted.num_parameters(), changes


def test_the_kind_chooses_the_model() -> None:
    assert [type(build(config(sort))) for sort in PLAIN.values()] == [Encoder, Decoder, EncoderDecoder]


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_forward_is_head_of_hidden(sort: str) -> None:
    net, (ids, mask) = model(sort), pad(rows(5, 3))
    masks = {"target_mask": mask} if isinstance(net, EncoderDecoder) else {"key_mask": mask}
    arguments = (ids, ids) if isinstance(net, EncoderDecoder) else (ids,)
    assert net.hidden(*arguments, **masks).shape == (2, 5, 16)
    assert torch.equal(net.head(net.hidden(*arguments, **masks)), call(net, ids, **masks))
    assert net.config.kind == sort.partition("/")[0]


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_tied_weights_are_one_tensor_and_untied_ones_are_not(sort: str) -> None:
    tied, untied = (build(config(sort, tie_embeddings=tie)) for tie in (True, False))
    assert tied.head.output.weight is tied.embedding.weight
    assert untied.head.output.weight is not untied.embedding.weight
    ids = torch.stack(rows(4))
    call(tied, ids).sum().backward()
    assert tied.embedding.weight.grad is not None


def test_source_and_target_embeddings_are_one_or_two() -> None:
    sort = PLAIN["encoder-decoder"]
    shared, own = (build(config(sort, share_embeddings=share)) for share in (True, False))
    assert shared.target_embedding is shared.embedding
    assert own.target_embedding is not own.embedding
    assert own.head.output.weight is own.target_embedding.weight
    assert_close(shared.head.output.weight, shared.embedding.weight)


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_embeddings_are_scaled_by_the_root_of_the_width(sort: str) -> None:
    wanted = config(sort, scale_embeddings=True, tie_embeddings=False)
    scaled, plain = build(wanted).eval(), build(wanted.replace(scale_embeddings=False)).eval()
    weights = dict(scaled.state_dict())
    weights["embedding.weight"] = 4 * weights["embedding.weight"]
    if "target_embedding.weight" in weights:
        weights["target_embedding.weight"] = weights["embedding.weight"]
    plain.load_state_dict(weights)
    ids = torch.stack(rows(5, 5))
    assert_close(call(scaled, ids), call(plain, ids), **TOLERANCE)
    if not isinstance(scaled, Encoder):
        start = {"source": ids} if isinstance(scaled, EncoderDecoder) else {"batch": 2}
        states = [net.start(**start) for net in (scaled, plain)]
        assert_close(*(state.advance(ids) for state in states), **TOLERANCE)


def test_logits_are_capped_softly() -> None:
    sort, ids = PLAIN["decoder"], torch.stack(rows(6, 6))
    plain, capped = model(sort)(ids), model(sort, logit_softcap=0.5)(ids)
    assert_close(capped, 0.5 * torch.tanh(plain / 0.5))
    assert capped.abs().max() <= 0.5


def test_the_transform_of_berts_head() -> None:
    net = model("encoder/learned/layernorm/post", head_transform=True, output_bias=True, activation="gelu")
    hidden, head = torch.randn(2, 3, 16), net.head
    inner = head.transform_norm(nn.functional.gelu(hidden @ head.transform.weight.T + head.transform.bias))
    assert_close(head(hidden), inner @ net.embedding.weight.T + head.output.bias)


def test_segments_are_told_apart_and_are_a_by_default() -> None:
    net, ids = model("encoder/learned/layernorm/post", num_segments=2), torch.stack(rows(5))
    first = torch.zeros_like(ids)
    assert torch.equal(net(ids), net(ids, segments=first))
    assert not torch.isclose(net(ids), net(ids, segments=first + 1)).any(-1).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_class_is_read_from_the_real_tokens(kind: str, pooling: str, side: str) -> None:
    net = model(PLAIN[kind], head="classify", labels=("a", "b", "c"), pooling=pooling)
    texts = rows(5, 2, 4)
    ids, mask = pad(texts, side, width=7)
    logits = net(ids, key_mask=mask)
    assert logits.shape == (3, 3)
    for row, text in zip(logits, texts, strict=True):
        hidden = net.hidden(text[None])[0]
        vector = {"first": hidden[0], "last": hidden[-1], "mean": hidden.mean(0)}[pooling]
        assert_close(row, net.head(vector), **TOLERANCE)
        assert_close(row, net(text[None])[0], **TOLERANCE)


def test_the_pooler_is_a_dense_layer_and_tanh() -> None:
    net = model(PLAIN["encoder"], head="classify", labels=("a", "b"), pooler=True)
    ids = torch.stack(rows(4, 4))
    first = net.hidden(ids)[:, 0]
    assert_close(net(ids), net.head(torch.tanh(net.pooler.dense(first))))
    net = model(PLAIN["encoder"], head="classify", labels=("a", "b"), pooler=True, pooler_activation="relu")
    assert_close(net(ids), net.head(net.pooler.dense(net.hidden(ids)[:, 0]).relu()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_encoder_decoder_classifies_by_the_last_token_of_the_shifted_source(side: str) -> None:
    net = model(
        PLAIN["encoder-decoder"], head="classify", labels=("a", "b", "c"), pooler=True, pooling="last"
    )
    texts = rows(5, 3)
    ids, mask = pad(texts, side)
    for row, text in zip(net(ids, source_mask=mask), texts, strict=True):
        target = torch.cat([torch.tensor([net.config.start]), text[:-1]])
        last = net.hidden(text[None], target[None])[:, -1]
        assert_close(row, net.head(torch.tanh(net.pooler.dense(last)))[0], **TOLERANCE)
    with pytest.raises(ConfigError, match="takes no target"):
        net(ids, ids)
    with pytest.raises(ConfigError, match="needs one"):
        model(PLAIN["encoder-decoder"])(ids)


def test_spans_have_two_scores_a_token() -> None:
    assert model(PLAIN["encoder"], head="span")(torch.stack(rows(4, 4))).shape == (2, 4, 2)


def test_tags_and_bare_states() -> None:
    ids = torch.stack(rows(4, 4))
    assert model(PLAIN["encoder"], head="tag", labels=("a", "b", "c"))(ids).shape == (2, 4, 3)
    bare = model(PLAIN["encoder"], head="none")
    assert torch.equal(bare(ids), bare.hidden(ids))


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_a_text_longer_than_the_context_is_refused(sort: str) -> None:
    net, ids = model(sort, context=6), torch.stack(rows(7))
    with pytest.raises(ConfigError, match=r"7 tokens are more than the model's context of 6\."):
        call(net, ids)
    if not isinstance(net, Encoder):
        short = ids[:, :4]
        state = net.start(source=short) if isinstance(net, EncoderDecoder) else net.start(batch=1)
        state.advance(short)
        with pytest.raises(ConfigError, match="7 tokens are more"):
            state.advance(ids[:, :3])
        assert state.length == 4, "a refused step leaves the state as it was"
        assert state.advance(ids[:, :2]).shape == (1, 2, VOCABULARY)
    with pytest.raises(ConfigError):
        check_length(net.config, 7)


def test_a_decoder_has_no_source() -> None:
    with pytest.raises(ConfigError, match="has no source"):
        model(PLAIN["decoder"]).start(batch=1, source=torch.stack(rows(3)))


def test_positions_count_real_tokens() -> None:
    ids, mask = pad(rows(3, 1), "left")
    assert default_positions(ids, None).tolist() == [0, 1, 2]
    assert default_positions(ids, mask)[mask].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_fresh_weights_come_from_torchs_generator(sort: str) -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build(config(sort, init_std=None)).state_dict()

    first, again, other = made(1), made(1), made(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_initial_weights_have_the_spread_that_is_asked_for() -> None:
    wide = {"width": 64, "num_heads": 4, "ffn_width": 128, "vocab_size": 200, "num_kv_heads": 4}
    net = build(config("decoder/learned/layernorm/pre", init_std=0.05, num_layers=8, **wide))
    spread = {name: float(value.detach().std()) for name, value in net.named_parameters() if value.ndim == 2}
    for name, found in spread.items():
        expected = 0.05 / math.sqrt(16) if name.endswith(("output.weight", "down.weight")) else 0.05
        assert found == pytest.approx(expected, rel=0.1), name
    assert all(not v.any() for name, v in net.named_parameters() if name.endswith("bias"))
    xavier = build(config("decoder/sinusoidal/layernorm/post", init_std=None, scale_embeddings=True, **wide))
    weight = xavier.stack.blocks[0].feed_forward.up.weight.detach()
    assert float(weight.abs().max()) <= math.sqrt(6 / (64 + 128))
    assert float(xavier.embedding.weight.detach().std()) == pytest.approx(1 / 8, rel=0.1)
    assert_close(xavier.head.output.weight, xavier.embedding.weight)


@pytest.mark.parametrize("kind", ["post", "pre", "parallel"])
def test_the_norm_stands_where_its_placement_says(kind: str) -> None:
    net = model(f"encoder/none/layernorm/{kind}", num_layers=1)
    block, ids = net.stack.blocks[0], torch.stack(rows(5))
    x = net.embedding(ids)
    if kind == "post":
        y = block.attention_norm(x + block.attention(x))
        expected = block.feed_forward_norm(y + block.feed_forward(y))
    elif kind == "pre":
        y = x + block.attention(block.attention_norm(x))
        expected = net.stack.norm_out(y + block.feed_forward(block.feed_forward_norm(y)))
    else:
        y = block.attention_norm(x)
        expected = net.stack.norm_out(x + block.attention(y) + block.feed_forward(y))
    assert_close(net.hidden(ids), expected)


def test_a_post_norm_model_is_torchs_own_transformer() -> None:
    theirs = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, activation="gelu", batch_first=True).eval()
    made = ModelConfig(
        kind="encoder", vocab_size=9, width=16, num_heads=4, ffn_width=24, num_layers=1, position="none",
        norm_placement="post", activation="gelu", head="none",
    )  # fmt: skip
    net = build(made).eval()
    block, attention = net.stack.blocks[0], type(net.stack.blocks[0].attention).from_torch(theirs.self_attn)
    block.attention.load_state_dict(attention.state_dict())
    block.feed_forward.up.load_state_dict(theirs.linear1.state_dict())
    block.feed_forward.down.load_state_dict(theirs.linear2.state_dict())
    block.attention_norm.load_state_dict(theirs.norm1.state_dict())
    block.feed_forward_norm.load_state_dict(theirs.norm2.state_dict())
    ids, mask = pad(rows(5, 3))
    ids = ids % 9
    expected = theirs(net.embedding(ids), src_key_padding_mask=~mask)
    assert_close(net(ids, key_mask=mask)[mask], expected[mask], **TOLERANCE)


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_dropout_acts_while_training_only(sort: str) -> None:
    net = build(config(sort, dropout=0.3, attention_dropout=0.3, ffn_dropout=0.3))
    ids = torch.stack(rows(6, 6))
    torch.manual_seed(1)
    first, second = call(net, ids), call(net, ids)
    torch.manual_seed(1)
    assert torch.equal(first, call(net, ids))
    assert not torch.isclose(first, second).all()
    first.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.eval()
    assert torch.equal(call(net, ids), call(net, ids))


@pytest.mark.parametrize("sort", PLAIN.values(), ids=PLAIN)
def test_a_model_learns_a_batch_by_heart(sort: str) -> None:
    net, ids = build(config(sort, init_std=None)), torch.stack(rows(6, 6))
    optimiser, labels = torch.optim.AdamW(net.parameters(), lr=2e-2), ids.roll(-1, 1)
    for _ in range(60):
        loss = nn.functional.cross_entropy(call(net, ids).flatten(0, 1), labels.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.2
