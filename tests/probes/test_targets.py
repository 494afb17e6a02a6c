"""What losses show of their targets, and of the model's side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes.targets import class_counts, row_sums
from torchwatch.records import Layout

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 2, 2, 2, 1, 0, 2, 2, 0, 1, 2, 2])


def recorded(loss_of, tmp_path, outputs=3, steps=2, config=EVERY_STEP, model=None):
    model = model or nn.Linear(4, outputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def body(watch) -> None:
        for _ in range(steps):
            loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()
            watch.log(loss=1.0)

    return record(model, body, tmp_path / "r.jsonl", config=config)


def targets(loss_of, tmp_path, **keywords):
    return steps_of(recorded(loss_of, tmp_path, **keywords))[0].targets


def test_class_indices(tmp_path) -> None:
    assert targets(lambda m: functional.cross_entropy(m(X), CLASSES), tmp_path) == {
        "loss": "cross_entropy", "calls": 1, "shape": [12], "dtype": "int64", "low": 0, "high": 2,
        "ignored": 0, "predictions": [12, 3], "classes": 3, "largest_share": pytest.approx(7 / 12),
        "rows_sum_to_one": False,
    }  # fmt: skip


def test_a_loss_module_shows_the_same(tmp_path) -> None:
    module = nn.CrossEntropyLoss(ignore_index=2)
    found = targets(lambda m: module(m(X), CLASSES), tmp_path)
    assert (found["low"], found["high"], found["ignored"]) == (0, 1, 7)
    assert found["largest_share"] == pytest.approx(3 / 5)


def test_a_softmax_before_the_loss_is_seen(tmp_path) -> None:
    soft = lambda m: functional.cross_entropy(m(X).softmax(1), CLASSES)  # noqa: E731
    assert targets(soft, tmp_path)["rows_sum_to_one"] is True
    almost = lambda m: functional.cross_entropy(m(X).softmax(1) * 1.001, CLASSES)  # noqa: E731
    assert targets(almost, tmp_path)["rows_sum_to_one"] is False
    tilt = torch.tensor([2.0, -2.0, 0.0])
    tilted = lambda m: functional.cross_entropy(m(X).softmax(1) + tilt, CLASSES)  # noqa: E731
    assert targets(tilted, tmp_path)["rows_sum_to_one"] is False  # they do, and are no probabilities
    logs = lambda m: functional.nll_loss(m(X).log_softmax(1), CLASSES)  # noqa: E731
    assert "rows_sum_to_one" not in targets(logs, tmp_path)


def test_probabilities_as_targets(tmp_path) -> None:
    wanted = functional.one_hot(CLASSES, 3).float()
    found = targets(lambda m: functional.cross_entropy(m(X), wanted), tmp_path)
    assert (found["dtype"], found["low"], found["high"], found["classes"]) == ("float32", 0.0, 1.0, 3)
    assert found["mean"] == pytest.approx(1 / 3)


def test_real_targets(tmp_path) -> None:
    wanted = 100 + 5 * torch.randn(12, 1, generator=torch.Generator().manual_seed(1))
    found = targets(lambda m: functional.mse_loss(m(X), wanted), tmp_path, outputs=1)
    exact = wanted.double()
    np.testing.assert_allclose(
        [found[k] for k in ("mean", "std", "low", "high", "absmax")],
        [exact.mean(), exact.std(correction=0), exact.min(), exact.max(), exact.abs().max()],
        rtol=1e-5,
    )
    assert (found["loss"], found["nonfinite"], found["predictions"]) == ("mse_loss", 0, [12, 1])
    wanted[0] = float("inf")
    assert targets(lambda m: functional.l1_loss(m(X), wanted), tmp_path, outputs=1)["nonfinite"] == 1


def test_several_losses_in_a_step(tmp_path) -> None:
    def both(model):
        out = model(X)
        first = functional.binary_cross_entropy_with_logits(out[:, 0], (CLASSES > 0).float())
        return (
            first
            + functional.cross_entropy(out[:6], CLASSES[:6])
            + functional.cross_entropy(out[6:], CLASSES[6:])
        )

    found = targets(both, tmp_path)
    assert (found["loss"], found["calls"], found["others"]) == (
        "binary_cross_entropy_with_logits", 1, ["cross_entropy"],
    )  # fmt: skip
    assert found["mean"] == pytest.approx(9 / 12)


class OwnLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x, y):
        return {"loss": self.loss(self.head(x), y)}


def test_a_loss_inside_of_the_model(tmp_path) -> None:
    found = targets(lambda m: m(X, CLASSES)["loss"], tmp_path, model=OwnLoss())
    assert (found["loss"], found["calls"], found["classes"]) == ("cross_entropy", 1, 3)


def test_validation_and_discarded_losses_do_not_count(tmp_path) -> None:
    def loss_of(model):
        with torch.no_grad():
            functional.cross_entropy(model(X), CLASSES * 0)
        functional.cross_entropy(model(X), CLASSES * 0)
        out = model(X)
        with torch.no_grad():
            functional.cross_entropy(out, CLASSES * 0)  # a metric of a pass that is trained on
        return functional.cross_entropy(out, CLASSES)

    found = targets(loss_of, tmp_path)
    assert (found["calls"], found["high"]) == (1, 2)


def test_accumulation_is_pooled(tmp_path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def body(watch) -> None:
        for part in (slice(0, 6), slice(6, 12)):
            functional.cross_entropy(model(X[part]), CLASSES[part]).backward()
        optimizer.step()

    found = steps_of(record(model, body, tmp_path / "r.jsonl"))[0].targets
    assert (found["calls"], found["low"], found["high"], found["shape"]) == (2, 0, 2, [6])
    assert found["largest_share"] == pytest.approx((3 / 6 + 4 / 6) / 2)


def coverage(records) -> str:
    return [r.coverage["targets"] for r in records if isinstance(r, Layout)][-1]


def test_only_on_sampled_steps_and_torch_has_its_functions_back_in_between(tmp_path) -> None:
    original, found = functional.cross_entropy, []

    def loss_of(model):
        found.append(functional.cross_entropy is original)
        return functional.cross_entropy(model(X), CLASSES)

    config = WatchConfig(activations_every=3, dense_steps=0, budget=None, terminal=False)
    steps = steps_of(recorded(loss_of, tmp_path, steps=7, config=config))
    assert [s.targets is not None for s in steps] == [False, False, True, False, False, True, False]
    assert found == [True, True, False, True, True, False, True]
    assert functional.cross_entropy is original


def test_the_coverage_says_whether_a_loss_was_seen(tmp_path) -> None:
    assert coverage(recorded(lambda m: functional.cross_entropy(m(X), CLASSES), tmp_path)) == "ok"
    assert coverage(recorded(lambda m: m(X).square().mean(), tmp_path)).startswith("not seen")


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-100, 7), min_size=1, max_size=40),
    classes=st.integers(1, 9),
    ignored=st.sampled_from([-100, 0, 3]),
)
def test_class_counts_equal_counting(labels, classes, ignored) -> None:
    low, high, out, kept, looked, most = class_counts(torch.tensor(labels), classes, ignored).tolist()
    valid = [v for v in labels if v != ignored]
    inside = [v for v in valid if 0 <= v < classes]
    assert (out, kept, looked) == (len(labels) - len(valid), len(valid), len(inside))
    if valid:
        assert (low, high) == (min(valid), max(valid))
    assert most == max([inside.count(v) for v in inside], default=0)


def test_counting_is_bounded() -> None:
    labels = torch.arange(200_000) % 10
    *_, kept, looked, _ = class_counts(labels, 10, -100).tolist()
    assert kept == 200_000
    assert looked <= 1 << 16
    assert class_counts(labels, 10**6, -100).tolist()[4:] == [0, 0]
    assert class_counts(labels.to(torch.uint8), 10, -100).tolist()[:2] == [0, 9]


@pytest.mark.parametrize("shape", [(3,), (5, 3), (500, 3), (2, 3, 40), (2, 3, 30, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_row_sums(shape, dtype) -> None:
    axis = 0 if len(shape) == 1 else 1
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    tolerance = 1e-4 if dtype is not torch.bfloat16 else 1e-2
    low, off = row_sums(logits.softmax(axis).to(dtype)).tolist()
    assert low >= 0
    assert off <= tolerance
    low, off = row_sums(logits.to(dtype)).tolist()
    assert low < 0
    assert off > tolerance
