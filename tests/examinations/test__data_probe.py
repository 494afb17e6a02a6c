"""The linear probe against scikit-learn, and its halves."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV

from torchwatch.examinations import _data_probe as probe


def test_ridge_is_that_of_scikit_learn_at_the_chosen_strength() -> None:
    rng = np.random.default_rng(0)
    for n, p in ((60, 10), (40, 80)):
        a, b = rng.standard_normal((n, p)), rng.standard_normal((25, p))
        y = a[:, :2] @ rng.standard_normal((2, 2)) + rng.standard_normal((n, 2))
        y = y - y.mean(0)
        told = probe.ridge(a, y, b)
        scale = probe.decomposed(a)[1].mean()
        best = [
            min(
                np.abs(RidgeCV([r * scale]).fit(a, y[:, k]).predict(b) - told[:, k]).max()
                for r in probe._RIDGES
            )
            for k in range(2)
        ]
        assert max(best) < 1e-8


def test_halves_mix_classes_of_sorted_data_and_keep_neighbours() -> None:
    for count in (80, 500, 5000):
        half = probe.halves(count)
        assert 0.4 < half.mean() < 0.6
        assert (half[1:] != half[:-1]).mean() <= 0.2
        assert {bool(v) for v in half[: count // 4]} == {True, False}


def test_correlation_is_that_of_one_column_and_nan_for_a_constant() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((30, 1)), rng.standard_normal((30, 1))
    assert np.isclose(probe.correlation(a, b), np.corrcoef(a[:, 0], b[:, 0])[0, 1])
    assert np.isnan(probe.correlation(a, np.ones((30, 1))))
