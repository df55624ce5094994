"""Generating: seeds, rows that don't depend on each other, streamed pieces, stop strings, windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import make_parts, tokenizer, writer

from regard.errors import ConfigError, DataError
from regard.models.decoding import Decoding
from regard.tasks.base import Parts
from regard.tasks.generate import Generation, generate
from regard.tasks.writing import Writer

PROMPTS = ("a dog", "the animal didn't", "", "t", "two birds sing", "it was too wide because it was")


def same(ours: list[Generation], theirs: list[Generation]) -> None:
    for left, right in zip(ours, theirs, strict=True):
        assert left.text == right.text
        assert (left.tokens, left.windows, left.finished) == (right.tokens, right.windows, right.finished)
        assert left.score == pytest.approx(right.score, abs=1e-3)


def alone(prompt: str, place: int, **settings: object) -> Generation:
    """Generate for a prompt at a place of a longer list, every prompt in a batch of its own."""
    return generate(writer(), ["a"] * place + [prompt], batch_tokens=1, **settings)[place]  # type: ignore[arg-type]


def test_a_seed_gives_a_text_again_and_another_another() -> None:
    first = generate(writer(), ["a dog"], seed=5, temperature=1.0, max_tokens=30)
    same(first, generate(writer(), ["a dog"], seed=5, temperature=1.0, max_tokens=30))
    texts = {generate(writer(), ["a dog"], seed=s, temperature=1.0, max_tokens=30)[0].text for s in range(4)}
    assert len(texts) > 1
    state = torch.random.get_rng_state()
    fresh = {generate(writer(), ["a dog"], temperature=2.0, max_tokens=30)[0].text for _ in range(3)}
    assert len(fresh) > 1
    assert torch.equal(state, torch.random.get_rng_state())  # torch's own generator is left alone


@pytest.mark.parametrize("position", ["none", "sinusoidal", "learned", "rotary", "alibi", "t5"])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "top_p": 0.95, "seed": 3},
        {"temperature": 0.0, "no_repeat_ngram": 3},
    ],
    ids=str,
)
def test_prompts_in_one_batch_give_what_each_gives_alone(position: str, settings: dict[str, float]) -> None:
    parts = writer(position=position)
    together = generate(parts, PROMPTS, max_tokens=50, **settings)  # type: ignore[arg-type]
    assert max(found.windows for found in together) > 1
    same(together, generate(parts, PROMPTS, max_tokens=50, batch_tokens=1, **settings))  # type: ignore[arg-type]
    same(together, generate(parts, PROMPTS, max_tokens=50, batch_tokens=120, **settings))  # type: ignore[arg-type]


def test_the_batches_are_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    start = type(writer().module).start

    def counted(self: object, *, batch: int) -> object:
        sizes.append(batch)
        return start(self, batch=batch)  # type: ignore[arg-type]

    monkeypatch.setattr(type(writer().module), "start", counted)
    generate(writer(), ["a dog", "a cat", "a bird"], max_tokens=5)
    assert sizes == [3]
    generate(writer(), ["a dog", "a cat", "a bird"], max_tokens=5, batch_tokens=1)
    assert sizes == [3, 1, 1, 1]


def test_greedy_tokens_are_the_likeliest_of_the_models_forward() -> None:
    parts = writer()
    (found,) = generate(parts, ["the cat"], temperature=0, max_tokens=12)
    ids = parts.tokenizer.encode("the cat")
    text, score = "", 0.0
    for _ in range(12):
        nats = parts.module(torch.tensor([ids]))[0, -1].detach().log_softmax(-1)
        nats_left = nats.clone()
        nats_left[[0, 1, 3, 4]] = -torch.inf
        best = int(nats_left.argmax())
        score += float(nats[best])
        if best == 2:
            break
        ids.append(best)
        text += parts.tokenizer.decode([best])
    assert found.text == text
    assert found.score == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("words", ["char", "bpe", "byte"])
def test_streamed_pieces_add_up_to_the_text(words: str) -> None:
    parts, pieces = writer(words), {0: "", 1: ""}

    def add(number: int, text: str) -> None:
        assert text
        pieces[number] += text

    found = generate(
        parts, ["a dog", "the"], max_tokens=60, temperature=1.5, seed=1, on_text=add, stop=["zz", "é"]
    )
    assert [pieces[0], pieces[1]] == [one.text for one in found]
    same(found, generate(parts, ["a dog", "the"], max_tokens=60, temperature=1.5, seed=1, stop=["zz", "é"]))


@pytest.mark.parametrize("words", ["char", "bpe", "byte"])
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_end(words: str) -> None:
    parts = writer(words)
    settings = {"max_tokens": 60, "temperature": 1.0, "seed": 4}
    (free,) = generate(parts, ["a dog"], **settings)  # type: ignore[arg-type]
    assert len(free.text) > 20
    for start in range(16):
        for length in (1, 2, 5):
            stop = free.text[start : start + length]
            (cut,) = generate(parts, ["a dog"], stop=["never this", stop], **settings)  # type: ignore[arg-type]
            assert cut.text == free.text[: free.text.index(stop)]
            assert cut.finished
            assert cut.tokens <= free.tokens
    (first,) = generate(parts, ["a dog"], stop=[free.text[:3]], **settings)  # type: ignore[arg-type]
    assert first.text == ""
    assert first.tokens >= 1
    assert str(first) == "a dog"


def test_what_only_began_like_a_stop_string_is_let_out() -> None:
    (free,) = generate(writer(), ["a dog"], max_tokens=10, temperature=0)
    (found,) = generate(writer(), ["a dog"], max_tokens=10, temperature=0, stop=[free.text[-4:] + "!?"])
    assert found.text == free.text
    assert found.finished == free.finished


def test_a_stop_string_in_what_is_held_back_to_the_end_counts() -> None:
    tokens = tokenizer("byte")
    written: list[str] = []
    whole = Writer(tokens, ["é"], written.append)
    for token in tokens.encode("abé"):
        whole.add(token)
    assert (whole.text, whole.stopped, written) == ("ab", True, ["a", "b"])
    half = Writer(tokens, ["\ufffd"], None)
    for token in tokens.encode("abé")[:-1]:
        half.add(token)
    assert not half.stopped
    half.finish()
    assert (half.text, half.stopped) == ("ab", True)


@pytest.mark.parametrize("count", [1, 5, 28, 29, 60])
def test_the_number_of_tokens_is_exact(count: int) -> None:
    parts = make_parts("decoder", context=32, output_bias=True)
    with torch.no_grad():
        parts.module.head.output.bias[2] = -50.0  # type: ignore[union-attr, index, operator]
    (found,) = generate(parts, ["abc"], max_tokens=count, temperature=1.0, seed=0)
    assert found.tokens == count == len(found.text)  # a token is a character
    assert not found.finished
    assert found.prompt_tokens == 3
    # The first window holds 32 tokens and one that is never fed; each further one begins with 16 of them.
    assert found.windows == 1 + max(0, -(-(count - 30) // 17))


def test_a_window_is_running_text_that_begins_in_the_middle() -> None:
    parts = writer()
    (found,) = generate(parts, ["abc"], max_tokens=45, temperature=0)
    if found.tokens < 45:
        pytest.skip("the text ended before its second window")
    ids = parts.tokenizer.encode(found.prompt + found.text)
    half = parts.tokenizer.decode(ids[33 - 16 : 33])
    (again,) = generate(parts, [half], max_tokens=45 - 30, temperature=0)
    assert found.text.endswith(again.text)
    assert found.windows == 2


def test_the_prompt_may_fill_the_context_but_not_more() -> None:
    parts = writer()
    (found,) = generate(parts, ["a" * 32], max_tokens=3, temperature=0)
    assert found.tokens >= 1
    with pytest.raises(DataError, match=r"prompt 2 has 33 tokens; this model's context is 32"):
        generate(parts, ["a", "a" * 33])


def test_a_context_of_one_token_is_enough() -> None:
    parts = make_parts("decoder", context=1)
    (found,) = generate(parts, ["a"], max_tokens=4, temperature=0)
    assert found.windows == found.tokens


def test_the_end_token_ends_a_text_and_is_counted() -> None:
    parts = make_parts("decoder", output_bias=True)
    with torch.no_grad():
        parts.module.head.output.bias[2] = 50.0  # type: ignore[union-attr, index, operator]
    for found in generate(parts, ["abc", "", "a dog"], max_tokens=5):
        assert (found.text, found.tokens, found.finished, found.windows) == ("", 1, True, 1)


def test_special_tokens_are_never_written() -> None:
    size = tokenizer().vocab_size
    parts = make_parts("decoder", output_bias=True, extra=5)
    with torch.no_grad():
        parts.module.head.output.bias[[0, 1, 3, 4, *range(size, size + 5)]] = 30.0  # type: ignore[union-attr, index, operator]
    for temperature in (0.0, 1.0):
        for found in generate(parts, ["abc", ""], max_tokens=20, temperature=temperature, seed=1):
            assert len(found.text) == found.tokens - found.finished


def test_an_empty_prompt_starts_from_the_beginning() -> None:
    (found,) = generate(writer(), [""], max_tokens=5, temperature=0)
    assert found.prompt == ""
    assert found.prompt_tokens == 1
    assert generate(writer(), []) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_p": 0.0}, "top_p=0 leaves"),
        ({"min_p": -1.0}, "min_p=-1.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"temperature": 0.0, "top_k": 3}, "top_k=3 would be ignored"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"seed": -1}, "seed=-1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"stop": [""]}, "stop takes a list"),
        ({"stop": "end"}, "stop takes a list"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("prompts", [[], ["a"]], ids=["none", "one"])
def test_settings_that_cannot_be(settings: dict[str, object], said: str, prompts: list[str]) -> None:
    with pytest.raises(ConfigError, match=said):
        generate(writer(), prompts, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"kind": "encoder-decoder"}, {"kind": "encoder"},
                {"kind": "decoder", "head": "classify", "labels": ("a", "b"), "pooling": "last"}], ids=str,
)  # fmt: skip
def test_a_model_that_cannot_generate_says_so(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="can't generate, which takes a decoder"):
        generate(make_parts(**changes), ["a"])  # type: ignore[arg-type]


def repeats() -> Parts:
    """Give a decoder that soon repeats itself."""
    return make_parts("decoder", context=64, seed=5)


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.9, "seed": 2}], ids=str)
def test_guesses_change_no_text(settings: dict[str, Any]) -> None:
    parts, other = repeats(), make_parts("decoder", context=64, seed=6)
    wanted = generate(parts, PROMPTS, max_tokens=90, **settings)
    assert max(found.windows for found in wanted) > 1
    for guess in ({"lookup": 5}, {"draft": other}, {"draft": parts}):
        found = generate(parts, PROMPTS, max_tokens=90, **guess, **settings)
        assert [(one.text, one.finished) for one in found] == [(one.text, one.finished) for one in wanted]


def test_guesses_save_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = repeats()
    steps = 0
    advance = Decoding.advance

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return advance(self, *args, **kwargs)

    monkeypatch.setattr(Decoding, "advance", counted)
    (plain,) = generate(parts, ["a dog"], temperature=0.0, max_tokens=50)
    without, steps = steps, 0
    (found,) = generate(parts, ["a dog"], temperature=0.0, max_tokens=50, lookup=8)
    assert found.text == plain.text
    assert without == plain.tokens
    assert steps < without


def test_a_draft_needs_the_same_vocabulary() -> None:
    with pytest.raises(ConfigError, match="another vocabulary"):
        generate(repeats(), ["a"], draft=make_parts("decoder", words="bpe"))
    with pytest.raises(ConfigError, match="an encoder-decoder and can't generate"):
        generate(repeats(), ["a"], draft=make_parts("encoder-decoder"))
    with pytest.raises(ConfigError, match="give one of them"):
        generate(repeats(), ["a"], draft=repeats(), lookup=3)


def test_beams_give_the_n_best_and_rows_give_what_each_gives_alone() -> None:
    parts = repeats()
    for settings in ({"num_beams": 4}, {"num_beams": 4, "beam_groups": 2, "diversity_penalty": 0.5}):
        settings |= {"num_return": 3, "max_tokens": 12, "length_penalty": 0.7, "stop": ["zz"]}
        found = generate(parts, PROMPTS, **settings)  # type: ignore[arg-type]
        for prompt, one in zip(PROMPTS, found, strict=True):
            assert len(one.candidates) == 3
            assert one.text == one.candidates[0].text
            scores = [candidate.score for candidate in one.candidates]
            assert scores == sorted(scores, reverse=True)
            (single,) = generate(parts, [prompt], **settings)  # type: ignore[arg-type]
            assert [c.text for c in single.candidates] == [c.text for c in one.candidates]
    greedy = generate(parts, PROMPTS, temperature=0.0, max_tokens=90)
    wide = generate(parts, PROMPTS, num_beams=4, max_tokens=90, early_stopping="never")
    assert max(one.windows for one in wide) > 1
    assert [one.text for one in greedy] != [one.text for one in wide]
    with pytest.raises(DataError, match=r"prompt 1 has 5 tokens, which leaves no room for 90 more"):
        generate(parts, ["a dog"], num_beams=3, num_return=2, max_tokens=90)


def test_beams_stop_at_a_string() -> None:
    parts = repeats()
    (free,) = generate(parts, ["a dog"], num_beams=3, max_tokens=20)
    stop = free.text[4:6]
    (cut,) = generate(parts, ["a dog"], num_beams=3, max_tokens=20, stop=[stop])
    assert stop not in cut.text


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"temperature": 2.0, "seed": 1}, {"lookup": 4}], ids=str
)
def test_the_output_is_one_of_the_given_texts(settings: dict[str, Any]) -> None:
    choices = ["tired", "wide", "tired and wide", "a dog"]
    found = generate(repeats(), PROMPTS, one_of=choices, **settings)
    assert {one.text for one in found} <= set(choices)
    assert all(one.finished for one in found)
    alone = generate(repeats(), [PROMPTS[2]], one_of=choices, rows=[2], **settings)
    assert alone[0].text == found[2].text
    with pytest.raises(DataError, match="no room for"):
        generate(repeats(), ["a" * 60], one_of=choices)


def test_bias_and_rows() -> None:
    parts = repeats()
    (free,) = generate(parts, ["a dog"], temperature=0.0, max_tokens=8)
    (other,) = generate(parts, ["a dog"], temperature=0.0, max_tokens=8, bias={free.text[0]: -50.0})
    assert other.text[0] != free.text[0]
    (forced,) = generate(parts, ["a dog"], temperature=0.0, max_tokens=8, bias={"q": 1e4})
    assert forced.text == "q" * 8
    with pytest.raises(ConfigError, match="'dog' is 3 tokens"):
        generate(parts, ["a"], bias={"dog": 1.0})
    one, two = generate(parts, ["a dog", "a dog"], rows=[7, 7], seed=1, max_tokens=20)
    assert one == two


def test_a_model_that_was_published_to_sample_does_so_as_its_file_says(tmp_path: Path) -> None:
    import json

    import regard

    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=tokenizer().vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.4,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer().save(tmp_path)
    said = {"do_sample": True, "temperature": 0.5, "top_k": 3, "repetition_penalty": 1.3, "eos_token_id": 2}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    model = regard.load(tmp_path)
    wanted = model.generate("a dog", seed=1, temperature=0.5, top_k=3, repetition_penalty=1.3, max_tokens=30)
    assert model.generate("a dog", seed=1, max_tokens=30) == wanted
    greedy = model.generate("a dog", temperature=0.0, max_tokens=30)
    plain = Parts(model.parts.module, model.parts.tokenizer, model.parts.config)
    assert greedy == generate(plain, ["a dog"], temperature=0.0, repetition_penalty=1.3, max_tokens=30)[0]
    assert greedy.text != generate(plain, ["a dog"], temperature=0.0, max_tokens=30)[0].text
