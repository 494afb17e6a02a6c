import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations._profiles import profile_of
from torchwatch.examinations.agreement import compared
from torchwatch.examinations.examination import NotApplicable
from torchwatch.postmortem import autopsy
from torchwatch.results.attributions import Attributions, MethodAttribution

rng = np.random.default_rng(0)


def attributions(**profiles):
    made = tuple(
        profile_of(axis, tuple(map(str, range(len(v)))), np.array([v, v], dtype=float))
        for axis, v in profiles.items()
    )
    methods = (
        MethodAttribution("integrated_gradients", "Integrated Gradients", made),
        MethodAttribution(
            "saliency",
            "Saliency",
            tuple(profile_of(p.axis, p.elements, -np.array([p.importance] * 2)) for p in made),
        ),
    )
    return Attributions("the output", "input `x`", tuple(profiles), "zeros", 2, 50, methods)


def part(axis, importance, kind="element", windows=None):
    importance = np.array(importance, dtype=float)
    return SimpleNamespace(
        axis=axis,
        kind=kind,
        elements=tuple(f"{axis}{i}" for i in range(len(importance))),
        importance=importance,
        windows=windows,
    )


def ablation(*parts):
    return SimpleNamespace(parts=parts, metric="mean squared error")


def test_the_correlation_is_scipys():
    a, b = rng.normal(size=(2, 30))
    result = compared(ablation(part("channel", a)), attributions(channel=b))
    assert result.axes[0].correlation == pytest.approx(stats.spearmanr(a, b).statistic)
    assert result.axes[0].tested == 30
    low, high = result.axes[0].interval
    assert low < result.axes[0].correlation < high


def test_windows_are_compared_with_the_attribution_they_hold():
    profile = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    windows = ((0, 2), (2, 4), (4, 9))
    result = compared(ablation(part("time", [1, 2, 3], "window", windows)), attributions(time=profile))
    assert result.axes[0].attribution.tolist() == [3, 7, 35]
    assert result.axes[0].correlation == 1


def test_what_was_not_tested_is_left_out():
    result = compared(
        ablation(part("channel", [1, 2, math.nan, 4, 5])), attributions(channel=[1, 2, 100, 4, 5])
    )
    assert result.axes[0].tested == 4
    assert result.axes[0].correlation == 1
    assert math.isnan(result.axes[0].ablation[2]), "not tested stays NaN"


def test_disagreement_is_reported_and_no_failure():
    result = compared(
        ablation(part("channel", [9, 1, 2, 3, 4, 5, 6, 7])), attributions(channel=[0, 7, 6, 5, 4, 3, 2, 1])
    )
    (axis,) = result.axes
    assert axis.correlation < -0.9
    assert axis.ablation_only == ("channel0",)
    assert axis.attribution_only == ("channel1",)
    assert [r.severity for r in result.remarks] == ["info"]
    assert "contradict each other" in result.remarks[0].text


def test_all_alike_has_no_correlation():
    result = compared(ablation(part("channel", [1, 1, 1, 1])), attributions(channel=[1, 2, 3, 4]))
    assert math.isnan(result.axes[0].correlation)
    assert result.axes[0].ablation_only == ()
    assert "could not be compared" in result.remarks[0].text


def test_methods_are_compared_with_one_another():
    result = compared(ablation(part("channel", [1, 2, 3])), attributions(channel=[1, 2, 3]))
    assert result.methods == ("Integrated Gradients", "Saliency")
    assert result.between.tolist() == [[1, -1], [-1, 1]]


def test_nothing_in_common_is_said():
    with pytest.raises(NotApplicable, match="no axis with three"):
        compared(ablation(part("channel", [1, 2]), part("module", [1, 2, 3])), attributions(channel=[1, 2]))


def test_a_missing_result_is_named():
    model, data = admit(PATIENTS[0])
    done = autopsy(model, data, examine=["agreement"])
    assert done.outcomes[0].status == "skipped"
    assert "no ablation" in done.outcomes[0].reason


@pytest.mark.parametrize("patient", [PATIENTS[0], PATIENTS[5]], ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        autopsy(
            model,
            data,
            examine=["ablation", "attributions", "agreement"],
            attribution_samples=4,
            ig_n_steps=4,
            repeats=1,
        )


def test_both_name_the_planted_channels():
    torch.manual_seed(0)
    weight = torch.zeros(8, 20)
    weight[[2, 5], 5:10] = torch.tensor([1.0, 0.6])[:, None]
    model = nn.Sequential(nn.Flatten(), nn.Linear(160, 1))
    with torch.no_grad():
        model[1].weight.copy_(weight.reshape(1, -1) + 0.01 * torch.randn(1, 160))
    x = torch.randn(60, 8, 20)
    done = autopsy(
        model,
        (x, model(x).detach()),
        examine=["ablation", "attributions", "agreement"],
        axes=("channel", "time"),
        ig_n_steps=4,
        attribution_samples=20,
        window=5,
    )
    axes = {a.axis: a for a in done["agreement"].axes}
    assert axes["channel"].ablation.argmax() == axes["channel"].attribution.argmax() == 2
    assert axes["channel"].correlation > 0.5
    if "time" in axes:
        assert axes["time"].attribution.argmax() == axes["time"].ablation.argmax()
