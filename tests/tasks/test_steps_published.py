"""Writing step by step follows a published model's files as the verbs do: prefixes, languages, lengths, penalties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES
from tests.tasks.test_published import published, two_ended, words
from tests.tasks.test_steps import shown, tokens, told
from tests.tasks.test_summarize import TASKS

import regard
from regard.tasks.steps import Alive, Prompt, Tree, next_token

transformers = pytest.importorskip("transformers")


def say(folder: Path, **said: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def test_a_published_search_is_followed_with_its_penalties(tmp_path: Path) -> None:
    published(tmp_path, "Bart", words("<bos> $A <eos>"))
    say(
        tmp_path,
        length_penalty=2.0,
        no_repeat_ngram_size=2,
        forced_bos_token_id=1,
        min_length=6,
        max_length=14,
    )
    model = regard.load(tmp_path)
    for beams in (1, 3):
        own = model.translate(SENTENCES[1], beams=beams, num_return=beams)
        found, events = told(model.parts, "translate", SENTENCES[1], beams=beams)
        assert (found.text, found.score, found.ids, found.tokens) == (
            own.text,
            own.score,
            own.ids,
            own.tokens,
        )
        assert found.candidates == own.candidates
        assert shown(events, found) == found.text
        assert tokens(events)[0].text == "<bos>"
        # Nothing but the forced token runs on after the first step, however many beams there are.
        if beams > 1:
            assert next(len(event.nodes) for event in events if isinstance(event, Alive)) == 1
    # A reader may choose what the search never would: the same pair of tokens twice.
    pair = list(found.ids[1:3])
    again, _ = told(model.parts, "translate", SENTENCES[1], kept=[1, *pair, *pair])
    assert again.ids[:5] == (1, *pair, *pair)
    assert len(set(zip(again.ids[4:], again.ids[5:], strict=False))) == len(again.ids[5:])


@pytest.mark.parametrize(
    ("frame", "place"),
    [("$A <eos> en_XX", "decoder_start_token_id"), ("en_XX $A <eos>", "forced_bos_token_id")],
)
def test_languages_are_followed(tmp_path: Path, frame: str, place: str) -> None:
    published(tmp_path, "MBart", words(frame))
    model = regard.load(tmp_path)
    for source in ("en_XX", "ro_RO"):
        pair: dict[str, Any] = {"source_language": source, "target_language": "ro_RO", "max_tokens": 12}
        for beams in (1, 3):
            own = model.translate("a dog", beams=beams, **pair)
            found, events = told(model.parts, "translate", "a dog", beams=beams, **pair)
            assert (found.text, found.score, found.ids) == (own.text, own.score, own.ids)
            (prompt,) = (event for event in events if isinstance(event, Prompt))
            assert [piece.text for piece in prompt.tokens if piece.text in ("en_XX", "ro_RO")] == [source]
            again, _ = told(model.parts, "translate", "a dog", kept=found.ids[:4], **pair)
            assert again.ids[:4] == found.ids[:4]
        first = next_token(model.parts, "translate", "a dog", **pair)
        second = next_token(model.parts, "translate", "a dog", kept=found.ids[:1], **pair)
        assert not torch.equal(first.logprobs, second.logprobs)


def test_the_prefix_of_a_task_is_told_as_what_stands_around(tmp_path: Path) -> None:
    tokenizer = words("$A <eos>")
    config = transformers.T5Config(
        vocab_size=tokenizer.vocab_size, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, pad_token_id=0,
        eos_token_id=2, decoder_start_token_id=0, n_positions=128, task_specific_params=TASKS,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task_specific_params": TASKS}))
    model = regard.load(tmp_path)
    cases: list[tuple[str, Any]] = [
        ("summarize", model.summarize(SENTENCES[1], beams=1, max_tokens=9)),
        (
            "translate",
            model.translate(SENTENCES[1], beams=1, max_tokens=9, source_language="en", target_language="de"),
        ),
    ]
    for verb, own in cases:
        more = {"source_language": "en", "target_language": "de"} if verb == "translate" else {}
        found, events = told(model.parts, verb, SENTENCES[1], max_tokens=9, **more)
        assert (found.text, found.score, found.prompt_tokens) == (own.text, own.score, own.source_tokens)
        prompt = events[0]
        assert isinstance(prompt, Prompt)
        assert len(prompt.tokens) == own.source_tokens
        inner = [piece for piece in prompt.tokens if piece.end > piece.start]
        assert "".join(piece.text for piece in inner) == SENTENCES[1]
        assert prompt.tokens[0].start == prompt.tokens[0].end == 0


def test_a_text_has_several_ends_and_a_sample_its_filters(tmp_path: Path) -> None:
    tokenizer = words("<bos> $A")
    model = two_ended(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[9] = model.lm_head.weight[50] + 0.01 * model.lm_head.weight[9]
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    say(tmp_path, do_sample=True, temperature=1.4, top_k=30, top_p=0.95, repetition_penalty=1.2)
    ours = regard.load(tmp_path)
    ended = set()
    for seed in range(6):
        own = ours.generate("a dog", seed=seed, max_tokens=25)
        found, events = told(ours.parts, "generate", "a dog", seed=seed, max_tokens=25)
        assert (found.text, found.ids, found.finished) == (own.text, own.ids, own.finished)
        assert shown(events, found) == found.text
        if found.finished:
            last = tokens(events)[-1]
            assert last.end
            own_nats = next_token(ours.parts, "generate", "a dog", kept=found.ids).logprobs
            assert last.logprob == pytest.approx(float(own_nats[last.id]), abs=1e-4)
            ended.add(last.id)
        again, _ = told(ours.parts, "generate", "a dog", seed=seed, max_tokens=25, kept=found.ids[:3])
        assert again.ids == found.ids
    assert ended <= {2, 9}
    for beams in (2, 4):
        one = ours.generate("a dog", num_beams=beams, max_tokens=25)
        found, events = told(ours.parts, "generate", "a dog", beams=beams, max_tokens=25)
        assert (found.text, found.ids, found.finished) == (one.text, one.ids, one.finished)
        (tree,) = (event for event in events if isinstance(event, Tree))
        for node in tree.nodes:
            if node.end:
                nats = next_token(ours.parts, "generate", "a dog", kept=path(tree, node.parent)).logprobs
                assert node.logprob == pytest.approx(float(nats[node.id]), abs=1e-3)


def path(tree: Tree, number: int) -> list[int]:
    return [] if number < 0 else [*path(tree, tree.nodes[number].parent), tree.nodes[number].id]


def test_groups_of_beams_share_one_tree(tmp_path: Path) -> None:
    published(tmp_path, "Bart", words("<bos> $A <eos>"))
    say(tmp_path, num_beams=4, num_beam_groups=2, diversity_penalty=1.5)
    model = regard.load(tmp_path)
    assert model.parts.published is not None
    assert model.parts.published.config.beam_groups == 2
    own = model.translate(SENTENCES[0], num_return=4, max_tokens=12)
    found, events = told(model.parts, "translate", SENTENCES[0], beams=4, max_tokens=12)
    assert (found.text, found.score, found.candidates) == (own.text, own.score, own.candidates)
    (tree,) = (event for event in events if isinstance(event, Tree))
    assert [tree.nodes[k].id for k in tree.best][: len(found.ids)] == list(found.ids)
