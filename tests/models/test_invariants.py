"""What holds for every kind of stack, position, norm and placement: the invariants that ARCHITECTURE.md promises."""

from __future__ import annotations

import pytest
import torch
from tests.models.zoo import TOLERANCE, VOCABULARY, model, pad, rows, sorts
from torch import Tensor
from torch.testing import assert_close

from regard.nn.attention import record, use_kernel

pytestmark = pytest.mark.filterwarnings(
    # The flexible kernel is for compiled code; here it runs uncompiled, as the slow twin.
    "ignore:flex_attention called without torch.compile:UserWarning"
)
SINGLE, CAUSAL = sorts("encoder", "decoder"), sorts("decoder", "encoder-decoder")
BOTH, DECODERS = sorts("encoder-decoder"), sorts("decoder")
TEXTS, SOURCES = rows(5, 3, 1, 4), rows(3, 6, 4, 1, seed=4)


@pytest.fixture(autouse=True)
def _no_gradients(request: pytest.FixtureRequest):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def run(sort: str, ids: Tensor, **kwargs) -> Tensor:
    """Give the logits of a batch; an encoder-decoder reads the same sources each time, row by row."""
    net = model(sort)
    if not sort.startswith("encoder-decoder"):
        return net(ids, **kwargs)
    source, source_mask = pad(SOURCES)
    return net(
        source[: len(ids)], ids, source_mask=source_mask[: len(ids)], target_mask=kwargs.get("key_mask")
    )


def alone(sort: str) -> list[Tensor]:
    """Give each text's logits from a batch of its own, without any padding."""
    net = model(sort)
    if sort.startswith("encoder-decoder"):
        return [net(s[None], t[None])[0] for s, t in zip(SOURCES, TEXTS, strict=True)]
    return [net(text[None])[0] for text in TEXTS]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("sort", sorts("encoder", "decoder", "encoder-decoder"))
def test_a_row_gives_alone_what_it_gives_in_a_padded_batch(sort: str, side: str) -> None:
    ids, mask = pad(TEXTS, side, width=7)
    net = model(sort)
    if sort.startswith("encoder-decoder"):
        source, source_mask = pad(SOURCES, side)
        logits = net(source, ids, source_mask=source_mask, target_mask=mask)
    else:
        logits = net(ids, key_mask=mask)
    for row, here, expected in zip(logits, mask, alone(sort), strict=True):
        assert_close(row[here], expected, **TOLERANCE)
    assert logits.isfinite().all()


@pytest.mark.parametrize("sort", SINGLE)
def test_packed_documents_give_what_they_give_alone(sort: str) -> None:
    lengths = [len(text) for text in TEXTS]
    documents = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = model(sort)(torch.cat(TEXTS)[None], documents=documents, positions=positions)[0]
    for part, expected in zip(packed.split(lengths), alone(sort), strict=True):
        assert_close(part, expected, **TOLERANCE)


@pytest.mark.parametrize("sort", SINGLE)
def test_documents_never_mix(sort: str) -> None:
    ids, documents = torch.stack(rows(12)), torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])
    changed = torch.where(documents == 1, (ids + 5) % VOCABULARY, ids)
    before, after = (model(sort)(x, documents=documents) for x in (ids, changed))
    assert torch.equal(before[documents != 1], after[documents != 1])
    assert not torch.isclose(before[documents == 1], after[documents == 1]).all()


@pytest.mark.parametrize("sort", CAUSAL)
def test_a_later_token_never_moves_an_earlier_one(sort: str) -> None:
    ids = torch.stack(rows(9, 9))
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] + 1) % VOCABULARY
    before, after = run(sort, ids), run(sort, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


@pytest.mark.parametrize("sort", sorts("encoder"))
def test_an_encoder_sees_what_comes_later(sort: str) -> None:
    ids = torch.stack(rows(6))
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] + 1) % VOCABULARY
    assert not torch.isclose(model(sort)(ids), model(sort)(changed)).all(-1).any()


@pytest.mark.parametrize("sort", BOTH)
def test_every_target_token_sees_the_whole_source_and_no_padding(sort: str) -> None:
    net, target = model(sort), torch.stack(rows(4))
    source, mask = pad(rows(5), "right", width=8)
    before = net(source, target, source_mask=mask)
    changed = source.clone()
    changed[:, 4] = (source[:, 4] + 1) % VOCABULARY
    assert not torch.isclose(before, net(changed, target, source_mask=mask)).all(-1).any()
    changed = source.clone()
    changed[:, 5:] = 9
    assert torch.equal(before, net(changed, target, source_mask=mask))


def start(sort: str, count: int, *, use_cache: bool):
    net = model(sort)
    if sort.startswith("encoder-decoder"):
        source, source_mask = pad(SOURCES[:count])
        return net.start(source=source, source_mask=source_mask, use_cache=use_cache)
    return net.start(batch=count, use_cache=use_cache)


@pytest.mark.parametrize("sort", CAUSAL)
def test_the_cache_changes_nothing_token_by_token_and_in_chunks(sort: str) -> None:
    ids = torch.stack(rows(8, 8))
    expected = run(sort, ids)
    for chunks in ((1,) * 8, (3, 1, 4)):
        state = start(sort, 2, use_cache=True)
        written = torch.cat([state.advance(part) for part in ids.split(chunks, dim=1)], dim=1)
        assert_close(written, expected, **TOLERANCE)
        assert state.length == 8


@pytest.mark.parametrize(
    ("sort", "use_cache"),
    [(sort, True) for sort in CAUSAL] + [(sort, False) for sort in CAUSAL if sort.endswith("layernorm/pre")],
)
def test_rows_go_on_alone_after_left_padding_and_reordering(sort: str, use_cache: bool) -> None:
    net, state = model(sort), start(sort, 3, use_cache=use_cache)
    sources, written = list(SOURCES[:3]), list(TEXTS[:3])

    def check(logits: Tensor) -> None:
        for source, text, row in zip(sources, written, logits, strict=True):
            both = (source[None], text[None]) if sort.startswith("encoder-decoder") else (text[None],)
            assert_close(row, net(*both)[0, -len(row) :], **TOLERANCE)

    logits = state.advance(*pad(written, "left"))
    check(logits[:, -1:])
    for seed, picked in enumerate([[2, 0, 0, 1], [1, 2], [1]]):
        state.reorder(torch.tensor(picked))
        sources, written = [sources[i] for i in picked], [written[i] for i in picked]
        new = torch.stack(rows(*[3] * len(picked), seed=seed))
        written = [torch.cat((text, row[:2])) for text, row in zip(written, new, strict=True)]
        check(state.advance(new[:, :2]))
        written = [torch.cat((text, row[2:])) for text, row in zip(written, new, strict=True)]
        check(state.advance(new[:, 2:], only_last=True))
        assert state.batch == len(picked)


@pytest.mark.parametrize("sort", sorts("encoder", "decoder", "encoder-decoder"))
def test_every_kernel_gives_the_same(sort: str) -> None:
    ids = torch.stack(rows(5, 5))
    masks = [torch.ones_like(ids, dtype=torch.bool), pad(TEXTS[:2])[1], pad(TEXTS[1::-1], "left")[1]]
    for mask in masks:
        results = {}
        # The flexible kernel is slow uncompiled; what it computes does not hang on norms.
        flexible = ("flex",) if sort.endswith("layernorm/pre") and not mask[0, 0] else ()
        for kernel in ("fused", "reference", *flexible):
            with use_kernel(kernel):
                results[kernel] = run(sort, ids, key_mask=None if mask.all() else mask)[mask]
        for found in results.values():
            assert_close(found, results["fused"], **TOLERANCE)


@pytest.mark.parametrize("sort", sorts("encoder", "decoder", "encoder-decoder"))
def test_fused_and_reference_kernels_give_the_same_gradients(sort: str) -> None:
    net, (ids, mask) = model(sort), pad(TEXTS, "left")
    found = []
    for kernel in ("fused", "reference"):
        with use_kernel(kernel):
            loss = run(sort, ids, key_mask=mask)[mask].square().mean()
        found.append(torch.autograd.grad(loss, list(net.parameters())))
    for name, fused, reference in zip(dict(net.named_parameters()), *found, strict=True):
        assert fused.isfinite().all(), name
        assert_close(fused, reference, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("sort", sorts("encoder", "decoder", "encoder-decoder"))
def test_a_row_of_padding_alone_gives_finite_numbers_and_gradients(sort: str) -> None:
    net = model(sort)
    ids, mask = pad([*TEXTS[:2], torch.empty(0, dtype=torch.long)])
    for kernel in ("fused", "reference"):
        with use_kernel(kernel):
            if sort.startswith("encoder-decoder"):
                logits = net(ids, ids, source_mask=mask, target_mask=mask)
            else:
                logits = net(ids, key_mask=mask)
        assert logits.isfinite().all()
        for gradient in torch.autograd.grad(logits.square().mean(), list(net.parameters())):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("sort", sorts("encoder", "decoder", "encoder-decoder"))
def test_recorded_weights_are_distributions_over_what_is_allowed(sort: str) -> None:
    ids, mask = pad(TEXTS, "left")
    plain = run(sort, ids, key_mask=mask)
    with record() as recorder:
        logits = run(sort, ids, key_mask=mask)
    assert_close(logits[mask], plain[mask], **TOLERANCE)
    both = sort.startswith("encoder-decoder")
    stacks = ["encoder", "decoder", "cross"] if both else [sort.partition("/")[0]]
    assert set(recorder.weights) == {f"{stack}.{layer}" for stack in stacks for layer in range(2)}
    for name in recorder.weights:
        sums = recorder[name].sum(-1)
        own = not both or name.startswith("decoder")  # the others look at the sources
        # Under a causal mask padding on the left has nothing to look at.
        seen = mask[:, None, :] if name.startswith("decoder") else torch.ones_like(sums)
        assert_close(sums, seen.expand_as(sums).float())
        if own:
            assert not recorder[name].masked_select(~mask[:, None, None, :]).any()
        if name.startswith("decoder"):
            assert not recorder[name].triu(1).any()


@pytest.mark.parametrize(
    "sort", [sort for sort in SINGLE if sort.split("/")[1] in ("none", "rotary", "alibi", "t5")]
)
def test_a_shift_of_all_positions_changes_nothing_where_positions_are_relative(sort: str) -> None:
    ids, positions = torch.stack(rows(7)), torch.arange(7)[None]
    near, far = (model(sort)(ids, positions=p) for p in (positions, positions + 1_000))
    assert_close(near, far, atol=2e-3, rtol=2e-3)  # angles of large positions lose digits in fp32


@pytest.mark.parametrize("sort", [sort for sort in sorts("encoder") if "/none/" not in sort])
def test_every_position_kind_tells_the_order(sort: str) -> None:
    # Two neighbours change places; a text and its reverse would be one to ALiBi.
    ids, order = torch.stack(rows(7)), torch.tensor([1, 0, 2, 3, 4, 5, 6])
    assert not torch.isclose(model(sort)(ids)[:, order], model(sort)(ids[:, order]), atol=1e-3).all()


@pytest.mark.parametrize("sort", [sort for sort in sorts("encoder") if "/none/" in sort])
def test_without_positions_an_encoder_sees_a_set(sort: str) -> None:
    ids = torch.stack(rows(7))
    assert_close(model(sort)(ids), model(sort)(ids.flip(1)).flip(1), **TOLERANCE)


@pytest.mark.parametrize("sort", SINGLE)
def test_a_window_really_limits(sort: str) -> None:
    net, ids = model(sort, window=3, ngrams=1), torch.stack(rows(12))
    changed = ids.clone()
    changed[:, 6] = (ids[:, 6] + 1) % VOCABULARY
    moved = (net(ids) != net(changed)).any(-1)[0].nonzero().flatten()
    first = 6 if sort.startswith("decoder") else 6 - 2 * 2  # two layers, each two slots in a direction
    assert moved.min() == first
    assert moved.max() == 6 + 2 * 2


@pytest.mark.parametrize("sort", DECODERS[::5])
def test_global_layers_ignore_the_window(sort: str) -> None:
    ids = torch.stack(rows(12))
    changed = ids.clone()
    changed[:, 0] = (ids[:, 0] + 1) % VOCABULARY
    for layers, reach in (((), 4), ((1,), 11), ((0, 1), 11)):
        net = model(sort, window=3, global_layers=layers, ngrams=1)
        moved = (net(ids) != net(changed)).any(-1)[0].nonzero().flatten()
        assert moved.max() == reach, layers


@pytest.mark.parametrize("sort", CAUSAL)
def test_a_window_and_a_cache_fit_each_other(sort: str) -> None:
    net, ids = model(sort, window=3), torch.stack(rows(8, 8))
    if sort.startswith("encoder-decoder"):
        source, mask = pad(SOURCES[:2])
        expected, state = net(source, ids, source_mask=mask), net.start(source=source, source_mask=mask)
    else:
        expected, state = net(ids), net.start(batch=2)
    assert_close(
        torch.cat([state.advance(part) for part in ids.split(2, dim=1)], dim=1), expected, **TOLERANCE
    )


@pytest.mark.parametrize("sort", sorts("encoder", "decoder", "encoder-decoder")[::5])
def test_bf16_autocast_runs_and_stays_near(sort: str) -> None:
    ids, mask = pad(TEXTS, "left")
    exact = run(sort, ids, key_mask=mask)[mask]
    for kernel in ("fused", "reference"):
        with use_kernel(kernel), torch.autocast("cpu", dtype=torch.bfloat16):
            rough = run(sort, ids, key_mask=mask)[mask]
        assert rough.isfinite().all()
        assert (rough.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.slow
@pytest.mark.parametrize("position", ["rotary", "alibi"])
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what is its own
def test_compiled_equals_eager(position: str) -> None:
    from torch._inductor.exc import InductorError

    net, ids = model(f"decoder/{position}/rmsnorm/pre"), torch.stack(rows(8, 8))
    try:
        compiled = torch.compile(net)(ids)
    except (InductorError, torch._dynamo.exc.BackendCompilerFailed) as error:
        pytest.skip(f"no working compiler here: {str(error).splitlines()[0]}")
    assert_close(compiled, net(ids), **TOLERANCE)
