import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations.untouched import random_numbers_untouched, untouched


def ruin(model):
    """Everything that an examination might do to a patient."""
    random.random()
    np.random.rand()  # noqa: NPY002 - the host's generator is the one to ruin
    torch.rand(3)
    model.train()
    torch.set_grad_enabled(False)
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                buffer.add_(1)
                module._buffers[name] = buffer.clone()
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
        parameter.requires_grad_(not parameter.requires_grad)
        parameter.grad = torch.ones_like(parameter)


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_whatever_is_done_is_put_back(patient):
    model, _ = admit(patient)
    with assert_untouched(model), untouched(model):
        assert not any(m.training for m in model.modules())
        ruin(model)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_also_when_the_body_ends_badly(error):
    model, _ = admit(PATIENTS[0])
    with assert_untouched(model), pytest.raises(error), untouched(model):
        ruin(model)
        raise error


def test_gradients_are_the_same_tensors_with_the_same_values():
    model, _ = admit(next(p for p in PATIENTS if p.name == "with_gradients"))
    with assert_untouched(model), untouched(model):
        for parameter in model.parameters():
            parameter.grad.zero_()


def test_what_did_not_change_is_not_written():
    model = nn.Linear(3, 3)
    model.weight.data[0, 0] = float("nan")
    versions = [p._version for p in model.parameters()]
    with untouched(model):
        model(torch.ones(1, 3))
    assert [p._version for p in model.parameters()] == versions


def test_random_numbers_alone():
    with random_numbers_untouched():
        ruined = torch.rand(3)
    assert torch.equal(torch.rand(3), ruined)


def test_modules_and_tensors_that_were_replaced_come_back():
    model = nn.Sequential(nn.BatchNorm1d(2))
    with assert_untouched(model), untouched(model):
        model[0].running_mean = torch.ones(2)
