"""Embeddings of several tokens: what they depend on, what they don't, and where they may stand."""

import pytest
import torch
from tests.models.zoo import config

from regard.checkpoints.configs import write_config
from regard.checkpoints.families import FAMILIES
from regard.errors import ConfigError
from regard.models.families import preset
from regard.models.transformer import build
from regard.nn.ngrams import NGramEmbedding


def made(ngrams: int = 3, rows: int = 5000) -> NGramEmbedding:
    torch.manual_seed(1)
    return NGramEmbedding(config("decoder/none/layernorm/pre", ngrams=ngrams, ngram_rows=rows))


def test_a_vector_is_that_of_the_last_tokens_and_no_others():
    embed, ids = made(), torch.tensor([[3, 4, 5, 6, 7, 8]])
    other = torch.tensor([[9, 3, 5, 6, 7, 8]])
    ours, theirs = embed(ids, torch.arange(6)), embed(other, torch.arange(6))
    assert torch.equal(ours[:, 4:], theirs[:, 4:])  # 5 6 7 and 6 7 8
    assert not torch.isclose(ours[:, 2], theirs[:, 2]).all()  # 3 4 5 and 9 3 5


def test_nothing_is_looked_up_before_the_beginning_of_a_text():
    embed = made()
    packed, positions = torch.tensor([[9, 9, 3, 4, 5]]), torch.tensor([[0, 1, 0, 1, 2]])
    alone = embed(torch.tensor([[3, 4, 5]]), torch.arange(3))
    assert torch.equal(embed(packed, positions)[:, 2:], alone)


def test_the_order_of_tokens_counts():
    embed = made(ngrams=2)
    one, two = (embed(torch.tensor([ids]), torch.arange(2))[0, 1] for ids in ([3, 4], [4, 3]))
    assert not torch.isclose(one, two).any()


def test_rows_are_used_evenly():
    embed = made(ngrams=2, rows=64)
    pairs = torch.cartesian_prod(torch.arange(100), torch.arange(100))
    seen = []
    embed.tables[0].register_forward_hook(lambda module, given, out: seen.append(given[0][:, 1]))
    embed(pairs, torch.arange(2))
    counts = torch.bincount(seen[0], minlength=64)
    assert counts.min() > 100
    assert counts.max() < 220  # 10,000 pairs in 64 rows: 156 each


def test_it_is_for_decoders_and_no_published_family_has_it():
    with pytest.raises(ConfigError, match="decoder"):
        config("encoder/none/layernorm/pre", ngrams=2)
    plain = preset("gpt2", width=16, num_layers=1, num_heads=2)
    assert write_config(FAMILIES["gpt2"], plain) is not None
    assert write_config(FAMILIES["gpt2"], plain.replace(ngrams=2)) is None


def test_its_weights_are_counted():
    small = config("decoder/none/layernorm/pre", ngrams=4, ngram_rows=30)
    assert sum(p.numel() for p in build(small).parameters()) == small.num_parameters()


def test_ids_of_32_bits_are_the_same_ids():
    embed, ids = made(), torch.tensor([[3, 4, 5, 6]])
    assert torch.equal(embed(ids.int(), torch.arange(4)), embed(ids, torch.arange(4)))
