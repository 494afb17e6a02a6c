"""Passes: several ablations at once, models that write into their input, memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torchwatch.examinations._ablation_elements import parts_of
from torchwatch.examinations._ablation_fills import Fills, Orders
from torchwatch.examinations._ablation_passes import InputFeed, Passes
from torchwatch.examinations.case import Case
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs

COUNT = 10


class Small(nn.Module):
    """Has memory for so many rows, counts its passes, and writes into its input where it is told to."""

    def __init__(self, room: int = 10_000, *, writes: bool = False):
        super().__init__()
        self.layer, self.room, self.writes = nn.Linear(6, 1), room, writes
        self.sizes: list[int] = []

    def forward(self, x):
        self.sizes.append(len(x))
        if self.writes:
            x.mul_(2)
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x)


def laid_out(model: Small, batch: int):
    torch.manual_seed(0)
    with torch.no_grad():
        model.layer.weight.copy_(torch.arange(6.0))
    x, y = torch.randn(COUNT, 6), torch.randn(COUNT, 1)
    room, model.room = model.room, 10_000  # the case tries eight samples at once
    case = Case(AutopsyInputs(model, (x, y)))
    model.room = room
    fills = Fills(x, "permutation")
    orders = Orders(COUNT, 1, np.random.default_rng(0))
    jobs = [fills.job(e, orders, 0) for e in parts_of(case)[0].elements]
    model.sizes.clear()
    return Passes(case, InputFeed(case, fills), batch), jobs, (x, y, orders.donors(0))


def expected(model: Small, x: torch.Tensor, y: torch.Tensor, donors: np.ndarray) -> torch.Tensor:
    model.room = 10_000
    found = []
    with torch.no_grad():
        bare = (model(x.clone()) - y).square()[:, 0]
        for feature in range(6):
            changed = x.clone()
            changed[:, feature] = x[donors, feature]
            found.append((model(changed) - y).square()[:, 0] - bare)
    return torch.stack(found)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 10, 25, 40, 1000])
def test_any_batch_gives_the_same(batch, writes):
    model = Small(writes=writes)
    passes, jobs, known = laid_out(model, batch)
    assert passes.copies == max(1, batch // COUNT)
    got = torch.cat([changes for _, changes in passes.changes(jobs)])
    torch.testing.assert_close(got, expected(model, *known), rtol=1e-4, atol=1e-4)


def test_samples_are_not_copied_per_ablation():
    passes, jobs, _ = laid_out(Small(), COUNT)
    slab = passes._slab
    list(passes.changes(jobs))
    assert passes._slab is slab
    assert torch.equal(slab, passes._feed.home)


@pytest.mark.parametrize(
    ("room", "batch", "left"), [(4, 8, 4), (3, 8, 2), (12, 40, 10), (25, 40, 20), (1, 64, 1)]
)
def test_the_batch_halves_when_memory_runs_out(room, batch, left):
    model = Small(room)
    passes, jobs, known = laid_out(model, batch)
    got = torch.cat([changes for _, changes in passes.changes(jobs)])
    assert passes.batch == left
    torch.testing.assert_close(got, expected(model, *known), rtol=1e-4, atol=1e-4)


def test_memory_that_runs_out_later_loses_nothing():
    model = Small()
    passes, jobs, known = laid_out(model, 20)
    steps = passes.changes(jobs)
    parts = [next(steps)[1]]
    model.room = 6
    parts += [changes for _, changes in steps]
    assert passes.batch == 5
    torch.testing.assert_close(torch.cat(parts), expected(model, *known), rtol=1e-4, atol=1e-4)


def test_too_little_memory_for_one_sample_is_said():
    with pytest.raises(torch.OutOfMemoryError):
        laid_out(Small(0), 8)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: out of memory"), MemoryError()])
def test_the_examination_survives_little_memory(error):
    class Full(Small):
        def forward(self, x):
            if len(x) > 9:
                raise error
            return super().forward(x)

    x = torch.randn(64, 6)
    outcome = autopsy(Full(), (x[:, :], x[:, :1]), examine=["ablation"], chunk=8).outcomes[0]
    assert outcome.status == "done", outcome.reason
    assert outcome.result.batch <= 9
