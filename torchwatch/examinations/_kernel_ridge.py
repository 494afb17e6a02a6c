"""A reference learner without steps: kernel ridge regression, its strength chosen by leave-one-out.

Leave-one-out residuals cost nothing: with H = 1/N + K (K + λI)⁻¹ they are (y − Hy) / (1 − diag H) (Allen
1974): exact for the linear kernel of fixed features, close for the Gaussian one, whose width comes from the
median distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGES = tuple(10.0**e for e in range(-4, 4))
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


class KernelRidge:
    """Fitted on construction; ``kernel`` says which one was chosen.

    Args:
        x: features (N, F).
        y: wanted outputs (N, K).
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._center, self._scale = x.mean(0), x.std(0).clamp(min=1e-12)
        self._x = (x - self._center) / self._scale
        self._mean = y.mean(0)
        self.kernel, self._width = "", 1.0
        best = float("inf")
        for kernel, width, gram in self._grams():
            values, vectors = torch.linalg.eigh(gram)
            turned = vectors.T @ (y - self._mean)
            for ridge in _RIDGES:
                shrunk = values.clamp(min=0) / (values.clamp(min=0) + ridge)
                leverage = 1 / len(y) + (vectors.square() * shrunk).sum(1, keepdim=True)  # 1/N: the mean
                leverage = leverage.clamp(max=1 - 1e-9)
                left_out = ((y - self._mean) - vectors @ (shrunk[:, None] * turned)) / (1 - leverage)
                error = float(left_out.square().mean())
                if error < best:
                    best, self.kernel, self._width = error, kernel, width
                    self._left_out = y - left_out
                    self._weights = vectors @ (turned / (values.clamp(min=0) + ridge)[:, None])

    def _grams(self) -> list[tuple[str, float, Tensor]]:
        """The training samples' kernels, each scaled to a mean diagonal of 1."""
        found = [("linear", 1.0, self._linear(self._x))]
        distances = torch.cdist(self._x, self._x).square()
        median = float(distances[~torch.eye(len(distances), dtype=torch.bool)].median()) or 1.0
        self._median = median
        found += [("Gaussian", w, torch.exp(-distances / (w * median))) for w in _WIDTHS]
        return found

    def _linear(self, x: Tensor) -> Tensor:
        gram: Tensor = x @ self._x.T / self._x.shape[1]
        return gram

    def predict(self, x: Tensor) -> Tensor:
        """Outputs (n, K) for features (n, F)."""
        x = (x - self._center) / self._scale
        if self.kernel == "linear":
            gram = self._linear(x)
        else:
            gram = torch.exp(-torch.cdist(x, self._x).square() / (self._width * self._median))
        predicted: Tensor = gram @ self._weights + self._mean
        return predicted

    @property
    def left_out(self) -> Tensor:
        """Predictions of the training samples, each by the learner that had not seen it (N, K)."""
        predicted: Tensor = self._left_out
        return predicted
