"""The training loop: batches in, gradients summed, weights moved, the best and the last kept.

Read `Trainer.train` first; every method below it is one of its lines. Three rules make the rest short:

- A step is a function of the weights, the optimizer's state, the seed and its number: batch, dropout and
  learning rate follow from these. So a step that is done again, after a kill say, comes out the same.
- A loss is a sum over scored tokens, divided by those of the whole batch. So a batch in parts is the batch.
- What is due is read from `Progress`, which is saved. So a resumed run falls in exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path

import torch
from torch import nn

from regard.checkpoints.files import load_into
from regard.errors import CheckpointError, ConfigError, DataError, TrainingError
from regard.training.averaging import make_averaging
from regard.training.best import is_better
from regard.training.clock import Clock
from regard.training.config import TrainConfig
from regard.training.events import Ended, Evaluated, Reason, Report, Result, Saved, Started, Stepped, Warned
from regard.training.interfaces import Evaluate, LossFunction, SaveModel, TrainingBatches
from regard.training.journal import Journal
from regard.training.loss import Batch, to_device
from regard.training.micro import is_out_of_memory, micro_batches, smaller_parts
from regard.training.optim import make_optimizers, optimizer_tensors, restore_optimizers, set_learning_rate
from regard.training.pace import PROBE_TOKENS
from regard.training.precision import autocast, choose_device, choose_precision, compiled
from regard.training.schedule import learning_rate
from regard.training.signals import StopRequest
from regard.training.state import Progress, StateStore, compare_settings, save_weights, seed_step

__all__ = ["Trainer"]


class Trainer:
    """Train a model.

    Args:
        model: what is trained; it is moved to the device.
        batches: where batches come from; each has `tokens`, the number of its scored positions.
        loss: the objective, for instance `partial(sequence_loss, smoothing=0.1)`.
        config: the settings.
        out: the run's folder. The state goes to `checkpoints`, the metrics to `metrics.jsonl`, the best model
            to the root of it, by `save_model`.
        evaluate: gives metrics; it runs in evaluation mode, without gradients, on the averaged weights if
            there are any, in the precision of training. None: the last weights count as the best.
        metric: which of those metrics decides what is best.
        higher_is_better: the direction of that metric.
        save_model: writes the best weights; by default `model.safetensors`.
        report: takes the events.
        resume: go on from the newest whole state in `out`.
        clock: measures the session; None: from when training begins.

    Raises:
        ConfigError: the folder holds a run already, or the settings don't fit the data or the resumed run.
    """

    def __init__(
        self, model: nn.Module, batches: TrainingBatches, loss: LossFunction, config: TrainConfig, out: str | Path, *,
        evaluate: Evaluate | None = None, metric: str = "loss", higher_is_better: bool = False,
        save_model: SaveModel = save_weights, report: Report = lambda event: None, resume: bool = False,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.device = choose_device(config.device)
        self.model = model.to(self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.batches = batches
        self.loss = loss
        self.out = Path(out)
        self.evaluate = evaluate
        self.metric = metric
        self.higher_is_better = higher_is_better
        self.save_model = save_model
        self.report = report
        self.resume = resume
        self.horizon = config.horizon(batches.num_batches(0))
        self.optimizers = make_optimizers(model, config)
        self.averaging = make_averaging(model, config)
        self.store = StateStore(self.out / "checkpoints", keep=config.keep, warn=self._warn)
        self.journal = Journal(self.out / "metrics.jsonl")
        self.progress = Progress(micro_tokens=config.micro_tokens)
        self.stop = StopRequest()
        self._saved = (0, 0, 0)
        self.clock = clock or Clock()
        if not resume and self.store.states():
            raise ConfigError(f"{self.out} holds a run already; resume it, or choose another folder.")

    def train(self) -> Result:
        """Run to the end, or until a signal asks to stop; either way with everything saved.

        Raises:
            TrainingError: too many NaN or infinite steps in a row, or one row alone that doesn't fit in memory.
            CheckpointError: the last state could not be written, or there are states and none is whole.
            KeyboardInterrupt: a second signal came while the first was being obeyed.
        """
        with self.stop, compiled(self.model, self.config.compile):
            self._begin()
            with closing(self._stream()) as stream:
                while True:
                    if self._is_due(self.config.evaluate_every, done=self.progress.evaluated):
                        self._evaluate()
                    if self._is_due(self.config.save_every, done=self._saved[0]):
                        self._save()
                    if (reason := self._reason_to_end()) is not None:
                        break
                    self._step(next(stream))
            if reason != "interrupted":
                reason = self._finish(reason)
            self._save(last=True)
            result = self._result(reason)
            self.report(Ended(reason, result))
            return result

    # Beginning, going on and ending

    def _begin(self) -> None:
        """Take up the newest state, or begin at step 0."""
        self.out.mkdir(parents=True, exist_ok=True)
        resumed = self._restore() if self.resume else None
        progress = self.progress
        if resumed is None:
            progress.batches = self._batches_in(0)
            part = next(micro_batches(next(self.batches.iterate(0)), PROBE_TOKENS))
            progress.precision = choose_precision(self.config.precision, self.device, lambda: self._try(part))
        self.clock.start(progress.step, progress.elapsed)
        if resumed is None:
            progress.prepared = self.clock.elapsed()
        self.journal.rewind(logged=progress.logged, evaluated=progress.evaluated)
        self.model.train()
        self.report(
            Started(
                progress.step, self.horizon, progress.epoch,
                parameters=sum(p.numel() for p in self.parameters),
                device=str(self.device), precision=progress.precision, resumed_from=resumed,
            )
        )  # fmt: skip

    def _try(self, part: Batch) -> None:
        """Compute a gradient and drop it, as `choose_precision` does to see what is fast."""
        self.loss(self.model, to_device(part, self.device)).loss.backward()
        self.model.zero_grad()

    def _restore(self) -> Path | None:
        found = self.store.load(self.device)
        if found is None:
            self._warn(f"nothing is saved in {self.out} yet; the run begins at its first step.")
            return None
        path, progress, tensors, settings = found
        if differing := compare_settings(settings, self.config):
            self._warn(differing)
        if progress.batches != (batches := self._batches_in(progress.epoch)):
            raise ConfigError(
                f"the run in {self.out} had {progress.batches} batches in epoch {progress.epoch + 1}, this data makes "
                f"{batches}; resume it with the data it began with."
            )
        if settings["micro_tokens"] != self.config.micro_tokens:
            progress.micro_tokens = self.config.micro_tokens
        load_into(self.model, tensors["model"])
        restore_optimizers(self.model, self.optimizers, tensors["optimizer"])
        self.averaging.restore(tensors.get("average", {}))
        self.progress = progress
        self._saved = self._mark()
        return path

    def _stream(self) -> Generator[Batch, None, None]:
        """Give batches without end, from where `progress` stands."""
        while True:
            yield from self.batches.iterate(self.progress.epoch, start=self.progress.batch)
            assert self.progress.batch == 0, "iterate gives as many batches as num_batches says"

    def _batches_in(self, epoch: int) -> int:
        batches = self.batches.num_batches(epoch)
        if batches < 1:
            raise DataError("the training data makes not even one batch; give more of it.")
        return batches

    def _is_due(self, every: int, *, done: int) -> bool:
        step, share = self.progress.step, self.progress.share
        nears_end = share is not None and share > 0.95  # of the time, with which it is due anyway
        return step > done and step % every == 0 and not nears_end

    def _reason_to_end(self) -> Reason | None:
        config, progress = self.config, self.progress
        if self.stop.requested():
            return "interrupted"
        if config.steps is not None and progress.step >= config.steps:
            return "steps"
        if config.epochs is not None and progress.epoch >= config.epochs:
            return "epochs"
        if config.minutes is not None and progress.step and self.clock.over(config.minutes):
            return "minutes"
        return "patience" if config.patience is not None and progress.stale >= config.patience else None

    def _finish(self, reason: Reason) -> Reason:
        """Log and evaluate the last step, where that isn't done; a signal may still interrupt it."""
        if self.progress.step > self.progress.logged:
            self._log()
        if self.progress.step > self.progress.evaluated:
            self._evaluate(last=True)
            if self.stop.requested():
                return "interrupted"
        return reason

    # One step

    def _step(self, batch: Batch) -> None:
        """Move the weights once by a whole batch; leave the step out if its loss or gradient isn't finite."""
        progress, tokens = self.progress, int(batch["tokens"])
        if self.horizon is None and self.config.minutes is not None:
            progress.share = self.clock.share(self.config.minutes, since=progress.prepared)
        with self.clock.step(tokens):
            sums = self._gradients(batch)
            if sums is None:  # asked to stop: the step hasn't happened
                return
            loss, nll, norm = sums
            if all(map(math.isfinite, sums)):
                self._move(norm)
                progress.bad_steps, progress.grad_norm = 0, norm
                progress.add_to_window(loss, nll, tokens)
            else:
                self._leave_out(loss, norm)
        progress.step += 1
        progress.tokens += tokens
        progress.batch += 1
        if progress.batch == progress.batches:
            progress.epoch, progress.batch = progress.epoch + 1, 0
            progress.batches = self._batches_in(progress.epoch)
        if progress.step % self.config.log_every == 0:
            self._log()

    def _gradients(self, batch: Batch) -> list[float] | None:
        """Leave a batch's gradient in the parameters; give the sums of loss and nll, and the gradient's norm.

        Where memory runs out, the step begins again with the batch in smaller parts. None if asked to stop.
        """
        while True:
            seed_step(self.config.seed, self.progress.step, self.device)
            try:
                return self._accumulate(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Out here the error, whose traceback held the step's tensors, is gone, and their memory is free.
            self._take_smaller_parts(batch)

    def _accumulate(self, batch: Batch) -> list[float] | None:
        self.model.zero_grad()
        total = max(1, int(batch["tokens"]))
        loss, nll = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for part in micro_batches(batch, self.progress.micro_tokens):
            with self._autocast():
                sums = self.loss(self.model, to_device(part, self.device))
            (sums.loss / total).backward()
            loss, nll = loss + sums.loss.detach(), nll + sums.nll
            if self.stop.requested():
                self.model.zero_grad()
                return None
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return torch.stack([loss, nll, norm]).tolist()  # the step's only wait for the device

    def _move(self, norm: float) -> None:
        """Clip the gradient to its limit, and take the optimizers' step."""
        if self.config.clip and norm > self.config.clip:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_mul_(gradients, self.config.clip / norm)
        lr = learning_rate(self.config, self.progress.step + 1, self.horizon, share=self.progress.share)
        set_learning_rate(self.optimizers, lr)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad()
        self.averaging.after_step()

    def _leave_out(self, loss: float, norm: float) -> None:
        progress, step = self.progress, self.progress.step + 1
        progress.bad_steps += 1
        what = f"step {step} has a loss of {loss:g} and a gradient norm of {norm:g}"
        if progress.bad_steps < self.config.max_bad_steps:
            self._warn(f"{what}; the weights stay as they are.")
            return
        saved = next((f" (the last state saved is {path})" for path in self.store.states()), "")
        raise TrainingError(
            f"{what}; that makes {progress.bad_steps} steps in a row that aren't finite. Resume{saved} "
            "or begin again with a lower lr, a longer warmup or a smaller clip, or in fp32."
        )

    def _take_smaller_parts(self, batch: Batch) -> None:
        self.model.zero_grad()
        torch.cuda.empty_cache()  # does nothing where CUDA isn't in use
        smaller = self.progress.micro_tokens = smaller_parts(batch, self.progress.micro_tokens)
        self._warn(f"out of memory; from here on parts of at most {smaller} tokens, in the same batches.")

    # Measuring and keeping

    def _log(self) -> None:
        """Report and write down the mean since the last time."""
        progress = self.progress
        tokens = progress.window_tokens or math.nan  # every step of the window may have been left out
        event = Stepped(
            progress.step, self.horizon, progress.epoch,
            loss=progress.window_loss / tokens, nll=progress.window_nll / tokens,
            lr=learning_rate(self.config, progress.step, self.horizon, share=progress.share),
            grad_norm=progress.grad_norm,
            tokens_per_second=self.clock.rate(), elapsed=self.clock.elapsed(),
            remaining=self.clock.remaining(progress.step, horizon=self.horizon, minutes=self.config.minutes),
        )  # fmt: skip
        measured = ("epoch", "loss", "nll", "lr", "grad_norm", "tokens_per_second", "elapsed")
        values = {name: getattr(event, name) for name in measured}
        self._write(lambda: self.journal.add("train", progress.step, values), must=False)
        progress.clear_window()
        self.report(event)

    def _evaluate(self, *, last: bool = False) -> None:
        """Measure the averaged weights, and keep them if they are the best; if asked to stop, leave it undone."""
        progress = self.progress
        metrics: dict[str, float] = {}
        sample: str | None = None
        self.averaging.at_evaluation(progress.step)
        self.model.eval()
        try:
            with self.averaging.applied(self.model), self.clock.evaluation():
                if self.evaluate is not None:
                    seed_step(self.config.seed, -progress.step, self.device)
                    with torch.no_grad(), self._autocast():
                        metrics, sample = self.evaluate(self.model, self.stop.requested)
                    if self.stop.requested():
                        return
                improved = self._is_best(metrics) and self._write(
                    lambda: self.save_model(self.out, self.model.state_dict()), must=last
                )
        finally:
            self.model.train()
        progress.evaluated, progress.last = progress.step, metrics
        progress.stale = 0 if improved else progress.stale + 1
        if improved:
            progress.best, progress.best_step = metrics, progress.step
        if metrics:
            values = {**metrics, "improved": improved, "elapsed": self.clock.elapsed(), "sample": sample}
            self._write(lambda: self.journal.add("valid", progress.step, values), must=False)
        self.report(Evaluated(progress.step, metrics, improved, sample))

    def _is_best(self, metrics: Mapping[str, float]) -> bool:
        best, step = self.progress.best, self.progress.step
        return self.evaluate is None or is_better(
            metrics, best, self.metric, higher=self.higher_is_better, step=step, warn=self._warn
        )

    def _save(self, *, last: bool = False) -> None:
        """Save the state, unless it is saved already."""
        if self._saved == self._mark():
            return
        progress = self.progress
        progress.elapsed = self.clock.elapsed()
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.model, self.optimizers),
        }
        if average := self.averaging.tensors():
            tensors["average"] = average
        with self.clock.saving():
            if self._write(lambda: self.store.save(progress, tensors, self.config.to_dict()), must=last):
                self._saved = self._mark()
                self.report(Saved(progress.step, self.store.path(progress.step)))

    def _write(self, write: Callable[[], object], *, must: bool) -> bool:
        """Write to the disk; where it is full the run goes on and says so, except for the last time."""
        try:
            write()
        except (CheckpointError, OSError) as error:
            if must:
                raise
            self._warn(f"{error} The run goes on; make room.")
            return False
        return True

    # Small things

    def _mark(self) -> tuple[int, int, int]:
        """Tell one state from another: what is saved needn't be saved again."""
        return self.progress.step, self.progress.evaluated, self.progress.logged

    def _result(self, reason: Reason) -> Result:
        p = self.progress
        return Result(reason, p.best, p.best_step, p.last, p.step, self.clock.elapsed(), p.tokens)

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.progress.precision, self.device)

    def _warn(self, text: str) -> None:
        self.report(Warned(text))
