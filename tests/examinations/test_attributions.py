import math

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients, Saliency
from torch import nn
from torch.nn import functional

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations import _randomisation, attributions
from torchwatch.examinations.case import Options
from torchwatch.examinations.conduct import conduct
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs

CHANNELS, TIMES = 6, 40
PLANTED = (2, 4)
WINDOW = slice(10, 18)


@pytest.fixture(autouse=True)
def quick_check(request, monkeypatch):
    """The check of the maps in fewer draws and steps, except where it is what is tested for real."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(_randomisation, "DRAWS", 2)
        monkeypatch.setattr(attributions, "_CHECK_STEPS", 4)


def examined(model, data, **known):
    done = autopsy(model, data, examine=["attributions"], **known)
    assert done.outcomes[0].status == "done", done.outcomes[0].reason
    return done["attributions"]


def planted(seed=0, outputs=1, noise=0.02):
    """A linear read-out of two channels in one window, and noise everywhere else."""
    torch.manual_seed(seed)
    weight = noise * torch.randn(outputs, CHANNELS, TIMES)
    for channel, sign in zip(PLANTED, (1.0, -0.8), strict=True):
        weight[:, channel, WINDOW] += sign
    model = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * TIMES, outputs))
    with torch.no_grad():
        model[1].weight.copy_(weight.reshape(outputs, -1))
    x = torch.randn(40, CHANNELS, TIMES)
    return model, (x, model(x).detach())


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        result = examined(model, data, ig_n_steps=4, attribution_samples=4)
    assert result.primary.method == "integrated_gradients"
    for method in result.methods:
        assert all(np.isfinite(p.importance).all() for p in method.profiles), method.title


@pytest.mark.parametrize("seed", range(3))
def test_planted_channels_and_window_come_first_in_every_method(seed):
    model, data = planted(seed)
    result = examined(model, data, axes=("channel", "time"), ig_n_steps=8)
    assert len(result.methods) == 6, result.not_run
    for method in result.methods:
        assert set(method.profile("channel").ranking[:2]) == set(PLANTED), method.title
        assert set(method.profile("time").ranking[:8]) == set(range(TIMES)[WINDOW]), method.title
        assert method.randomisation.depends, method.title


def test_integrated_gradients_are_captums():
    model, (x, y) = admit(PATIENTS[0])
    model.eval()
    expected = IntegratedGradients(model).attribute(x, torch.zeros_like(x), target=0, n_steps=50).detach()
    result = examined(model, (x, y))
    profile = result.profile("channel")
    assert profile.importance == pytest.approx(expected.abs().sum(2).mean(0).numpy(), rel=1e-4)
    error = expected.abs().sum(2).std(0) / math.sqrt(len(x))
    assert profile.error == pytest.approx(error.numpy(), rel=1e-4)
    assert result.overview.signed == pytest.approx(expected.mean(0).numpy(), rel=1e-3, abs=1e-7)
    assert result.overview.magnitude.sum() == pytest.approx(profile.importance.sum(), rel=1e-5)


def test_chunks_add_up_to_the_whole():
    model, data = admit(PATIENTS[0])
    few = {"attribution_samples": 13, "ig_n_steps": 4}
    whole, parts = examined(model, data, **few), examined(model, data, chunk=5, **few)
    for a, b in zip(whole.primary.profiles, parts.primary.profiles, strict=True):
        assert a.importance == pytest.approx(b.importance, rel=1e-4)


def test_classifiers_are_explained_by_the_class_they_predict():
    model, (x, y) = admit(PATIENTS[1])
    model.eval()
    predicted = model(x).argmax(1)
    expected = (
        Saliency(model).attribute(x.clone().requires_grad_(), target=predicted).abs().sum((1, 3)).mean(0)
    )
    result = examined(model, (x, y), ig_n_steps=4)
    assert result.explained == "the logit of the predicted class"
    assert result.method("saliency").profile("height").importance == pytest.approx(expected.numpy(), rel=1e-4)
    assert result.axes == ("channel", "height", "width")
    assert result.overview.signed.shape == (8, 8)


def test_tokens_are_attributed_at_their_embedding():
    result = examined(*admit(PATIENTS[5]), ig_n_steps=8, attribution_samples=8)
    assert result.place == "embedding `embedding` of input `input`"
    assert result.axes == ("token",)
    assert result.explained == "mean over the tokens of the predicted class's logit"
    assert len(result.profile("token").elements) == 7
    assert result.primary.convergence.ratio < 0.01


def test_layer_integrated_gradients_of_captum_are_the_same_at_the_embedding():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(12, 5), nn.Flatten(), nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 1))
    ids = torch.randint(12, (9, 6))
    layer = LayerIntegratedGradients(model, model[0])
    with torch.no_grad():
        model[0].weight[0] = 0  # Captum's baseline is what the layer gives for ids of 0, ours are zeros
    expected = layer.attribute(ids, torch.zeros_like(ids), target=0, n_steps=50).sum(-1).detach()
    result = examined(model, (ids, torch.randn(9, 1)))
    assert result.profile("token").importance == pytest.approx(expected.abs().mean(0).numpy(), rel=1e-4)


def test_integers_without_an_embedding_are_taken_as_numbers():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 1)

        def forward(self, counts):
            return self.head(counts.float())

    result = examined(Counts(), (torch.randint(9, (20, 6)), torch.randn(20, 1)), ig_n_steps=4)
    assert result.place == "input `input`"
    assert result.primary.convergence.ratio < 1e-4


def test_each_output_is_explained_where_there_are_a_few():
    model, (x, _) = planted(outputs=1)
    head = nn.Linear(CHANNELS * TIMES, 2)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[0, : 3 * TIMES] = 1  # output 0 sees channels 0 to 2, output 1 the others
        head.weight[1, 3 * TIMES :] = 1
    model = nn.Sequential(nn.Flatten(), head)
    result = examined(model, (x, torch.randn(len(x), 2)), axes=("channel", "time"), ig_n_steps=4)
    assert result.explained == "the sum of the 2 outputs"
    first, second = result.outputs
    assert set(first.profiles[0].ranking[:3]) == {0, 1, 2}
    assert set(second.profiles[0].ranking[:3]) == {3, 4, 5}
    assert first.profiles[0].importance[3:].sum() == 0


@pytest.mark.parametrize("kind", ["zero", "mean", "random", "blur"])
def test_every_baseline_adds_up(kind):
    model, data = planted()
    training = (torch.randn(30, CHANNELS, TIMES) + 2, torch.zeros(30, 1))
    result = examined(model, data, train_data=training, ig_baseline=kind, ig_n_steps=4)
    assert result.primary.convergence.ratio < 1e-4
    assert ("training samples" in result.baseline) == (kind in ("mean", "random"))


@pytest.mark.parametrize(
    ("patient", "words"), [(5, "tokens cannot be blurred"), (9, "no axis to blur along")]
)
def test_a_blur_that_makes_no_sense_is_refused(patient, words):
    model, data = admit(PATIENTS[patient])
    done = autopsy(model, data, examine=["attributions"], ig_baseline="blur")
    assert done.outcomes[0].status == "skipped"
    assert words in done.outcomes[0].reason


def test_an_unknown_baseline_names_those_there_are():
    model, data = planted()
    done = autopsy(model, data, examine=["attributions"], ig_baseline="black")
    assert "zero, mean, random, blur" in done.outcomes[0].reason


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.head(functional.relu(self.first(x)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Functional(), "a function instead of a module"),
        (PATIENTS[4], "`act` is used 3 times"),
        (PATIENTS[2], "no DeepLift rule for the products inside `rnn`"),
    ],
    ids=["functional", "shared", "recurrent"],
)
def test_deep_lift_says_why_it_could_not_run(model, reason):
    data = torch.randn(24, 8), torch.randn(24, 1)
    if not isinstance(model, nn.Module):
        model, data = admit(model)
    result = examined(model, data, ig_n_steps=4)
    assert [m.method for m in result.methods][-1] == "smooth_grad"
    ((title, why),) = result.not_run
    assert title == "DeepLift"
    assert reason in why


def test_deep_lift_runs_on_activations_in_place():
    model, data = admit(PATIENTS[0])
    result = examined(model, data, ig_n_steps=4)
    assert result.method("deep_lift").convergence.ratio < 1e-3


def test_too_few_steps_are_said():
    model = nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.fill_(30.0)
    result = examined(model, (torch.randn(50, 8), torch.randn(50, 1)), ig_n_steps=2, task="regression")
    assert result.primary.convergence.ratio > 0.05
    assert any(r.severity == "warning" and "over 5 %" in r.text for r in result.remarks)


def test_an_output_that_does_not_depend_on_the_input_is_said():
    model = nn.Sequential(nn.Linear(8, 1))
    with torch.no_grad():
        model[0].weight.zero_()
    result = examined(model, (torch.randn(50, 8), torch.randn(50, 1)), ig_n_steps=2)
    assert [r.severity for r in result.remarks if "exactly 0" in r.text] == ["critical"]
    assert math.isnan(result.primary.convergence.ratio), "nothing to add up to"
    assert result.primary.randomisation.depends is None


def test_a_detached_input_is_a_reason_and_not_zeros():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 1)

        def forward(self, x):
            return self.head(x.detach())

    done = autopsy(Detached(), (torch.randn(9, 8), torch.randn(9, 1)), examine=["attributions"])
    assert done.outcomes[0].status == "skipped"
    assert "no gradient with respect to the input `input`" in done.outcomes[0].reason


def test_samples_with_nan_are_left_out_and_counted():
    model, (x, y) = planted()
    x = x.clone()
    x[3, 1, 5] = math.nan
    result = examined(model, (x, y), ig_n_steps=4)
    assert result.samples == len(x) - 1
    assert any("1 samples hold NaN" in r.text for r in result.remarks)
    assert np.isfinite(result.profile("channel").importance).all()


def test_the_same_seed_gives_the_same_maps():
    model, data = admit(PATIENTS[0])
    few = {"attribution_samples": 6, "ig_n_steps": 4}
    first, again = examined(model, data, **few), examined(model, data, **few)
    for a, b in zip(first.methods, again.methods, strict=True):
        assert a.profiles[0].importance.tolist() == b.profiles[0].importance.tolist(), a.title


def test_names_of_channels_and_times_are_in_the_words():
    model, data = planted()
    names = ["Fz", "Cz", "Pz", "Oz", "C3", "C4"]
    result = examined(
        model, data, axes=("channel", "time"), channel_names=names, sample_rate=100.0, ig_n_steps=4
    )
    assert set(result.profile("channel").top(2)) == {"Pz", "C3"}
    said = " ".join(r.text for r in result.remarks)
    assert "Pz" in said
    assert " s)" in said


def test_when_time_is_over_what_is_done_remains():
    model, data = planted()
    now = iter(range(10_000))
    options = Options(time_limit_s=14.0, ig_n_steps=4, attribution_samples=8)
    done = conduct(
        AutopsyInputs(model, data), examine=["attributions"], options=options, clock=lambda: next(now)
    )
    result = done["attributions"]
    assert [m.method for m in result.methods] == ["integrated_gradients", "saliency", "input_x_gradient"]
    assert all("time limit" in why for _, why in result.not_run)
    assert result.primary.randomisation is None, "not tested is None"


@pytest.mark.slow
def test_planted_truth_is_found_by_trained_models_in_19_of_20_seeds():
    found = 0
    for seed in range(20):
        torch.manual_seed(seed)
        x = torch.randn(400, 8, 40)
        y = x[:, PLANTED, WINDOW].mean((1, 2)).unsqueeze(1) * 4 + 0.3 * torch.randn(400, 1)
        model = nn.Sequential(
            nn.Conv1d(8, 12, 5, padding=2), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(240, 1)
        )
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(120):
            rows = torch.randint(400, (64,))
            loss = functional.mse_loss(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        result = examined(
            model, (x, y), axes=("channel", "time"), ig_n_steps=20, attribution_samples=40, seed=seed
        )
        channels = set(result.profile("channel").ranking[:2]) == set(PLANTED)
        window = (
            len(set(result.profile("time").ranking[:8]) & set(range(WINDOW.start - 2, WINDOW.stop + 2))) == 8
        )
        found += channels and window and all(m.randomisation.depends for m in result.methods)
    assert found >= 19
