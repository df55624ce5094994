import json
import math
from functools import partial

import pytest
import torch
from tests.training.tiny import Recorder, TinyBatches, TinyModel, evaluation, make_trainer, settings

from regard.checkpoints.files import load_tensors
from regard.errors import CheckpointError, ConfigError, DataError, TrainingError
from regard.training.events import Ended, Evaluated, Saved, Started, Stepped, Warned
from regard.training.loss import LossSums, sequence_loss


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Once:
    """Raise an error at the given calls of the objective, or make its loss NaN."""

    def __init__(self, *calls, error=None):
        self.calls, self.error, self.count = calls, error, 0

    def __call__(self, model, batch):
        self.count += 1
        sums = sequence_loss(model, batch)
        if self.count not in self.calls:
            return sums
        if self.error:
            raise self.error
        return LossSums(sums.loss * math.nan, sums.nll, sums.tokens)


def test_learns_and_tells_what_it_does(tmp_path):
    events = Recorder()
    trainer = make_trainer(tmp_path, settings(steps=60, evaluate_every=20), report=events)
    result = trainer.train()
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Ended)
    assert [e.step for e in events.of(Stepped)] == list(range(2, 61, 2))
    assert [e.step for e in events.of(Evaluated)] == [20, 40, 60]
    assert events.of(Stepped)[-1].loss < events.of(Stepped)[0].loss
    assert result.reason == "steps"
    assert result.steps == 60
    assert result.best == min((e.metrics for e in events.of(Evaluated)), key=lambda m: m["loss"])
    assert events[0].parameters == sum(p.numel() for p in trainer.model.parameters())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-57", "step-60"]


def test_accumulation_is_the_large_batch(tmp_path):
    runs = []
    for name, micro in (("whole", None), ("parts", 14), ("rows", 1)):
        trainer = make_trainer(tmp_path / name, settings(micro_tokens=micro), model=TinyModel(dropout=0))
        torch.manual_seed(3)
        trainer.model.load_state_dict(TinyModel().state_dict())
        trainer.train()
        runs.append(weights(trainer))
    for other in runs[1:]:
        for name in other:
            torch.testing.assert_close(other[name], runs[0][name], rtol=1e-4, atol=1e-5)


def test_out_of_memory_halves_the_parts_and_keeps_the_batch(tmp_path):
    calm = make_trainer(tmp_path / "calm", settings(micro_tokens=14))
    calm.train()
    events = Recorder()
    # The whole batch of five rows fails, then a part of two passes: from then on it is a run with such parts.
    failing = Once(1, error=torch.OutOfMemoryError("out of memory"))
    trainer = make_trainer(tmp_path / "oom", loss=failing, report=events)
    calm = make_trainer(tmp_path / "same", settings(micro_tokens=17), loss=Once())
    calm.train()
    trainer.train()
    assert_same(weights(trainer), weights(calm))
    (warning,) = events.of(Warned)
    assert "out of memory" in warning.text
    assert trainer.progress.micro_tokens == 17


def test_out_of_memory_with_one_row_ends_the_run(tmp_path):
    trainer = make_trainer(
        tmp_path, loss=Once(*range(99), error=RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    )
    with pytest.raises(TrainingError, match="single row"):
        trainer.train()
    trainer = make_trainer(tmp_path, loss=Once(1, error=RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        trainer.train()


def test_a_nan_step_is_left_out_and_said(tmp_path):
    events = Recorder()
    trainer = make_trainer(tmp_path, settings(steps=6, evaluate_every=50), loss=Once(3), report=events)
    moved = []
    move = trainer._move
    trainer._move = lambda norm: moved.append(trainer.progress.step + 1) or move(norm)
    trainer.train()
    assert moved == [1, 2, 4, 5, 6]
    assert "step 3 has a loss of nan" in events.of(Warned)[0].text
    assert all(w.isfinite().all() for w in weights(trainer).values())
    assert [e.step for e in events.of(Stepped) if math.isfinite(e.loss)] == [2, 4, 6]


def test_nan_after_nan_ends_the_run_with_the_good_state_kept(tmp_path):
    config = settings(max_bad_steps=3, save_every=2)
    trainer = make_trainer(tmp_path, config, loss=Once(3, 5, 6, 7))
    with pytest.raises(TrainingError, match=r"3 steps in a row.*step-6"):
        trainer.train()
    saved = load_tensors(tmp_path / "checkpoints" / "step-4" / "model.safetensors")
    assert all(w.isfinite().all() for w in saved.values())


def test_the_gradient_is_clipped_to_its_norm(tmp_path):
    trainer = make_trainer(tmp_path, settings(clip=0.01))
    seen = []
    step = trainer.optimizers[0].step

    def watch():
        seen.append(float(torch.nn.utils.get_total_norm([p.grad for p in trainer.parameters])))
        step()

    trainer.optimizers[0].step = watch
    trainer.train()
    assert all(norm == pytest.approx(0.01, rel=1e-3) for norm in seen)


@pytest.mark.parametrize(
    ("changes", "reason", "steps"),
    [
        ({"steps": 5}, "steps", 5),
        ({"steps": None, "epochs": 2}, "epochs", 11),
        ({"steps": None, "minutes": 1e-5}, "minutes", None),
        ({"steps": 500, "patience": 2, "lr": 1e-9, "evaluate_every": 2, "average": "none"}, "patience", None),
    ],
)
def test_ends(tmp_path, changes, reason, steps):
    events = Recorder()

    def worse(model, should_stop):
        return {"loss": float(len(events))}, None

    result = make_trainer(tmp_path, settings(**changes), evaluate=worse, report=events).train()
    assert result.reason == reason
    assert steps is None or result.steps == steps
    if result.steps:
        assert events.of(Evaluated)[-1].step == events.of(Saved)[-1].step == result.steps
    if reason == "patience":
        assert result.best_step == 2
        assert result.steps == 6


@pytest.mark.parametrize("average", ["none", "ema", "last"])
def test_the_best_is_kept_apart_from_the_last(tmp_path, average):
    scores = iter([1.0, 3.0, 2.0])
    seen = []

    def evaluate(model, should_stop):
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append({name: w.clone() for name, w in model.state_dict().items()})
        return {"bleu": next(scores)}, "sample"

    trainer = make_trainer(
        tmp_path,
        settings(average=average, average_last=2),
        evaluate=evaluate,
        metric="bleu",
        higher_is_better=True,
    )
    result = trainer.train()
    assert result.best == {"bleu": 3.0}
    assert result.best_step == 8
    assert result.last == {"bleu": 2.0}
    assert_same(load_tensors(tmp_path / "model.safetensors"), seen[1])
    assert_same(load_tensors(tmp_path / "checkpoints" / "step-12" / "model.safetensors"), weights(trainer))
    if average != "none":
        assert not torch.equal(seen[-1]["inner.weight"], trainer.model.inner.weight)


def test_without_evaluation_the_last_weights_are_kept(tmp_path):
    trainer = make_trainer(tmp_path, settings(steps=5), evaluate=None)
    result = trainer.train()
    assert_same(load_tensors(tmp_path / "model.safetensors"), weights(trainer))
    assert result.best == {}
    assert result.best_step == 5


def test_a_metric_that_is_nan_is_never_the_best(tmp_path):
    events = Recorder()
    scores = iter([2.0, math.nan, 1.0])
    trainer = make_trainer(tmp_path, evaluate=lambda m, s: ({"loss": next(scores)}, None), report=events)
    assert trainer.train().best_step == 12
    assert [e.improved for e in events.of(Evaluated)] == [True, False, True]
    assert "loss=nan" in events.of(Warned)[0].text
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if line["kind"] == "valid"] == [2.0, None, 1.0]


def test_evaluation_does_not_move_training(tmp_path):
    def noisy(model, should_stop):
        torch.rand(7)
        return {"loss": 1.0}, None

    first, second = make_trainer(tmp_path / "a", evaluate=noisy), make_trainer(tmp_path / "b", evaluate=None)
    first.train()
    second.train()
    assert_same(weights(first), weights(second))


def test_bad_input_is_one_clear_line(tmp_path):
    make_trainer(tmp_path / "run", settings(steps=3)).train()
    with pytest.raises(ConfigError, match="holds a run already"):
        make_trainer(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"no metric 'blue'; it has bleu. did you mean 'bleu'\?"):
        make_trainer(tmp_path / "metric", evaluate=lambda m, s: ({"bleu": 1.0}, None), metric="blue").train()
    with pytest.raises(DataError, match="not even one batch"):
        make_trainer(tmp_path / "empty", batches=TinyBatches(count=0), evaluate=None).train()
    with pytest.raises(ConfigError, match="seed=9 can't be changed"):
        make_trainer(tmp_path / "run", settings(seed=9), resume=True).train()
    with pytest.raises(ConfigError, match="had 5 batches in epoch 1, this data makes 4"):
        make_trainer(tmp_path / "run", batches=TinyBatches(count=4), resume=True).train()


def test_a_resume_says_what_it_changes(tmp_path):
    make_trainer(tmp_path, settings(steps=3)).train()
    events = Recorder()
    make_trainer(tmp_path, settings(steps=6, lr=0.01), resume=True, report=events).train()
    (warning,) = events.of(Warned)
    assert "lr=0.01 (was 0.05)" in warning.text
    assert "steps" not in warning.text.replace("settings", "")
    assert events.of(Started)[0].step == 3


def test_a_resume_uses_the_recorded_precision(tmp_path, monkeypatch):
    from regard.training import loop

    monkeypatch.setattr(loop, "choose_precision", lambda *_: "bf16")
    make_trainer(tmp_path, settings(steps=3, precision="auto")).train()
    monkeypatch.setattr(loop, "choose_precision", lambda *_: "fp32")
    events = Recorder()
    make_trainer(tmp_path, settings(steps=5, precision="auto"), resume=True, report=events).train()
    assert events.of(Started)[0].precision == "bf16"


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    from regard.training.state import StateStore

    save, failures = StateStore.save, [3, 6]

    def full(self, progress, *rest):
        if progress.step in failures:
            raise CheckpointError("the state could not be written (No space left on device).")
        return save(self, progress, *rest)

    monkeypatch.setattr(StateStore, "save", full)
    events = Recorder()
    make_trainer(tmp_path / "a", report=events).train()
    assert [e.step for e in events.of(Saved)] == [9, 12]
    assert len(events.of(Warned)) == 2
    failures.append(12)
    with pytest.raises(CheckpointError, match="No space left"):
        make_trainer(tmp_path / "b").train()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_bf16_and_both_optimizers_learn(tmp_path, optimizer):
    events = Recorder()
    config = settings(steps=60, precision="bf16", optimizer=optimizer, weight_decay=0.01)
    make_trainer(tmp_path, config, report=events, loss=partial(sequence_loss, smoothing=0.0)).train()
    assert events.of(Stepped)[-1].nll < events.of(Stepped)[0].nll


def test_stops_within_an_evaluation_and_does_it_again(tmp_path):
    batches = TinyBatches()
    calm = make_trainer(tmp_path / "calm", batches=TinyBatches())
    calm.train()
    trainer = make_trainer(tmp_path / "run", batches=batches)
    measure = evaluation(batches)

    def interrupted(model, should_stop):
        if trainer.progress.step == 8:
            trainer.stop._requested = True
            assert should_stop()
        return measure(model, should_stop)

    trainer.evaluate = interrupted
    result = trainer.train()
    assert result.reason == "interrupted"
    assert result.steps == 8
    assert trainer.progress.evaluated == 4
    events = Recorder()
    resumed = make_trainer(tmp_path / "run", batches=TinyBatches(), resume=True, report=events)
    resumed.train()
    assert [e.step for e in events.of(Evaluated)] == [8, 12]
    assert_same(weights(resumed), weights(calm))
