"""Data quality: every planted fault is found and named, sound data are not accused.

One file of more than 300 lines: each of the examination's many findings has its planted fault here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers_patients import PATIENTS, Patient, admit, assert_untouched
from torchwatch.postmortem import autopsy
from torchwatch.results.data_quality import DataQuality

N, C, T = 200, 6, 40


def examined(x: Any, y: Any = None, model: nn.Module | None = None, **known: Any) -> DataQuality:
    data = x if y is None else (x, y)
    if model is None:
        outputs = 1 if y is None or y.is_floating_point() else int(y.max()) + 1
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))
        model(x[:2] if isinstance(x, torch.Tensor) else known["first"])
    known.pop("first", None)
    result = autopsy(model, data, examine=["data_quality"], **known)
    assert result.outcomes[0].status == "done", result.outcomes[0].reason
    return result["data_quality"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signals(seed: int = 0, count: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Channel 2 answers the target between bins 10 and 20."""
    x, y = noise(count, C, T, seed=seed), noise(count, 1, seed=seed + 100)
    x[:, 2, 10:20] += 0.6 * y
    return x, y


def said(found: DataQuality, *words: str) -> list[str]:
    """Severities of the remarks that hold all words."""
    return [r.severity for r in found.remarks if all(w in r.text for w in words)]


def test_sound_data_are_not_accused() -> None:
    found = examined(*signals(), train_data=signals(seed=1))
    assert {r.severity for r in found.remarks} == {"info"}
    assert found.linear_skill is not None
    assert found.linear_skill.beats_chance
    assert found.linear_skill.low > 0
    assert found.linear_skill.split == "train"
    assert [a.shifted for a in found.alignment] == [False, False]
    assert (found.copies.within_data, found.copies.across, found.copies.near_across) == (0, 0, 0)


@pytest.mark.parametrize("lag", [-3, 1])
def test_labels_that_are_shifted_against_their_inputs(lag: int) -> None:
    x, y = signals()
    found = examined(x, y.roll(lag, 0))
    (one,) = found.alignment
    assert (one.best, one.shifted, one.excused) == (lag, True, "")
    assert one.gain_low > 0
    assert one.probe[list(one.lags).index(lag)] > 0.5
    assert said(found, "labels are misaligned") == ["critical"]
    assert found.linear_skill is not None
    assert not found.linear_skill.beats_chance


def test_classes_that_are_shifted() -> None:
    x = noise(300, 12)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    found = examined(x, y.roll(1, 0))
    assert (found.alignment[0].best, found.alignment[0].shifted) == (1, True)
    assert not examined(x, y).alignment[0].shifted


def test_a_good_model_finds_shifted_labels_where_a_linear_probe_cannot() -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, 0] * x[:, 1]).unsqueeze(1)

    x = noise(300, 8)
    found = examined(x, Product()(x).roll(2, 0), model=Product())
    (one,) = found.alignment
    assert (one.best, one.shifted) == (2, True)
    assert one.model[list(one.lags).index(2)] == pytest.approx(1.0, abs=1e-3)


def test_permuted_labels_have_no_signal_and_no_lag() -> None:
    accused = 0
    for seed in range(2):
        x, y = signals(seed)
        found = examined(x, y[torch.randperm(N, generator=torch.Generator().manual_seed(seed))])
        assert found.linear_skill is not None
        accused += found.linear_skill.beats_chance + found.alignment[0].shifted
    assert accused == 0


def test_a_forecast_may_fit_its_neighbours() -> None:
    """Windows of one recording: what is forecast for one lies inside the next."""
    series = noise(1, 4000)[0]
    x = torch.stack([series[i * 10 : i * 10 + T] for i in range(300)])[:, None]
    y = torch.stack([series[i * 10 + T : i * 10 + T + 5].mean() for i in range(300)])[:, None]
    found = examined(x, y, axes=("channel", "time"))
    (one,) = found.alignment
    assert not one.shifted
    assert "overlap" in one.excused
    assert said(found, "need not be a fault") == ["info"]


def test_nonfinite_values_are_located() -> None:
    x, y = signals()
    x[7, 3, 21], x[9, 0, 4], y[11] = float("nan"), float("inf"), float("-inf")
    names = [f"E{i}" for i in range(C)]
    found = examined(x, y, channel_names=names)
    places = {(b.where, b.sample, b.channel, b.place, b.value) for b in found.bad_values}
    assert places == {
        ("input", 7, "E3", "time 21", "nan"),
        ("input", 9, "E0", "time 4", "inf"),
        ("targets", 11, "", "", "-inf"),
    }
    data = found.split("data")
    assert data is not None
    assert (data.nonfinite_inputs, data.nonfinite_targets) == (2, 1)
    assert (
        said(found, "NaN or infinite", "inputs") == said(found, "NaN or infinite", "targets") == ["critical"]
    )


def test_channels_against_plain_statistics() -> None:
    x, y = signals()
    x = x * torch.arange(1, C + 1)[:, None] + 1e4  # a large offset must not cost digits
    x[:, 4] = 3.0
    x[17, 1, 5] = 1e5
    x[:40, 5] = x[:40, 5, :1]
    tx = signals(1)[0] * torch.arange(1, C + 1)[:, None] + 1e4 + 2
    found = examined(x, y, train_data=(tx, signals(1)[1])).channels
    assert found is not None
    wide = x.double().numpy()
    np.testing.assert_allclose(found.mean, wide.mean((0, 2)), rtol=1e-7)
    np.testing.assert_allclose(found.std, wide.std((0, 2)), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.least, wide.min((0, 2)))
    np.testing.assert_allclose(found.most, wide.max((0, 2)))
    assert found.flat.tolist() == [False] * 4 + [True, False]
    assert found.flat_share[5] == 40 / N
    assert (int(found.worst_sample[1]), found.outliers[1]) == (17, 1)
    z = np.abs(wide[17, 1, 5] - wide[:, 1].mean()) / wide[:, 1].std()
    assert found.worst_z[1] == pytest.approx(z, rel=1e-3)
    assert found.shift[0] == pytest.approx(-2, abs=0.1)


def test_flat_and_far_channels_are_spoken_of() -> None:
    x, y = signals()
    x[:, 4] = 3.0
    x[17, 1, 5] = 1e5
    found = examined(x, y)
    assert said(found, "never change: 4") == ["warning"]
    assert said(found, "standard deviations from their mean", "channel 1 in sample 17") == ["warning"]
    x[:] = 0
    assert said(examined(x, y), "6 of 6 channels never change") == ["critical"]


def test_copies_within_and_across_splits() -> None:
    (x, y), (tx, ty) = signals(), signals(1)
    x[50], y[50] = x[49], y[49]
    x[60] = x[59]
    tx[:20], ty[:20] = x[:20], y[:20]
    found = examined(x, y, train_data=(tx, ty))
    assert (found.copies.within_data, found.copies.within_train, found.copies.across) == (2, 0, 20)
    assert found.copies.conflicting == 1
    assert ("data", 60, "data", 59) in found.copies.examples
    assert ("data", 3, "train", 3) in found.copies.examples
    assert said(found, "20 of 200 samples (10.0%) are in the training data") == ["critical"]
    assert said(found, "other targets than their originals") == ["warning"]


def test_near_copies_are_noted() -> None:
    (x, y), (tx, ty) = signals(), signals(1)
    tx[:30] = x[:30] + 0.01 * noise(30, C, T, seed=9)
    found = examined(x, y, train_data=(tx, ty))
    assert (found.copies.across, found.copies.near_across, found.copies.near_within_data) == (0, 30, 0)
    assert said(found, "nearly the same as a training sample") == ["warning"]


def test_windows_that_overlap() -> None:
    series = noise(3, 3000)
    x = torch.stack([series[:, i * 10 : i * 10 + T] for i in range(200)])
    mixed = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    whole = examined(x, noise(200, 1), axes=("channel", "time")).overlap
    assert whole is not None
    assert (whole.neighbours, whole.overlapping, whole.shift, whole.length) == (199, 199, 10.0, T)
    found = examined(
        x[mixed[:100]], noise(100, 1), train_data=(x[mixed[100:]], noise(100, 1)), axes=("channel", "time")
    )
    assert found.overlap is not None
    assert found.overlap.across is not None
    assert found.overlap.across > 90
    i, j, shared = found.overlap.examples[0]
    a, b = x[mixed[i]], x[mixed[100 + j]]
    assert torch.equal(a[:, -shared:], b[:, :shared]) or torch.equal(a[:, :shared], b[:, -shared:])
    assert said(found, "share a stretch with a training window") == ["critical"]
    x[:, :, -8:] = x[:, :, :8] = 0  # padding tells nothing
    padded = examined(x[::5], noise(40, 1), axes=("channel", "time")).overlap
    assert padded is not None
    assert padded.overlapping == 0


def test_groups_in_both_splits() -> None:
    def batches(first: int, seed: int) -> list[Any]:
        x, y = noise(60, 8, seed=seed), noise(60, 1, seed=seed + 1)
        return [(x, y, {"subject": [f"s{first + i % 6}" for i in range(60)]})]

    shared = examined(batches(0, 0), train_data=batches(4, 5), first=noise(2, 8))
    (one,) = shared.group_overlaps
    assert (one.column, one.given, one.shared, one.count) == ("subject", False, ("s4", "s5"), 2)
    assert one.share == pytest.approx(1 / 3)
    assert said(shared, "are in both splits") == ["warning"]
    given = examined(batches(0, 0), train_data=batches(4, 5), groups="subject", first=noise(2, 8))
    assert said(given, "are in both splits") == ["critical"]
    assert examined(batches(0, 0), train_data=batches(6, 5), first=noise(2, 8)).group_overlaps == ()


def test_cohorts_that_tell_the_target() -> None:
    groups = [f"site{i % 4}" for i in range(N)] + ["rare"] * 3
    x, y = noise(N + 3, 8), noise(N + 3, 1, seed=2)
    y[:N] += 4.0 * (torch.arange(N) % 4 == 1)[:, None]
    x[:N, 3] += 2.0 * (torch.arange(N) % 4 == 2)
    cohorts = examined(x, y, groups=groups).cohorts
    assert cohorts is not None
    at = cohorts.names.index("site1")
    assert cohorts.target_ks[at] == max(cohorts.target_ks[~cohorts.few])
    assert cohorts.explained > 0.6
    moved = cohorts.names.index("site2")
    assert (int(np.nanargmax(cohorts.input_shift)), cohorts.input_channel[moved]) == (moved, "3")
    assert cohorts.few[cohorts.names.index("rare")]
    assert np.isnan(cohorts.target_ks[cohorts.names.index("rare")])
    found = examined(x, y, groups=groups)
    assert said(found, "alone explains") == ["warning"]
    assert said(found, "have other targets than the rest", "site1") == ["info"]


def test_shift_of_numbers_and_of_classes() -> None:
    found = examined(noise(N, 8), noise(N, 1), train_data=(noise(N, 8, seed=3), noise(N, 1, seed=4) + 1))
    shift = found.label_shift
    assert shift is not None
    assert shift.ks[0] > 0.3
    assert shift.wasserstein[0] == pytest.approx(1, abs=0.2)
    assert said(found, "differ in the targets", "Wasserstein") == ["warning"]
    y, ty = torch.arange(N) % 2, (torch.arange(N) % 10 == 0).long()
    found = examined(noise(N, 8), y, train_data=(noise(N, 8, seed=3), ty))
    assert found.label_shift is not None
    assert found.label_shift.variation[0] == pytest.approx(0.4)
    assert found.label_shift.chance[0] < 0.2
    assert said(found, "total variation") == ["warning"]


def test_coverage_and_balance_of_classes() -> None:
    y, ty = torch.arange(N) % 4, torch.arange(N) % 3
    names = ["cat", "dog", "owl", "emu", "yak"]
    model = nn.Linear(8, 5)
    found = examined(noise(N, 8), y, model, train_data=(noise(N, 8, seed=3), ty), class_names=names)
    labels = found.labels
    assert labels is not None
    assert (labels.absent, labels.train_absent) == (("yak",), ("emu",))
    assert labels.count.tolist() == [50, 50, 50, 50, 0]
    assert said(found, "training samples: emu") == ["critical"]
    assert said(found, "1 of 5 classes is in none of 200 samples: yak") == ["warning"]
    lonely = examined(noise(N, 8), (torch.arange(N) == 3).long())
    assert said(lonely, "99.5% of the targets are of one class") == ["warning"]


def test_events_that_are_absent_from_multilabel_data() -> None:
    y = (torch.rand(N, 3, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    y[:, 1] = 0
    found = examined(noise(N, 8), y, nn.Linear(8, 3), class_names=["a", "b", "c"])
    assert found.labels is not None
    assert (found.labels.kind, found.labels.absent) == ("labels", ("b",))
    assert said(found, "1 of 3 labels is in none of 200 samples: b") == ["warning"]


def test_targets_that_never_change_or_were_filled_in() -> None:
    assert said(examined(noise(N, 8), torch.ones(N, 1), task="regression"), "same value in all") == [
        "critical"
    ]
    y = noise(N, 1)
    y[: N * 3 // 4] = 0
    assert said(examined(noise(N, 8), y), "one and the same value in 75%") == ["warning"]


def test_neighbours_that_are_alike() -> None:
    slow = noise(N, 1).cumsum(0) / 10
    found = examined(slow + 0.1 * noise(N, 8, seed=1), slow)
    (near,) = found.order
    expected = np.corrcoef(slow[:-1, 0], slow[1:, 0])[0, 1]
    assert near.targets == pytest.approx(expected, abs=0.02)
    assert near.pairs == N - 1
    assert said(found, "Neighbours in the data are alike") == ["info"]


def test_neighbours_are_read_where_not_all_samples_are() -> None:
    x, y = noise(3000, 8), noise(3000, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    found = examined(loader, samples=250, first=x[:2])
    data = found.split("data")
    assert data is not None
    assert (data.samples, data.available) == (250, 3000)
    assert data.neighbours >= 240
    assert any("250 of 3,000 samples" in s for s in found.not_checked)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 3000, 16)]
    data = examined(batches, samples=250, first=x[:2]).split("data")
    assert data is not None
    assert (data.samples, data.available, data.neighbours) == (250, None, 249)


def test_what_cannot_be_looked_at_is_said() -> None:
    model, (ids, y) = admit(next(p for p in PATIENTS if p.name == "tokens"))
    found = examined(ids, y, model)
    assert found.channels is None
    assert found.linear_skill is None
    assert any("indices" in s for s in found.not_checked)
    assert any("tokens" in s for s in found.not_checked)
    bare = examined([(noise(20, 8),)], first=noise(2, 8))
    assert (bare.labels, bare.alignment) == (None, ())
    assert any("no `train_data`" in s for s in bare.not_checked)
    other = examined(noise(N, 8), noise(N, 1), train_data=(noise(N, 9), noise(N, 1)))
    assert any("samples of `train_data` have the form" in s for s in other.not_checked)


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient: Patient) -> None:
    model, data = admit(patient)
    with assert_untouched(model):
        result = autopsy(model, data, train_data=admit(patient)[1], examine=["data_quality"])
    assert result.outcomes[0].status == "done", result.outcomes[0].reason
    assert result["data_quality"].copies.across == 24
    assert result.as_json()["data_quality"]["task"] == result.about.task
