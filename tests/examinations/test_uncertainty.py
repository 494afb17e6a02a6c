from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from tests.helpers_scored import noise, said
from torchwatch.examinations.uncertainty import PASSES, dropout_on, dropouts_of
from torchwatch.postmortem import autopsy
from torchwatch.results import plain


def network(rate: float = 0.3, outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(rate), nn.Linear(64, outputs)
    )


def examined(model, data, **known):
    return autopsy(model, data, examine=["uncertainty"], **known)["uncertainty"]


def inputs(samples: int = 100, seed: int = 1) -> torch.Tensor:
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(seed))


def test_mean_and_spread_are_those_that_dropout_has():
    """Of a linear read-out the variance over inverted dropout is known: Σ (w·h)² p / (1 − p)."""
    model, x = network(), inputs(300)
    model.eval()
    hidden = model[:3](x)
    each = (hidden * model[4].weight).detach().double()
    std = (each.square().sum(1) * 0.3 / 0.7).sqrt().numpy()
    found = examined(model, (x, torch.zeros(300, 1) + 0.5))
    assert found.passes == PASSES == 30
    assert found.mean.shape == found.std.shape == (300, 1)
    ratio = found.std[:, 0] / std
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert np.abs(found.mean[:, 0] - model(x).detach().numpy()[:, 0]).max() < 5 * std.max() / np.sqrt(30)


def test_only_dropout_is_switched_on():
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    with dropout_on(dropouts_of(model)):
        assert [m.training for m in model] == [False, False, False, True, False]
        model(inputs())
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_flags_and_the_fused_path_come_back_after_an_error():
    model = network().eval()
    with pytest.raises(RuntimeError, match="inside"), dropout_on(dropouts_of(model)):
        raise RuntimeError("inside")
    assert not model[3].training
    assert torch.backends.mha.get_fastpath_enabled()


def test_dropout_inside_a_transformer_layer_works_in_spite_of_its_fused_path():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1), nn.Flatten(), nn.Linear(24, 1)).requires_grad_(
        False
    )
    found = examined(model, (torch.randn(20, 3, 8), torch.randn(20, 1)))
    assert found.typical > 0.01
    assert len(found.dropouts) == 3


def test_every_kind_of_dropout_counts_and_a_rate_of_zero_does_not():
    class StableDropout(nn.Module):
        drop_prob = 0.2

    kinds = [
        nn.Dropout(0.1),
        nn.Dropout2d(0.1),
        nn.AlphaDropout(0.1),
        StableDropout(),
        nn.Dropout(0.0),
        nn.ReLU(),
    ]
    assert list(dropouts_of(nn.Sequential(*kinds))) == ["0", "1", "2", "3"]


def test_coverage_is_as_asked_where_the_passes_are_right():
    model, x = network(0.5), inputs(500)
    model.eval()
    each = (model[:3](x) * model[4].weight).detach()
    std = each.square().sum(1, keepdim=True).sqrt()
    y = model(x).detach() + std * torch.randn(500, 1, generator=torch.Generator().manual_seed(3))
    found = examined(model, (x, y), samples=500)
    np.testing.assert_allclose(found.coverage.dropout, found.coverage.nominal, atol=0.07)
    assert found.ranks_errors > 0.1


def test_noise_that_dropout_cannot_know_is_added_from_the_residuals():
    model, x = network(0.1), inputs(400)
    y = model.eval()(x).detach() + torch.randn(400, 1, generator=torch.Generator().manual_seed(3))
    found = examined(model, (x, y), samples=400)
    assert found.coverage.dropout[2] < 0.4
    np.testing.assert_allclose(found.coverage.with_noise, found.coverage.nominal, atol=0.05)
    assert any("no error bars" in r.text for r in found.remarks)
    assert any("rough" in r.text for r in found.remarks)
    np.testing.assert_allclose(found.residuals, y.numpy() - found.mean)


def test_without_targets_the_spread_is_left():
    found = examined(network(), [(inputs(),)])
    assert found.coverage is None
    assert found.std.shape == (100, 1)
    assert np.isnan(found.ranks_errors)
    assert found.residuals.size == 0


def test_a_regression_without_dropout_is_not_for_it():
    with pytest.raises(KeyError, match="no dropout modules"):
        said(noise(20, 1), noise(20, 1, seed=1), "uncertainty")


def test_a_classifier_without_dropout_keeps_its_reliability_diagram():
    logits = torch.tensor(noise(400, 3) * 3)
    p = torch.softmax(logits, -1)
    true = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(0)).squeeze(1)
    found = said(logits, true, "uncertainty")
    assert (found.passes, found.dropouts, found.mean.size) == (0, (), 0)
    diagram = found.reliability[0]
    assert diagram.count.sum() == 400
    full = diagram.count >= 20
    assert (diagram.low[full] - 0.03 <= diagram.confidence[full]).all()
    assert (diagram.confidence[full] <= diagram.high[full] + 0.03).all()
    assert "no dropout modules" in found.remarks[0].text


def test_entropy_is_that_of_the_mean_and_information_is_what_passes_disagree_on():
    model, x = network(0.5, outputs=3), inputs(120)
    true = model.eval()(x).argmax(1)
    true[:40] = (true[:40] + 1) % 3
    found = examined(model, (x, true), samples=120)
    assert found.mean.shape == found.entropy.shape == found.right.shape == (120,)
    assert (found.entropy <= np.log(3) + 1e-9).all()
    assert (found.mutual_information <= found.entropy + 1e-9).all()
    assert found.mutual_information.mean() > 0.005
    assert [r.of for r in found.reliability] == ["model", "mean of the dropout passes"]
    assert found.ranks_errors == pytest.approx(sklearn.metrics.roc_auc_score(~found.right, found.entropy))
    json.dumps(plain(found), allow_nan=False)


def test_the_answer_depends_on_the_seed_alone():
    model, data = network(), (inputs(), torch.randn(100, 1, generator=torch.Generator().manual_seed(1)))
    first, again, other = (examined(model, data, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.std, again.std)
    assert not np.array_equal(first.std, other.std)


def test_a_vocabulary_in_single_precision_says_the_same(monkeypatch):
    model, data = network(0.5, outputs=3), (inputs(), torch.arange(100) % 3)
    double = examined(model, data)
    monkeypatch.setattr("torchwatch.examinations._dropout_passes._FEW_CLASSES", 2)
    single = examined(model, data)
    for name in ("mean", "std", "entropy", "mutual_information"):
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), atol=1e-5)


def test_of_large_outputs_some_samples_are_looked_at_and_that_is_said(monkeypatch):
    monkeypatch.setattr("torchwatch.examinations._dropout_passes._MOST_NUMBERS", 30 * 3 * 25)
    found = examined(network(0.5, outputs=3), (inputs(), torch.arange(100) % 3))
    assert len(found.index) == found.mean.size == found.right.size == 25
    assert found.reliability[0].count.sum() == 100
    assert found.reliability[1].count.sum() == 25
    assert any("25 of the 100 samples" in r.text for r in found.remarks)
    monkeypatch.setattr("torchwatch.examinations._dropout_passes._MOST_NUMBERS", 30 * 25)
    y = torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    numbers = examined(network(0.5), (inputs(), y))
    np.testing.assert_allclose(numbers.residuals, y.numpy()[numbers.index] - numbers.mean)


def test_dropout_that_reaches_nothing_is_told():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return x[:, :1]

    found = examined(Unused(), (inputs(), torch.randn(100, 1)))
    assert found.typical == 0
    assert "changes nothing" in found.remarks[0].text


def test_tokens_and_labels_have_one_decision_a_place():
    tokens = nn.Sequential(nn.Embedding(9, 6), nn.Dropout(0.4), nn.Linear(6, 9))
    ids = torch.randint(9, (12, 5))
    ids[:, 0] = 1
    targets = ids.clone()
    targets[:, 0] = -100
    found = examined(tokens, (ids, targets))
    assert found.mean.shape == (48,)
    assert found.reliability[1].count.sum() == 48
    labels = network(outputs=3)
    found = examined(labels, (inputs(30), (torch.rand(30, 3) < 0.5).float()))
    assert found.mean.shape == (90,)
    assert (found.entropy <= np.log(2) + 1e-9).all()


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = autopsy(model, data, examine=["uncertainty"])
    assert done.outcomes[0].status in ("done", "skipped"), done.outcomes


def test_the_patient_survives_a_failure_between_passes():
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.layer = nn.Dropout(0.5), nn.Linear(6, 1)

        def forward(self, x):
            if self.drop.training and not self.training:
                raise ValueError("in the middle")
            return self.layer(self.drop(x))

    model = Breaks()
    with assert_untouched(model):
        done = autopsy(model, (inputs(), torch.randn(100, 1, generator=torch.Generator().manual_seed(2))),
                       examine=["uncertainty"])  # fmt: skip
    assert done.outcomes[0].status == "failed"
