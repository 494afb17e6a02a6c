import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.errors import ModelError, UsageError
from torchwatch.examinations._placing import unwrapped
from torchwatch.examinations.case import Case, Options, OutOfTime
from torchwatch.results import AutopsyInputs

X, Y = torch.randn(40, 5), torch.randn(40, 1)


def laid_out(model=None, data=(X, Y), **known):
    options = {k: known.pop(k) for k in ("samples", "chunk", "time_limit_s") if k in known}
    clock = known.pop("clock", None)
    inputs = AutopsyInputs(model or nn.Linear(5, 1).eval(), data, **known)
    return Case(inputs, Options(**options), **({"clock": clock} if clock else {}))


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_every_patient_can_be_laid_out(patient):
    model, data = admit(patient)
    case = Case(AutopsyInputs(model, data))
    assert case.outputs.shape[0] == len(case.samples) == 24
    assert case.errors(case.outputs).shape == (24,)
    assert len(case.axes) == case.samples.inputs[case.main].ndim - 1


def test_predictions_do_not_depend_on_the_chunk():
    model = nn.Linear(5, 1)
    whole, parts = laid_out(model, chunk=100).outputs, laid_out(model, chunk=3).outputs
    assert torch.allclose(whole, parts, atol=1e-6)
    assert not whole.requires_grad


def test_gradients_flow_through_forward():
    case = laid_out()
    x = case.samples.inputs["input"].requires_grad_()
    case.forward({"input": x}).sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_users_loss_sees_raw_outputs_and_targets_as_given():
    seen = []

    def loss(output, target):
        seen.append((output.shape, target.shape))
        return (output[:, 0] - target).square()

    case = laid_out(data=(X, Y[:, 0]), loss=loss)
    raw = case.raw(case.samples.inputs)
    value = case.loss(raw, case.samples.targets, raw)
    assert seen == [((40, 1), (40,))]
    assert value.ndim == 0


def test_a_loss_on_logits_says_that_outputs_are_logits():
    y = (torch.arange(40) % 2).float().unsqueeze(1)
    model = nn.Sequential(nn.Linear(5, 1), nn.Sigmoid())
    assert laid_out(model, (X, y)).task.probabilities
    assert not laid_out(model, (X, y), loss=nn.BCEWithLogitsLoss()).task.probabilities


def test_the_time_limit_ends_a_prediction():
    now = [0.0]
    case = laid_out(time_limit_s=10.0, clock=lambda: now[0])
    case.tick(1, 2)
    now[0] = 10.0
    with pytest.raises(OutOfTime, match="--time-limit"):
        case.predict()


def test_chance_depends_on_seed_and_purpose():
    case = laid_out()
    assert case.rng("a").random() == laid_out().rng("a").random() != case.rng("b").random()
    assert torch.equal(
        torch.rand(3, generator=case.generator("a")), torch.rand(3, generator=case.generator("a"))
    )


def test_groups_from_a_column_or_a_sequence():
    data = [(X, Y, {"site": [i % 3 for i in range(40)]})]
    assert laid_out(data=data, groups="site").groups == [i % 3 for i in range(40)]
    assert laid_out(groups=list(range(40)), samples=10).groups == laid_out(samples=10).samples.index.tolist()
    with pytest.raises(UsageError, match="there are site"):
        laid_out(data=data, groups="sight")
    with pytest.raises(UsageError, match="3 entries"):
        laid_out(groups=[1, 2, 3])


def test_names_of_classes_and_channels():
    case = laid_out(nn.Linear(5, 3), (X, torch.arange(40) % 3), class_names=["cat", "dog", "eel"])
    assert case.class_names == ["cat", "dog", "eel"]
    assert laid_out(channel_names="abcde").names_along("feature", 5) == list("abcde")
    assert laid_out(channel_names="ab").names_along("feature", 5) == list("01234")


def test_a_copy_is_free_to_change():
    model = nn.Linear(5, 1)
    case = laid_out(model)
    with assert_untouched(model):
        twin = case.copy_of_model()
        twin.weight.data.zero_()
        twin.train()


def test_wrappers_are_taken_off():
    model = nn.Linear(2, 1)
    assert unwrapped(nn.DataParallel(torch.compile(model, backend="eager"))) is model


def test_what_cannot_be_examined_is_said():
    with pytest.raises(ModelError, match="not str"):
        laid_out("model")
    with pytest.raises(UsageError, match="--device cpu"):
        Case(AutopsyInputs(nn.Linear(5, 1), (X, Y)), device="nonsense")
    case = laid_out(data=[(X,)])
    with pytest.raises(UsageError, match="hold no targets"):
        case.errors(case.outputs)


def test_reading_takes_half_of_the_time_at_most():
    now = iter(range(100))
    batches = ((torch.zeros(4, 5), torch.zeros(4, 1)) for _ in range(1000))
    case = Case(AutopsyInputs(nn.Linear(5, 1), batches), Options(time_limit_s=10), clock=lambda: next(now))
    assert len(case.samples) == 20
