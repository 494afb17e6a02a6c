import pytest
import torch
from torch import nn

from torchwatch.errors import ModelError, UsageError
from torchwatch.examinations._admission import check_model
from torchwatch.examinations.case import Case, Options
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs

X, Y = torch.randn(20, 3), torch.arange(20) % 4


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(2)


def meta():
    with torch.device("meta"):
        return nn.Linear(3, 4)


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("model", "says"),
    [("m", "torch.nn.Module, not str"), (Lazy(), "call the model once"), (meta(), "load the weights")],
)
def test_a_model_without_values_is_turned_away(model, says):
    with pytest.raises(ModelError, match=says):
        autopsy(model, (X, Y))
    with pytest.raises(ModelError, match=says):
        check_model(model)


class Mean(nn.Linear):
    def forward(self, x):
        return super().forward(x).mean()


def test_one_number_for_all_samples_is_no_prediction():
    with pytest.raises(ModelError, match="shape \\(\\) for 8 samples"):
        autopsy(Mean(3, 4), (X, Y))


@pytest.mark.parametrize("targets", [Y, Y - 2])
def test_classes_without_an_output_are_told_once_and_what_needs_no_targets_runs(targets):
    found = autopsy(nn.Linear(3, 2), (X, targets), examine=["predictions", "gradient_flow", "attributions"])
    assert list(found) == ["attributions"]
    assert all("outputs for the classes 0 … 1" in o.reason for o in found.outcomes if o.status != "done")


def test_the_class_that_the_loss_ignores_counts_for_nothing():
    y = Y.clone()
    y[::5] = 255
    loss = nn.CrossEntropyLoss(ignore_index=255)
    found = autopsy(nn.Linear(3, 4), (X, y), loss=loss, examine=["predictions", "gradient_flow"])
    assert list(found) == ["gradient_flow", "predictions"]


def test_targets_of_several_numbers_are_no_classes():
    with pytest.raises(UsageError, match="argmax"):
        autopsy(nn.Linear(3, 4), (X, torch.eye(4)[Y]), task="multiclass")


@pytest.mark.parametrize(
    ("loss", "says"), [("mse", "must be called"), (lambda o, t: 1.5, "returned float"), (print, "NoneType")]
)
def test_a_loss_that_is_none(loss, says):
    outcome = autopsy(nn.Linear(3, 4), (X, Y), loss=loss, examine=["gradient_flow"]).outcomes[0]
    assert outcome.status == "failed"
    assert says in outcome.reason


@pytest.mark.parametrize(
    "name", ["samples", "chunk", "repeats", "window", "ig_n_steps", "attribution_samples"]
)
def test_options_that_leave_nothing_to_do(name):
    with pytest.raises(UsageError, match=f"{name} must be at least 1"):
        Options(**{name: 0})
    with pytest.raises(UsageError, match="seed"):
        Options(seed=-1)


class Writes(nn.Linear):
    def forward(self, x):
        x *= 2
        return super().forward(x)


class Grads(nn.Linear):
    @torch.enable_grad()
    def forward(self, x):
        return super().forward(x)


def test_a_model_that_writes_into_its_inputs_gets_copies():
    model = Writes(3, 4)
    case = Case(AutopsyInputs(model, (X, Y)))
    before = case.samples.inputs["input"].clone()
    assert torch.equal(case.predict(), case.predict())
    assert torch.equal(case.samples.inputs["input"], before)


def test_a_model_that_switches_gradients_on():
    assert "predictions" in autopsy(Grads(3, 4), (X, Y), examine=["predictions"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_is_examined_from_outside():
    found = autopsy(torch.jit.script(nn.Linear(3, 4)), (X, Y), examine=["predictions", "gradient_flow"])
    assert list(found) == ["predictions"]
    assert "before torch.jit" in next(o.reason for o in found.outcomes if o.status == "skipped")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_the_old_kind_can_be_copied():
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 4))
    found = autopsy(model, (X, Y), examine=["attributions"], ig_n_steps=2)
    assert found.outcomes[0].status == "done", found.outcomes[0].reason
