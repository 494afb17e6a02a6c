"""A reference learner without steps: ridge regression, its form and strength chosen by leaving samples out.

Three forms, the best of which is taken: kernel ridge regression with a linear and with a Gaussian kernel (its
width from the median distance), and linear regression on the features that correlate most with what is wanted
(Fan & Lv 2008, sure independence screening), which finds a signal that only few of many inputs hold.

Leave-one-out residuals cost nothing: with H = 1/N + K (K + λI)⁻¹ they are (y − Hy) / (1 − diag H) (Allen
1974): exact for linear kernels of fixed features, close for the Gaussian one. Screening looks at y, so it is
judged on folds that it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGES = tuple(10.0**e for e in range(-4, 4))
_SCREENED = (16, 64, 256)
"""Features that the sparse learner keeps: those that correlate most with what is wanted."""
_FOLDS = 5
_WIDTHS = (0.5, 1.0, 2.0)
_BINS = 4_096
"""Most features; a longer last axis is averaged in bins."""


def features(inputs: Tensor) -> Tensor:
    """Inputs as rows of numbers: flat, the last axis averaged in bins where there are too many; NaN as 0.

    Args:
        inputs: (N, …); integers are counted, as a bag of words hashed into bins.
    """
    if not inputs.is_floating_point():
        flat = inputs.reshape(inputs.shape[0], -1).long() % _BINS
        counts = torch.zeros(inputs.shape[0], _BINS, dtype=torch.float64)
        return counts.scatter_add_(1, flat, torch.ones(flat.shape, dtype=torch.float64)).sqrt()
    x = inputs.double().nan_to_num(0.0, 0.0, 0.0)
    size = x[0].numel()
    if size > _BINS and x.ndim > 2:
        wanted = max(1, x.shape[-1] * _BINS // size)
        x = torch.nn.functional.adaptive_avg_pool1d(x.reshape(x.shape[0], -1, x.shape[-1]), wanted)
    return x.reshape(x.shape[0], -1)


class Reference:
    """Fitted on construction; ``kernel`` says which form was chosen: ``linear``, ``Gaussian`` or ``sparse``.

    Args:
        x: features (N, F).
        y: wanted outputs (N, K).
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._center, self._scale = x.mean(0), x.std(0).clamp(min=1e-12)
        self._x, self._mean = (x - self._center) / self._scale, y.mean(0)
        self._kept, self._width = torch.arange(x.shape[1]), 1.0
        self.kernel = ""
        best = float("inf")
        centred = y - self._mean
        for kernel, width, gram in self._grams():
            values, vectors = torch.linalg.eigh(gram)
            fit = _ridge(values.clamp(min=0), vectors, centred)
            if fit.error < best:
                best, self.kernel, self._width, self.left_out = fit.error, kernel, width, y - fit.residuals
                self._weights = vectors @ (fit.turned / (values.clamp(min=0) + fit.ridge)[:, None])
        for count in _SCREENED:
            if count < x.shape[1] and len(y) >= 2 * _FOLDS:
                self._try_sparse(count, y, best)
                best = min(best, float((y - self.left_out).square().mean()))

    def _try_sparse(self, count: int, y: Tensor, best: float) -> None:
        """Take the sparse form if it does better than ``best`` on folds that it has not seen."""
        told = torch.empty_like(y)
        fold = torch.arange(len(y)) * _FOLDS // len(y)
        for number in range(_FOLDS):
            test = fold == number
            kept, weights, middle, mean = _sparse(self._x[~test], y[~test], count)
            told[test] = (self._x[test][:, kept] - middle) @ weights + mean
        if float((y - told).square().mean()) < best:
            self.kernel, self.left_out = "sparse", told
            self._kept, self._weights, self._middle, self._mean = _sparse(self._x, y, count)

    def _grams(self) -> list[tuple[str, float, Tensor]]:
        """The training samples' kernels, each scaled to a mean diagonal of about 1."""
        found = [("linear", 1.0, self._linear(self._x))]
        distances = torch.cdist(self._x, self._x).square()
        self._median = float(distances[~torch.eye(len(distances), dtype=torch.bool)].median()) or 1.0
        return found + [("Gaussian", w, torch.exp(-distances / (w * self._median))) for w in _WIDTHS]

    def _linear(self, x: Tensor) -> Tensor:
        gram: Tensor = x @ self._x.T / self._x.shape[1]
        return gram

    def predict(self, x: Tensor) -> Tensor:
        """Outputs (n, K) for features (n, F)."""
        x = (x - self._center) / self._scale
        if self.kernel == "sparse":
            given = x[:, self._kept] - self._middle
        elif self.kernel == "linear":
            given = self._linear(x)
        else:
            given = torch.exp(-torch.cdist(x, self._x).square() / (self._width * self._median))
        predicted: Tensor = given @ self._weights + self._mean
        return predicted


@dataclass(frozen=True)
class _Fit:
    """The best ridge: its leave-one-out error and residuals, and y turned into the directions."""

    error: float
    residuals: Tensor
    ridge: float
    turned: Tensor


def _ridge(values: Tensor, vectors: Tensor, y: Tensor) -> _Fit:
    """The best strength by leave-one-out, along directions ``vectors`` (N, P) with eigenvalues ``values``."""
    turned = vectors.T @ y
    best: _Fit | None = None
    for ridge in _RIDGES:
        shrunk = values / (values + ridge)
        leverage = 1 / len(y) + (vectors.square() * shrunk).sum(1, keepdim=True)  # 1/N: the mean
        residuals = (y - vectors @ (shrunk[:, None] * turned)) / (1 - leverage.clamp(max=1 - 1e-9))
        error = float(residuals.square().mean())
        if best is None or error < best.error:
            best = _Fit(error, residuals, ridge, turned)
    assert best is not None
    return best


def _sparse(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ridge regression on the features that correlate most with y: which, weights, their means, mean of y."""
    middle, mean = x.mean(0), y.mean(0)
    kept = ((x - middle).T @ (y - mean)).abs().amax(1).topk(count).indices
    left, sizes, right = torch.linalg.svd(x[:, kept] - middle[kept], full_matrices=False)
    values = sizes.square() / count
    fit = _ridge(values, left, y - mean)
    weights = right.T @ ((sizes / count / (values + fit.ridge))[:, None] * fit.turned)
    return kept, weights, middle[kept], mean
