import pytest
import torch
from torch import nn

from regard.training.muon import BatchedMuon, orthogonalise

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("kind", ["match_rms_adamw", "original", None])
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_as_torchs_own(kind, nesterov):
    torch.manual_seed(0)
    shapes = [(16, 16), (16, 16), (48, 16), (16, 48), (48, 16), (8, 8)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    settings = {"lr": 0.01, "weight_decay": 0.1, "adjust_lr_fn": kind, "nesterov": nesterov}
    optimizers = [BatchedMuon(ours, **settings), torch.optim.Muon(theirs, **settings)]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        before = [p.detach().clone() for p in theirs]
        for optimizer in optimizers:
            optimizer.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        # Both iterate in bf16, whose products differ in their last bit with the kernel.
        assert (a - b).norm() < 0.05 * (b - start).norm()
    states = [
        [o.state[p]["momentum_buffer"] for p in ps] for o, ps in zip(optimizers, (ours, theirs), strict=True)
    ]
    for a, b in zip(*states, strict=True):
        torch.testing.assert_close(a, b)


def test_a_parameter_without_gradient_stays():
    one, two = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    one.grad = torch.randn(4, 4)
    BatchedMuon([one, two], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(two, torch.ones(4, 4)) and not torch.equal(one, torch.ones(4, 4))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 24), (2, 24, 8)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(1)
    found = torch.linalg.svdvals(orthogonalise(torch.randn(shape), COEFFICIENTS, steps=10))
    assert ((found > 0.6) & (found < 1.3)).all()


def test_large_stacks_are_cut(monkeypatch):
    monkeypatch.setattr("regard.training.muon._ELEMENTS", 100)
    torch.manual_seed(2)
    whole = [nn.Parameter(torch.randn(6, 6)) for _ in range(5)]
    cut = [nn.Parameter(p.detach().clone()) for p in whole]
    for a, b in zip(whole, cut, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    BatchedMuon(cut, lr=0.1).step()
    monkeypatch.undo()
    BatchedMuon(whole, lr=0.1).step()
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
