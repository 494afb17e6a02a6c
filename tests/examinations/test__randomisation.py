import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from torchwatch.examinations._randomisation import check, randomise, stages_of
from torchwatch.examinations.case import Case
from torchwatch.results import AutopsyInputs


def network(width=30):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)
    ).eval()


def checked(explains, width=30, model=None, samples=12):
    model = model or network(width)
    case = Case(AutopsyInputs(model, (torch.randn(samples, width), torch.randn(samples, 1))))
    x = case.samples.inputs["input"]
    return check(
        case,
        lambda: copy.deepcopy(case.model),
        {name: lambda m, f=explain: f(m, x) for name, explain in explains.items()},
    )


def gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x)[0]


IGNORES = {
    "input": lambda _, x: x,
    "input × something": lambda _, x: x * torch.linspace(1, 2, x.shape[1]),
    "|input|": lambda _, x: x.abs(),
    "edges": lambda _, x: x - x.roll(1, 1),
    "mostly the input": lambda m, x: x + 0.05 * gradient(m, x),
}
DEPENDS = {
    "gradient": gradient,
    "input × gradient": lambda m, x: x * gradient(m, x),
    "occlusion": lambda m, x: torch.stack(
        [(m(x) - m(x * (torch.arange(x.shape[1]) != i)))[:, 0].detach() for i in range(x.shape[1])], 1
    ),
}


def test_maps_that_ignore_the_weights_are_rejected_and_others_pass():
    found = checked({**IGNORES, **DEPENDS})
    assert [n for n, r in found.items() if r.depends is False] == list(IGNORES)
    assert [n for n, r in found.items() if r.depends is True] == list(DEPENDS)
    for name in DEPENDS:
        assert abs(found[name].correlation[-1]) < 0.3
    assert found["input"].correlation.tolist() == [1, 1, 1]


def test_the_size_of_a_map_that_multiplies_by_the_input_stays_like_the_input():
    found = checked({"x": DEPENDS["input × gradient"]})["x"]
    assert found.magnitude[-1] > abs(found.correlation[-1]) + 0.1, "why signs are compared first"


def test_stages_go_from_the_output_to_the_input():
    assert [(s.words, s.layers) for s in stages_of(network())] == [
        ("last layer (4)", 1),
        ("last half", 2),
        ("all layers", 3),
    ]
    assert [s.layers for s in stages_of(nn.Linear(2, 1))] == [1]
    assert stages_of(nn.ReLU()) == ()


def test_a_model_without_weights_has_no_check():
    class Sum(nn.Module):
        def forward(self, x):
            return x.sum(1, keepdim=True)

    assert checked({"gradient": gradient}, model=Sum()) == {}


@pytest.mark.parametrize("width", [1, 2, 3])
def test_few_elements_cannot_tell(width):
    assert checked(DEPENDS, width=width)["gradient"].depends is None


def test_a_map_that_becomes_constant_has_changed():
    def alive(model, x):
        return x * float(model[0].weight[0, 0] == weight)

    model = network()
    weight = model[0].weight[0, 0].item()
    found = checked({"alive": alive}, model=model)["alive"]
    assert found.depends is True
    assert found.correlation[-1] == 0


def test_a_map_that_is_constant_from_the_start_cannot_tell():
    found = checked({"zeros": lambda _, x: 0 * x})["zeros"]
    assert found.depends is None
    assert math.isnan(found.correlation[-1])


def test_layers_near_the_input_keep_their_weights_until_their_turn():
    model = network()
    twin = copy.deepcopy(model)
    randomise(twin, 1, torch.Generator().manual_seed(0))
    assert torch.equal(twin[2].weight, model[2].weight)
    assert not torch.equal(twin[4].weight, model[4].weight)


def test_scale_stays_and_norms_are_shuffled():
    model = nn.Sequential(nn.Linear(200, 200), nn.BatchNorm1d(200), nn.Linear(200, 1))
    nn.init.uniform_(model[1].weight, 0.5, 2)
    before = copy.deepcopy(model)
    randomise(model, 3, torch.Generator().manual_seed(0))
    assert model[0].weight.std().item() == pytest.approx(before[0].weight.std().item(), rel=0.05)
    assert model[1].weight.sort().values.tolist() == before[1].weight.sort().values.tolist()
    assert not torch.equal(model[1].weight, before[1].weight)
    assert np.corrcoef(model[0].weight.detach().flatten(), before[0].weight.detach().flatten())[0, 1] < 0.05
