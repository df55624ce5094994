import subprocess
import sys

import pytest
import torch
from tests.training.tiny import TinyModel, settings
from torch import nn

from regard.errors import CheckpointError
from regard.training.optim import hidden_matrices, make_optimizers, optimizer_tensors, restore_optimizers


class Untied(TinyModel):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(self.head.weight.detach().clone())


@pytest.mark.parametrize("model", [TinyModel(), Untied()])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer(model, kind):
    optimizers = make_optimizers(model, settings(optimizer=kind, weight_decay=0.1))
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_muon_takes_hidden_matrices_only():
    assert hidden_matrices(TinyModel()) == {"inner.weight"}
    assert hidden_matrices(Untied()) == {"inner.weight"}
    muon, _ = make_optimizers(TinyModel(), settings(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon)


def test_only_matrices_decay():
    model = Untied()
    names = {id(p): name for name, p in model.named_parameters()}
    (adamw,) = make_optimizers(model, settings(weight_decay=0.1))
    decayed = {names[id(p)] for g in adamw.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {"inner.weight", "head.weight"}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_restored_state_steps_as_the_original(kind):
    def step(model, optimizers, seed):
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        for optimizer in optimizers:
            optimizer.step()

    config = settings(optimizer=kind, weight_decay=0.1)
    first = TinyModel()
    optimizers = make_optimizers(first, config)
    step(first, optimizers, 1)
    second = TinyModel()
    second.load_state_dict(first.state_dict())
    others = make_optimizers(second, config)
    restore_optimizers(second, others, optimizer_tensors(first, optimizers))
    step(first, optimizers, 2)
    step(second, others, 2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_of_another_model_is_refused():
    model = TinyModel()
    optimizers = make_optimizers(model, settings())
    with pytest.raises(CheckpointError, match="another model"):
        restore_optimizers(model, optimizers, {"elsewhere::exp_avg": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="shape"):
        restore_optimizers(model, optimizers, {"inner.weight::exp_avg": torch.zeros(2, 2)})


def test_a_step_does_not_import_torchs_compiler():
    """It takes longer to import than a small model's first ten steps."""
    program = """
import sys, torch
from torch import nn
from regard.training.config import TrainConfig
from regard.training.optim import make_optimizers
model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
optimizers = make_optimizers(model, TrainConfig(steps=1, optimizer="muon"))
assert len(optimizers) == 2
model(torch.arange(5)).square().sum().backward()
for optimizer in optimizers:
    optimizer.step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
