import pytest
import torch
from scipy import ndimage
from torch import nn

from torchwatch.errors import ConfigError
from torchwatch.examinations._explained import subject
from torchwatch.examinations._references import pool_of, reference
from torchwatch.examinations.case import Case
from torchwatch.results import AutopsyInputs

X = torch.randn(20, 3, 60)


def case(x=X, **known):
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 1))
    return Case(AutopsyInputs(model, (x, torch.randn(len(x), 1)), **known))


def of_kind(kind, **known):
    chosen = subject(case(**known), 8, "test")
    return chosen, reference(chosen, kind)


def test_zero_mean_and_random_have_the_shape_of_the_samples():
    for kind in ("zero", "mean", "random"):
        chosen, found = of_kind(kind)
        assert found.values.shape == chosen.main.shape, kind
    assert torch.allclose(of_kind("mean")[1].values[0], X.mean(0), atol=1e-6)
    assert not of_kind("zero")[1].values.any()


def test_random_baselines_are_samples():
    _, found = of_kind("random")
    for row in found.values:
        assert (row == X).flatten(1).all(1).any()


def test_the_blur_is_scipys_along_time_alone():
    chosen, found = of_kind("blur", axes=("channel", "time"))
    expected = ndimage.gaussian_filter1d(chosen.main.numpy(), 6.0, axis=2, mode="nearest", radius=18)
    assert found.values.numpy() == pytest.approx(expected, abs=1e-4)


def test_the_blur_keeps_constants():
    constant = torch.full((9, 2, 40), 3.0)
    chosen = subject(case(constant, axes=("channel", "time")), 4, "test")
    assert torch.allclose(reference(chosen, "blur").values, torch.tensor(3.0), atol=1e-5)


def test_the_pool_is_the_training_data_where_they_fit():
    training = (torch.randn(30, 3, 60) + 9, torch.zeros(30, 1))
    pool, words = pool_of(case(train_data=training))
    assert words == "training samples"
    assert pool.mean() > 8
    other = (torch.randn(30, 4, 60), torch.zeros(30, 1))
    assert pool_of(case(train_data=other))[1] == "of the examined samples"


def test_samples_with_nan_are_no_baseline():
    x = X.clone()
    x[:5, 0, 0] = float("nan")
    pool, _ = pool_of(case(x))
    assert len(pool) == 15


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="zero, mean, random, blur"):
        of_kind("black")
