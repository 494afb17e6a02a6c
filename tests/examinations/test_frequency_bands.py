import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations._bands import Band, without
from torchwatch.examinations.case import Options
from torchwatch.examinations.conduct import conduct
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs

RATE = 100.0


def outcome(model, data, **known):
    return autopsy(model, data, examine=["frequency_bands"], **known).outcomes[0]


class Power(nn.Module):
    """Log power of channel 1 about a frequency: what a band-power decoder does."""

    def __init__(self, frequency):
        super().__init__()
        t = torch.arange(200) / RATE
        waves = torch.stack([torch.cos(2 * math.pi * frequency * t), torch.sin(2 * math.pi * frequency * t)])
        self.waves = nn.Parameter(waves)

    def forward(self, x):
        return (x[:, 1] @ self.waves.T / 100).square().sum(1, keepdim=True)


def recording(frequency, seed, samples=80):
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(200) / RATE
    amplitude = 0.5 + torch.rand(samples, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(samples, 1, generator=generator)
    x = 0.5 * torch.randn(samples, 3, 200, generator=generator)
    x[:, 1] += amplitude * torch.cos(2 * math.pi * frequency * t + phase)
    return x, amplitude**2


@pytest.mark.parametrize(
    ("frequency", "band"), [(2.0, "delta"), (6.0, "theta"), (10.0, "alpha"), (20.0, "beta")]
)
@pytest.mark.parametrize("seed", range(3))
def test_the_planted_band_comes_first_and_the_others_are_not_needed(frequency, band, seed):
    result = outcome(
        Power(frequency), recording(frequency, seed), sample_rate=RATE, axes=("channel", "time")
    ).result
    best = result.ranking[0]
    assert result.bands[best] == band
    assert result.interval[best, 0] > 0
    others = [i for i in range(len(result.bands)) if i != best]
    assert (np.abs(result.importance[others]) < 0.1 * result.importance[best]).all()
    assert band in result.remarks[0].text
    assert 0 < result.power[best] < 1


def test_the_importance_is_the_rise_of_the_error():
    model, (x, y) = Power(10.0), recording(10.0, 0)
    result = outcome(model, (x, y), sample_rate=RATE, axes=("channel", "time")).result
    with torch.no_grad():
        before = nn.functional.mse_loss(model(x), y)
        after = nn.functional.mse_loss(model(without(x, Band("alpha", 8, 13), RATE, 2)), y)
    assert result.baseline == pytest.approx(before.item(), rel=1e-5)
    assert result.importance[2] == pytest.approx((after - before).item(), rel=1e-4)
    assert result.metric == "mean squared error"


def test_a_model_that_needs_no_band_says_so():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.level.expand(len(x), 1) + 0 * x.mean((1, 2)).unsqueeze(1)

    result = outcome(Constant(), recording(10.0, 0), sample_rate=RATE, axes=("channel", "time")).result
    assert result.remarks[0].text.startswith("No band is needed")


def test_bands_that_the_samples_cannot_hold_are_nan_and_never_0():
    model, (x, y) = Power(10.0), recording(10.0, 0)
    bands = {"slow": (0.05, 0.2), "alpha": (8, 13), "sliver": (20.0, 20.2)}
    result = outcome(model, (x, y), sample_rate=RATE, axes=("channel", "time"), bands=bands).result
    assert np.isnan(result.importance[[0, 2]]).all()
    assert np.isnan(result.interval[[0, 2]]).all()
    assert result.ranking == (1,)
    assert any("Not tested: slow, sliver" in r.text for r in result.remarks)


def test_when_time_is_over_the_rest_is_nan():
    ticks = iter(range(10_000))
    done = conduct(
        AutopsyInputs(Power(10.0), recording(10.0, 0), sample_rate=RATE, axes=("channel", "time")),
        examine=["frequency_bands"],
        options=Options(time_limit_s=7.0),
        clock=lambda: next(ticks),
    )
    importance = done["frequency_bands"].importance
    assert np.isfinite(importance[0])
    assert np.isnan(importance[-1])


def test_samples_with_nan_are_left_out():
    x, y = recording(10.0, 0)
    x[0, 0, 0] = math.nan
    result = outcome(Power(10.0), (x, y), sample_rate=RATE, axes=("channel", "time")).result
    assert result.samples == len(x) - 1
    assert np.isfinite(result.importance).all()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "pass sample_rate="),
        ({"sample_rate": 100, "axes": ("channel", "height")}, "no axis named 'time'"),
        ({"sample_rate": -1, "axes": ("channel", "time")}, "positive number"),
        ({"sample_rate": 100, "axes": ("channel", "time"), "bands": {"high": (60, 70)}}, "below the Nyquist"),
    ],
)
def test_what_is_missing_is_said(known, words):
    done = outcome(Power(10.0), recording(10.0, 0), **known)
    assert done.status == "skipped"
    assert words in done.reason


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = outcome(model, data, sample_rate=50.0)
    assert done.status == (
        "done" if patient.name in ("signals", "sequences", "frozen", "with_gradients") else "skipped"
    )
