"""The examination of attention finds what is planted, says what is wrong, and leaves the patient alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_attention import Crossed, Look, Looking, marked, streams
from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations import _attention_collect as collecting
from torchwatch.examinations import _attention_heads
from torchwatch.examinations._attention_heads import RELATIVE, TOTAL_VARIATION
from torchwatch.postmortem import autopsy
from torchwatch.results import plain


def examined(model, data, **known):
    return autopsy(model, data, examine=["attention"], **known)["attention"]


def texts(result, severity=None):
    return " ".join(r.text for r in result.remarks if severity in (None, r.severity))


def test_planted_heads_are_described_and_the_one_that_matters_is_found():
    result = examined(Looking(), marked())
    (layer,) = result.layers
    assert (layer.name, layer.kind, layer.source) == ("look", "self", "softmax")
    assert (layer.queries, layer.keys) == (6, 6)
    assert layer.patterns == ("focused", "diffuse")
    assert layer.entropy[1] == pytest.approx(1.0)
    assert layer.most[1] == pytest.approx(1 / 6)
    assert layer.mean == pytest.approx([1 / 6] * 2)
    assert layer.std[1] == pytest.approx(0.0, abs=1e-4)
    assert result.contribution_of == RELATIVE
    assert layer.contribution[0] > 0.5
    assert layer.contribution[1] == pytest.approx(0.0, abs=1e-6)
    assert layer.error_change[0] > 0.5
    assert "1 of 2 heads change nothing" in texts(result)
    assert "not explanation (Jain & Wallace 2019)" in result.remarks[-1].text


def test_contribution_is_the_change_of_the_output_without_the_head():
    """Without its first head the planted model says 0, so that the change is the output itself."""
    x, y = marked(30)
    model = Looking()
    with torch.no_grad():
        outputs = model(x).double()
    wanted = outputs.square().mean().sqrt() / (outputs - outputs.mean(0)).square().mean().sqrt()
    layer = examined(model, (x, y)).layers[0]
    assert layer.contribution[0] == pytest.approx(float(wanted), rel=1e-5)
    assert layer.error_change[0] == pytest.approx(
        float((y**2).mean() - ((outputs - y) ** 2).mean()), rel=1e-5
    )


def test_classes_are_changed_by_the_probability_that_moves():
    x, y = marked(30)
    model = Looking(classes=True)
    result = examined(model, (x, (y[:, 0] > 0).long()))
    with torch.no_grad():
        p = model(x).softmax(1)
    assert result.contribution_of == TOTAL_VARIATION
    assert result.layers[0].contribution[0] == pytest.approx(
        float((p - 0.5).abs().sum(1).mean() / 2), rel=1e-4
    )


def test_pairs_name_the_marked_key():
    x, y = marked(20)
    layer = examined(Looking(30.0), (x, y)).layers[0]
    assert layer.top_key.shape == (20, 3)
    assert (layer.top_key == x[..., 0].argmax(1).numpy()[:, None]).all()
    np.testing.assert_allclose(layer.top_weight, (1 + 1 / 6) / 2, rtol=1e-4)
    share = x[..., 0].mean(0).numpy()
    assert layer.pairs[0].key == share.argmax()
    assert layer.pairs[0].weight == pytest.approx((share.max() + 1 / 6) / 2, rel=1e-4)


def test_what_is_known_of_each_sample():
    x, y = marked(24)
    true = (y[:, 0] > 0).long()
    true[:6] = 1 - true[:6]
    model = Looking(classes=True)
    of = examined(model, (x, true), class_names=("down", "up")).samples
    with torch.no_grad():
        logits = model(x)
    np.testing.assert_array_equal(of.predicted, logits.argmax(1).numpy())
    np.testing.assert_allclose(of.logit, logits.amax(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(of.probability, logits.softmax(1).amax(1).numpy(), rtol=1e-6)
    np.testing.assert_array_equal(of.true, true.numpy())
    np.testing.assert_array_equal(of.correct, (logits.argmax(1) == true).numpy())


def test_binary_logits_point_to_the_predicted_class():
    x, y = marked(24)
    of = examined(Looking(), (x, (y > 0).float()), task="binary").samples
    with torch.no_grad():
        logit = Looking()(x)[:, 0].numpy()
    np.testing.assert_array_equal(of.predicted, logit >= 0)
    np.testing.assert_allclose(of.logit, np.abs(logit), rtol=1e-6)
    np.testing.assert_allclose(of.probability, 1 / (1 + np.exp(-np.abs(logit))), rtol=1e-6)


def test_samples_that_look_elsewhere_when_wrong_are_found():
    """Without a mark the head looks everywhere, and the model is wrong there."""
    x, y = marked(60)
    true = (y[:, 0] > 0).long()
    model = Looking(classes=True)
    x[:20, :, 0] = 0
    with torch.no_grad():
        true[:20] = 1 - model(x)[:20].argmax(1)
    result = examined(model, (x, true))
    assert [name for name, _ in result.contrasted] == ["correct", "incorrect"]
    entropy = next(c for c in result.contrast if c.quantity == "entropy")
    assert entropy.right < entropy.wrong
    assert entropy.effect < -2
    assert entropy.adjusted_p < 0.01
    assert "Correct samples have another" in texts(result)


def test_regressions_compare_smaller_with_larger_errors():
    x, y = marked(60)
    x[:30, :, 0] = 0
    result = examined(Looking(), (x, y))
    assert dict(result.contrasted) == {"smaller errors": 30, "larger errors": 30}
    assert min(c.adjusted_p for c in result.contrast) < 0.01
    assert "Samples with smaller errors" in texts(result)


def test_attention_of_noise_does_not_differ():
    x, _ = marked(60)
    true = torch.randint(2, (60,), generator=torch.Generator().manual_seed(8))
    result = examined(Looking(classes=True), (x, true))
    assert min(c.adjusted_p for c in result.contrast) > 0.05
    assert "does not differ by more than chance" in texts(result)


def test_classes_have_their_own_numbers():
    x, _y = marked(40)
    x[:12, :, 0] = 0
    true = torch.zeros(40, dtype=torch.long)
    true[:12] = 1
    result = examined(Looking(classes=True), (x, true), class_names=("marked", "plain"))
    assert [(c.name, c.count) for c in result.classes] == [("marked", 28), ("plain", 12)]
    assert result.classes[1].entropy[0] == pytest.approx(1.0)
    wanted = result.layers[0].sample_entropy.mean(1)[12:].mean()
    assert result.classes[0].entropy[0] == pytest.approx(wanted)


# ---------------------------------------------------------------------- streams


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("given", [None, {"a->b": "a_to_b", "b->a": "b_to_a"}])
def test_streams_that_look_at_one_another_are_compared(same, given):
    data = streams()
    result = examined(Crossed(same=same), data, streams=given)
    assert [(layer.name, layer.kind, layer.stream) for layer in result.layers] == [
        ("a_to_b", "cross", "a→b"),
        ("b_to_a", "cross", "b→a"),
    ]
    (pair,) = result.pairs
    ((a, b), _) = data[0]
    scores = a @ b.transpose(-2, -1)
    there, back = scores.softmax(-1), ((1 if same else -1) * scores.transpose(-2, -1)).softmax(-1)
    wanted = [
        np.corrcoef(p.ravel().numpy(), q.T.ravel().numpy())[0, 1] for p, q in zip(there, back, strict=True)
    ]
    np.testing.assert_allclose(pair.alignment, wanted, atol=1e-6)
    assert pair.agreement == ("strong" if same else "conflict")
    assert pair.mean == pytest.approx(np.mean(wanted))
    assert any(c.quantity == "alignment" for c in result.contrast)
    assert result.classes[0].alignment.shape == (1,)
    assert "Alignment of a→b with b→a" in texts(result)


def test_streams_that_are_not_there_are_told():
    outcome = autopsy(Crossed(), streams(), examine=["attention"], streams={"a->b": "x"}).outcomes[0]
    assert outcome.status == "failed"
    assert "no attention was seen in 'x'; there are a_to_b, b_to_a" in outcome.reason


# ---------------------------------------------------------------------- what is wrong


def test_nan_attention_says_check_the_inputs():
    x, y = marked(20)
    x[3, 2, 0] = torch.nan
    result = examined(Looking(), (x, y))
    assert result.layers[0].nan_samples == 1
    (remark,) = [r for r in result.remarks if r.severity == "critical"]
    assert "NaN in 1 of 20 samples, first in `look`" in remark.text
    assert "Check the inputs" in remark.fix
    assert np.isnan(result.layers[0].sample_entropy[3]).all()
    assert np.isfinite(result.layers[0].entropy).all()
    json.dumps(plain(result), allow_nan=False)


def test_all_nan_is_survived():
    x, y = marked(20)
    result = examined(Looking(), (x * torch.nan, y))
    assert result.layers[0].nan_samples == 20
    assert result.layers[0].pattern == "unknown"
    assert result.maps == ()
    json.dumps(plain(result), allow_nan=False)


def test_an_attention_sink_is_described():
    x, y = marked(20, places=10)
    x[..., 0] = 0
    x[:, 0, 0] = 2
    assert "an attention sink" in texts(examined(Looking(), (x, y))), "mean of 1 and 0.1"


def test_a_model_without_attention_is_not_for_it():
    with pytest.raises(KeyError, match="no attention was seen"):
        examined(nn.Linear(3, 1), (torch.randn(20, 3), torch.randn(20, 1)))


# ---------------------------------------------------------------------- size


def test_chunks_make_no_difference():
    x, y = marked(40)
    whole, parts = (examined(Looking(), (x, y), chunk=chunk) for chunk in (256, 3))
    np.testing.assert_allclose(whole.layers[0].entropy, parts.layers[0].entropy)
    np.testing.assert_allclose(whole.layers[0].sample_most, parts.layers[0].sample_most)
    np.testing.assert_allclose(whole.layers[0].contribution, parts.layers[0].contribution, atol=1e-6)


def test_memory_is_halved_until_a_chunk_fits():
    class Small(Looking):
        def forward(self, x):
            if len(x) > 9:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    wanted, found = (examined(model, marked(40)) for model in (Looking(), Small()))
    np.testing.assert_allclose(found.layers[0].sample_entropy, wanted.layers[0].sample_entropy)
    assert found.contribution_samples == 40


def test_many_samples_never_hold_all_weights(monkeypatch):
    """What is alive of a call's weights at any time is one chunk of 16 samples."""
    largest = 0

    def numbers(call, inner=collecting.numbers):
        nonlocal largest
        largest = max(largest, call.weights.shape[0])
        return inner(call)

    monkeypatch.setattr(collecting, "numbers", numbers)
    result = examined(Looking(), marked(200))
    assert largest == 16
    assert result.layers[0].sample_entropy.shape == (200, 2)


def test_many_heads_are_tried_on_fewer_samples(monkeypatch):
    monkeypatch.setattr(_attention_heads, "_PASSES", 80)

    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(Look() for _ in range(8))

        def forward(self, x):
            return sum(part(x) for part in self.parts)

    result = examined(Many(), marked(30))
    assert result.contribution_samples == 8
    tried = np.isfinite([layer.contribution for layer in result.layers]).all(1)
    assert np.flatnonzero(np.isfinite([layer.contribution for layer in result.layers]).ravel()).size == 10
    assert 0 < tried.sum() < 8
    assert len(result.maps) == 6


def test_the_answer_depends_on_the_seed_alone():
    data = marked(60)
    first, again = (examined(Looking(), data, seed=2) for _ in range(2))
    assert plain(first) == plain(again)


# ---------------------------------------------------------------------- the patient


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = autopsy(model, data, examine=["attention"])
    assert done.outcomes[0].status == ("done" if patient.name == "tokens" else "skipped"), done.outcomes


def test_the_patient_survives_a_failure_and_ctrl_c():
    class Breaks(Looking):
        def forward(self, x):
            found = super().forward(x)
            if len(x) == 16:
                raise self.error
            return found

    for error, expected in ((ValueError("in the middle"), None), (KeyboardInterrupt(), KeyboardInterrupt)):
        model, data = Breaks(), marked(40)
        model.error = error
        with assert_untouched(model):
            if expected is None:
                assert autopsy(model, data, examine=["attention"]).outcomes[0].status == "failed"
            else:
                with pytest.raises(expected):
                    autopsy(model, data, examine=["attention"])
