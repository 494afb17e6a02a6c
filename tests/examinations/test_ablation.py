"""Ablation as a whole: planted truth, what was not tested, every kind of patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations.ablation import EXAMINATION
from torchwatch.examinations.case import Case, Options
from torchwatch.examinations.conduct import conduct
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs
from torchwatch.results.ablation import Ablation
from torchwatch.results.plain import plain

CHANNELS, BINS = 12, 50
PLANTED, SPAN = (3, 7), (20, 30)


def signals(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in which two channels carry the target in one window."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, CHANNELS, BINS, generator=generator)
    y = torch.randn(count, 1, generator=generator)
    for channel in PLANTED:
        x[:, channel, slice(*SPAN)] += 0.7 * y
    return x, y


def trained(seed: int) -> nn.Module:
    """A small network after a short training on the signals: it also fits noise."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv1d(CHANNELS, 8, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(10),
        nn.Flatten(),
        nn.Linear(80, 1),
    )
    x, y = signals(400, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return model.eval()


def planted(seed: int, samples: int = 250) -> Ablation:
    with torch.random.fork_rng():
        model = trained(seed)
    done = autopsy(model, signals(samples, seed + 1000), examine=["ablation"], window=10, seed=seed)
    result = done["ablation"]
    assert isinstance(result, Ablation)
    return result


def check_planted(seeds: range) -> None:
    right, covered, unplanted = 0, 0, 0
    for seed in seeds:
        result = planted(seed)
        windows = result.part("window", "time")
        assert windows is not None
        assert windows.windows is not None
        right += set(result.ranking[:2]) == set(PLANTED) and windows.windows[windows.peak] == SPAN
        # Beside the planted window, kernel and pooling never mix bins in: the same holds for windows.
        for part, true in ((result.parts[0], PLANTED), (windows, (windows.windows.index(SPAN),))):
            others = np.setdiff1d(np.arange(len(part.elements)), true)
            covered += int(part.covers_zero[others].sum())
            unplanted += len(others)
            assert not part.covers_zero[list(true)].any()
    assert right >= 0.95 * len(seeds)
    assert covered >= 0.9 * unplanted, (covered, unplanted)


def test_finds_what_was_planted():
    check_planted(range(3))


@pytest.mark.slow
def test_finds_what_was_planted_in_twenty_seeds():
    check_planted(range(20))


def test_importance_of_a_linear_model_is_what_it_must_be():
    # y = Σ w x + ε, x ~ N(0, 1): without channel j the error grows by 2 w².
    weights = torch.tensor([1.0, 0.5, 0.0])
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = weights[None].clone()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3000, 3, generator=generator)
    y = x @ weights + 0.5 * torch.randn(3000, generator=generator)
    result = autopsy(model, (x, y[:, None]), examine=["ablation"], samples=3000)["ablation"]
    truth = 2 * weights.numpy() ** 2
    assert result.axis == "feature"
    assert result.ranking == (0, 1, 2)
    assert (result.interval[:2, 0] < truth[:2]).all()
    assert (truth[:2] < result.interval[:2, 1]).all()
    assert result.importance[2] == 0
    assert result.interval[2].tolist() == [0, 0]
    assert result.baseline == pytest.approx(0.25, rel=0.1)
    assert result.metric == "mean squared error"


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        result = autopsy(model, data, examine=["ablation"], repeats=2, window=4)
    assert "ablation" in result, result.outcomes
    for part in result["ablation"].parts:
        assert part.interval.shape == (len(part.elements), 2)
        assert sorted(part.ranking) == list(range(len(part.elements)))


@pytest.mark.parametrize("error", [RuntimeError("burst"), KeyboardInterrupt()])
def test_the_patient_survives_a_failure(error):
    class Bursting(nn.Linear):
        passes = 0

        def forward(self, x):
            Bursting.passes += 1
            if Bursting.passes > 12:
                raise error
            return super().forward(x)

    model = nn.Sequential(Bursting(5, 4), nn.ReLU(), nn.Linear(4, 1))
    data = (torch.randn(20, 5), torch.randn(20, 1))
    with assert_untouched(model):
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                autopsy(model, data, examine=["ablation"])
        else:
            outcome = autopsy(model, data, examine=["ablation"]).outcomes[0]
            assert (outcome.status, outcome.reason) == ("failed", "RuntimeError: burst")


class Clock:
    """A second later at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def _limited(limit_s: float) -> Ablation | None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    x = torch.randn(40, 6)
    inputs = AutopsyInputs(model, (x, x[:, :1]))
    options = Options(time_limit_s=limit_s, repeats=3)
    done = conduct(inputs, examine=["ablation"], options=options, clock=Clock())
    return next((o.result for o in done.outcomes), None)


def test_what_was_not_tested_is_nan():
    result = _limited(6)
    assert result is not None
    tested = result.parts[0].repeats > 0
    assert 0 < tested.sum() < 6
    assert np.isnan(result.importance[~tested]).all()
    assert np.isnan(result.interval[~tested]).all()
    assert np.isfinite(result.importance[tested]).all()
    assert sorted(result.ranking) == list(np.flatnonzero(tested))
    blocks = result.part("module")
    assert blocks is not None
    assert np.isnan(blocks.importance).all()
    assert "were not tested and have no value" in result.remarks[-1].text
    assert plain(result)["importance"][-1] is None


def test_every_element_is_drawn_once_before_any_is_drawn_again():
    result = _limited(14)
    assert result is not None
    assert result.parts[0].repeats.min() == 1
    assert result.parts[0].repeats.max() == 2
    assert "before all draws" in result.remarks[-1].text


def test_nothing_tested_is_no_result():
    assert _limited(2) is None


def test_a_constant_channel_has_no_importance():
    model = trained(0)
    x, y = signals(60, 5)
    x[:, 2] = torch.linspace(-1, 1, BINS)
    for fill in ("permutation", "mean", "noise"):
        result = autopsy(model, (x, y), examine=["ablation"], fill=fill)["ablation"]
        assert result.importance[2] == 0
        assert result.interval[2].tolist() == [0, 0]
        assert (result.importance[[0, 1, 3]] != 0).all()


@pytest.mark.parametrize("fill", ["permutation", "mean", "noise", "zero"])
def test_every_fill_agrees_with_the_plain_loop(fill):
    model = trained(1)
    x, y = signals(80, 3)
    result = autopsy(model, (x, y), examine=["ablation"], fill=fill)["ablation"]
    if fill in ("mean", "zero"):
        for channel in (3, 4):
            changed = x.clone()
            changed[:, channel] = x.mean(0)[channel] if fill == "mean" else 0
            with torch.no_grad():
                expected = (model(changed) - y).square().mean() - (model(x) - y).square().mean()
            assert result.importance[channel] == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    assert result.fill == fill
    assert set(result.ranking[:2]) == set(PLANTED)


def test_groups_and_blocks():
    groups = {"planted": [3, "7"], "rest": [0, 1, 2]}
    result = autopsy(trained(2), signals(150, 9), examine=["ablation"], channel_groups=groups)["ablation"]
    group = result.part("group")
    assert group.elements == ("planted", "rest")
    assert group.ranking == (0, 1)
    assert group.importance[0] > result.importance.max()
    blocks = result.part("module")
    assert blocks.elements == ("0", "4")
    assert blocks.fill == "mean"
    assert (blocks.interval[:, 0] > 0).all()


def test_images_are_ablated_in_patches():
    torch.manual_seed(0)
    x = torch.randn(120, 3, 20, 16)
    y = x[:, 1, 5:7, 4:6].mean((1, 2))[:, None]
    model = nn.Sequential(nn.Flatten(), nn.Linear(960, 1, bias=False))
    model[1].weight.data.zero_().view(3, 20, 16)[1, 5:7, 4:6] = 0.25
    result = autopsy(model, (x, y), examine=["ablation"])["ablation"]
    patches = result.part("patch")
    assert patches.grid == (8, 8)
    assert len(patches.patches) == 64
    top, bottom, left, right = patches.patches[patches.peak]
    assert (left, right) == (4, 6)
    assert 5 <= top <= 6 or 5 < bottom <= 7
    assert result.ranking[0] == 1
    assert result.part("window") is None


def test_tokens_are_permuted_at_their_places():
    torch.manual_seed(0)
    ids = torch.randint(5, (200, 9))
    model = nn.Sequential(nn.Embedding(5, 5), nn.Flatten(), nn.Linear(45, 5, bias=False))
    model[0].weight.data = torch.eye(5)
    model[2].weight.data.zero_().view(5, 9, 5)[:, 4] = 5 * torch.eye(5)
    result = autopsy(model, (ids, ids[:, 4]), examine=["ablation"])["ablation"]
    assert result.axis == "token"
    assert result.parts[0].elements[result.parts[0].peak] == "4"
    assert (np.delete(result.importance, 4) == 0).all()
    assert result.metric == "negative log-likelihood"
    outcome = autopsy(model, (ids, ids[:, 4]), examine=["ablation"], fill="mean").outcomes[0]
    assert (
        outcome.reason
        == "UsageError: inputs of torch.int64 have no mean: ablate them with fill='permutation'"
    )


def test_where_it_does_not_apply():
    model = nn.Linear(3, 1)
    x, y = torch.randn(10, 3), torch.randn(10, 1)
    one = autopsy(model, (x[:1], y[:1]), examine=["ablation"]).outcomes[0]
    assert one.status == "skipped"
    assert "only one" in one.reason
    x[2, 1] = float("nan")
    bad = autopsy(model, (x, y), examine=["ablation"]).outcomes[0]
    assert bad.status == "skipped"
    assert bad.reason.startswith("1 of 10 samples have an error that is no number")
    assert autopsy(model, (x,), examine=["ablation"]).outcomes[0].status == "skipped"
    odd = autopsy(model, (x, y), examine=["ablation"], fill="magic").outcomes[0]
    assert "fill must be one of" in odd.reason


def test_a_model_that_ignores_its_input_is_told():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    model[2].weight.data.zero_()
    result = autopsy(model, (torch.randn(30, 4), torch.randn(30, 1)), examine=["ablation"])["ablation"]
    assert (result.importance == 0).all()
    assert result.remarks[0].severity == "warning"
    assert result.remarks[0].text.startswith("No part of the input matters: without any one of 4 features")


def test_the_same_seed_gives_the_same_result():
    model, data = trained(4), signals(50, 1)
    first, second = (autopsy(model, data, examine=["ablation"])["ablation"] for _ in range(2))
    assert first.importance.tolist() == pytest.approx(second.importance.tolist(), rel=1e-4, abs=1e-7)


def test_progress_reaches_its_end():
    told: list[tuple[int, int]] = []
    autopsy(
        trained(4),
        signals(50, 1),
        examine=["ablation"],
        repeats=2,
        listen=lambda title, done, total: told.append((done, total)),
    )
    assert told[-1] == (2 * (CHANNELS + 5) + 2, 2 * (CHANNELS + 5) + 2)


def test_its_need_is_declared():
    assert EXAMINATION.needs_targets
    assert EXAMINATION.tells
    assert Case(AutopsyInputs(nn.Linear(2, 1), (torch.zeros(3, 2), torch.zeros(3, 1)))).axes == ("feature",)
