"""Run every piece and model with the shapes of all signatures checked; a program of its own, because the checks
slow calls down severalfold and have to be in place before anything is imported.

    python -m tests.nn.check_shapes
"""

from __future__ import annotations

from jaxtyping import TypeCheckError, install_import_hook

with install_import_hook(["regard.nn", "regard.models"], "beartype.beartype"):
    import torch
    from tests.models import recurrent_zoo
    from tests.models.zoo import SORTS, model, pad, rows

    from regard.models import alignment, decoding, recurrent, transformer
    from regard.nn import (
        additive,
        attention,
        block,
        cache,
        crf,
        deferred,
        layers,
        masks,
        positions,
        recurrence,
    )

CHECKED = (
    additive, attention, block, cache, crf, deferred, layers, masks, positions, recurrence, alignment, decoding,
    recurrent, transformer,
)  # fmt: skip


def expect_refusal(call) -> None:
    """Make sure that a wrong shape is noticed, that is, that the checks are in place."""
    try:
        call()
    except TypeCheckError:
        return
    raise AssertionError("a wrong shape was not noticed")


def use(sort: str) -> None:
    """Take one sort of model through training, every kernel, recording and decoding."""
    net = recurrent_zoo.model(sort) if sort in recurrent_zoo.SORTS else model(sort)
    both, encoder = net.config.kind == "encoder-decoder", net.config.kind == "encoder"
    ids, mask = pad(rows(4, 2), "left")
    if both:
        masks_given = {"source_mask": mask, "target_mask": mask}
    else:
        masks_given = {"key_mask": mask}
    arguments = (ids, ids) if both else (ids,)
    for kernel in ("auto", "reference"):
        with attention.use_kernel(kernel):
            net(*arguments, **masks_given).sum().backward()
    net.zero_grad()
    with torch.no_grad():
        with attention.record() as recorder:
            net(*arguments)
        for name in recorder.weights:
            _ = recorder[name]
        if not both:
            net(ids, documents=mask.long(), positions=torch.arange(4).expand(2, 4))
        if not encoder:
            for use_cache in (True, False):
                state = (
                    net.start(source=ids, source_mask=mask, use_cache=use_cache)
                    if both
                    else net.start(batch=2)
                )
                state.advance(ids, mask)
                state.reorder(torch.tensor([1, 0, 0]))
                state.advance(ids[[0, 0, 0], :1], only_last=True)


def main() -> None:
    """Check that checks are on, then use everything."""
    x = torch.randn(2, 3, 16)
    expect_refusal(lambda: masks.Mask(keys=torch.ones(3)))
    expect_refusal(lambda: layers.RMSNorm(16, 1e-5)(x.long()))
    expect_refusal(lambda: model(SORTS[0])(torch.zeros(3, dtype=torch.long)))
    expect_refusal(
        lambda: model(SORTS[0])(torch.zeros(2, 3, dtype=torch.long), key_mask=torch.ones(2, 4).bool())
    )
    expect_refusal(lambda: cache.LayerCache().append(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 2, 4)))
    for sort in SORTS[::5]:  # every kind with every position; norms and placements have the same shapes
        use(sort)
    for sort in recurrent_zoo.SORTS:
        use(sort)
    single = {
        "head": "classify",
        "labels": ("a", "b"),
        "pooler": True,
        "num_segments": 2,
        "query_key_norm": True,
    }
    for pooling in ("first", "last", "mean"):
        net = model("encoder/learned/layernorm/post", pooling=pooling, **single)
        net(torch.zeros(2, 3, dtype=torch.long), segments=torch.ones(2, 3, dtype=torch.long))
    layers.Dropout(0.5)(x)
    tagger = model("encoder/rotary/rmsnorm/pre", head="tag", labels=("a", "b"), head_transitions=True)
    words = torch.tensor([[False, True, True], [False, False, True]])
    emissions, real = crf.side_by_side(tagger(torch.zeros(2, 3, dtype=torch.long))[words], words)
    tags, chain = torch.zeros(2, 2, dtype=torch.long), tagger.head.transitions
    for of_tags in (chain.given, chain.score):
        of_tags(emissions, tags, real)
    for of_words in (chain.log_partition, chain.best, chain.marginals):
        of_words(emissions, real)
    expect_refusal(lambda: chain.best(emissions[0], real))
    ours = attention.Attention.from_torch(torch.nn.MultiheadAttention(16, 4))
    ours.with_weights(x, x[:, :2], mask=masks.Mask(keys=torch.ones(2, 2, dtype=torch.bool)))
    ours.to_torch()


if __name__ == "__main__":
    main()
