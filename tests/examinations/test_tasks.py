import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from torchwatch.errors import UsageError
from torchwatch.examinations import tasks


def outputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("output", "targets", "task"),
    [
        (outputs(9, 1), outputs(9), "regression"),
        (outputs(9), outputs(9, 1), "regression"),
        (outputs(9, 3), outputs(9, 3), "regression"),
        (outputs(9, 2, 3), outputs(9, 2, 3), "regression"),
        (outputs(9, 4), torch.arange(9) % 4, "multiclass"),
        (outputs(9, 4), (torch.arange(9) % 4).reshape(9, 1), "multiclass"),
        (outputs(9, 1), torch.arange(9) % 2, "binary"),
        (outputs(9), (torch.arange(9) % 2).float(), "binary"),
        (outputs(9, 3), (torch.arange(27).reshape(9, 3) % 2).float(), "multilabel"),
        (outputs(9, 5, 11), torch.arange(45).reshape(9, 5) % 11, "token"),
        (outputs(9, 3, 4, 4), torch.arange(144).reshape(9, 4, 4) % 3, "token"),
        (outputs(9, 1), torch.arange(9), "regression"),
        (outputs(9, 2), None, "regression"),
    ],
)
def test_the_task_is_told_from_outputs_and_targets(output, targets, task):
    told = tasks.infer(output, targets)
    assert told.name == task
    if targets is not None:
        shaped = tasks.canonical(output, targets, told)
        assert tasks.errors(shaped, tasks.canonical_targets(targets, told), told).shape == (9,)


def test_what_fits_no_task_is_said():
    with pytest.raises(UsageError, match=r"shape \(9, 4\) and targets of shape \(9, 3\)"):
        tasks.infer(outputs(9, 4), outputs(9, 3))
    with pytest.raises(UsageError, match="must be one of"):
        tasks.infer(outputs(9, 4), None, "classification")


def test_a_loss_that_would_broadcast_is_named():
    (remark,) = tasks.infer(outputs(9, 1), outputs(9)).remarks
    assert "compares every prediction with every target" in remark.text
    assert not tasks.infer(outputs(9, 1), outputs(9, 1)).remarks


def test_perfect_predictions_have_no_error_whatever_the_shapes():
    y = outputs(9)
    told = tasks.infer(y.unsqueeze(1), y)
    error = tasks.errors(tasks.canonical(y.unsqueeze(1), y, told), tasks.canonical_targets(y, told), told)
    assert not error.any()


def test_shapes_are_asserted_not_broadcast():
    told = tasks.Task("regression", "given")
    with pytest.raises(UsageError, match="differ in shape"):
        tasks.errors(outputs(9, 1), outputs(9, 3), told)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 6), count=st.integers(3, 40))
def test_errors_are_those_of_scikit_learn(seed, classes, count):
    rng = np.random.default_rng(seed)
    logits, y = (
        torch.tensor(rng.normal(size=(count, classes))),
        torch.tensor(rng.integers(classes, size=count)),
    )
    told = tasks.Task("multiclass", "given")
    nll = tasks.errors(logits, y, told)
    probabilities = tasks.probabilities(logits, told)
    expected = sklearn.metrics.log_loss(y, probabilities, labels=range(classes))
    assert float(nll.mean()) == pytest.approx(expected, rel=1e-6)
    as_given = tasks.Task("multiclass", "given", probabilities=True)
    assert torch.allclose(tasks.errors(probabilities, y, as_given), nll)
    squared = tasks.errors(logits, logits * 0.5, tasks.Task("regression", "given"))
    assert float(squared.mean()) == pytest.approx(
        sklearn.metrics.mean_squared_error(logits * 0.5, logits), rel=1e-6
    )


def test_ignored_tokens_count_for_nothing():
    logits, y = outputs(2, 3, 5), torch.tensor([[1, 2, -100], [-100, -100, 4]])
    error = tasks.errors(logits, y, tasks.Task("token", "given"))
    assert error[1] == pytest.approx(float(functional.cross_entropy(logits[1, 2:], y[1, 2:])))
    assert error[0] == pytest.approx(float(functional.cross_entropy(logits[0, :2], y[0, :2])))


def test_segmentation_has_its_classes_moved_to_the_end():
    logits, y = outputs(2, 3, 4, 4), torch.arange(32).reshape(2, 4, 4) % 3
    told = tasks.infer(logits, y)
    error = tasks.errors(tasks.canonical(logits, y, told), tasks.canonical_targets(y, told), told)
    assert float(error.mean()) == pytest.approx(float(functional.cross_entropy(logits, y)), rel=1e-5)


@pytest.mark.parametrize("name", ["binary", "multilabel"])
def test_probabilities_are_recognised(name):
    y = (torch.arange(12).reshape(12, 1) % 2).float()
    p = torch.rand(12, 1)
    assert tasks.infer(p, y, name).probabilities
    assert not tasks.infer(p * 3 - 1, y, name).probabilities


def test_the_prediction_is_found_in_what_models_return():
    y = outputs(3, 2)

    class Output:
        logits = y

    for held in (y, (y, None), [y], {"logits": y, "loss": y.sum()}, {"mine": y}, Output()):
        assert tasks.tensor_of(held) is y
    with pytest.raises(UsageError, match="without a tensor"):
        tasks.tensor_of({"a": 1})
