"""Ablated blocks: which there are, what replaces their output, hooks that are gone afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers_patients import assert_untouched
from torchwatch.examinations._ablation_modules import blocks, errors_without
from torchwatch.examinations.case import Case
from torchwatch.results import AutopsyInputs


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, batch_first=True)
        self.layers = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])
        self.act, self.unused, self.head = nn.ReLU(), nn.Linear(2, 2), nn.Linear(5, 1)

    def forward(self, x):
        x, last = self.rnn(x)
        x = x[:, -1] + last[0]
        for layer in self.layers:
            x = self.act(layer(x))
        return self.head(x)


def case_of(model: nn.Module, *shape: int) -> Case:
    torch.manual_seed(1)
    return Case(AutopsyInputs(model.eval(), (torch.randn(12, *shape), torch.randn(12, 1))))


def test_blocks_are_children_with_parameters():
    assert list(blocks(Net())) == ["rnn", "layers.0", "layers.1", "unused", "head"]
    wrapped = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))
    assert list(blocks(wrapped)) == ["0.0", "0.2"]
    assert list(blocks(nn.Linear(2, 1))) == []
    assert list(blocks(nn.Sequential(nn.Linear(2, 1)))) == ["0"]
    many = nn.Sequential(*[nn.Linear(1, 1) for _ in range(100)])
    assert len(blocks(many)) == 64


def test_without_its_head_the_model_says_the_mean():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    case = case_of(model, 3)
    with torch.no_grad():
        mean = model(case.samples.inputs["input"]).mean()
    targets = case.wanted_targets[:, 0]
    assert torch.allclose(errors_without(case, model[1], "mean", 100), (mean - targets).square(), atol=1e-6)
    assert torch.allclose(errors_without(case, model[1], "zero", 5), targets.square())
    bare = errors_without(case, None, "mean", 100)
    assert torch.equal(bare, case.errors(case.outputs))


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_recurrent_layers_are_replaced_in_all_they_give_out(fill):
    model = Net()
    case = case_of(model, 7, 4)
    with assert_untouched(model):
        errors = errors_without(case, model.rnn, fill, 100)
    outputs = torch.unique((errors - case.wanted_targets[:, 0].square()).round(decimals=4))
    assert len(outputs) > 1  # errors differ by their targets
    seen = []
    handle = model.head.register_forward_hook(lambda module, args, output: seen.append(output))
    errors_without(case, model.rnn, fill, 100)
    handle.remove()
    assert torch.allclose(seen[0], seen[0][:1].expand_as(seen[0]), atol=1e-6)


def test_a_block_that_does_not_run_has_no_value():
    model = Net()
    assert errors_without(case_of(model, 7, 4), model.unused, "mean", 100) is None


class Counts(nn.Module):
    """Gives out what has no batch axis, or is no float."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"shape": torch.tensor(x.shape), "sum": x.sum(), "x": [x, None]}


def test_outputs_in_dicts_and_lists():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = Counts(), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.inner(x)["x"][0])

    model = Outer()
    case = case_of(model, 3)
    errors = errors_without(case, model.inner, "mean", 100)
    x = case.samples.inputs["input"]
    with torch.no_grad():
        expected = (model.head(x.mean(0, keepdim=True)) - case.wanted_targets).square()[:, 0]
    assert torch.allclose(errors, expected, atol=1e-6)


def test_the_hook_is_gone_after_a_failure():
    class Fails(nn.Linear):
        def forward(self, x):
            if self.ready:
                raise RuntimeError("burst")
            return super().forward(x)

    model = nn.Sequential(nn.Linear(3, 3), Fails(3, 1))
    model[1].ready = False
    case = case_of(model, 3)
    model[1].ready = True
    with assert_untouched(model), pytest.raises(RuntimeError, match="burst"):
        errors_without(case, model[0], "mean", 100)
    assert not model[0]._forward_hooks
