"""What layers put out, saved by plain hooks of the host, and what the statistics of it are by definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

Matrix = np.ndarray


class Saved:
    """Outputs of a model's leaf modules, and the gradients that arrived at them: by name, by step, by call.

    ``outputs["0"][3][1]`` is what layer 0 put out in the second call of the fourth step, ``inputs`` likewise.
    """

    def __init__(self, model: nn.Module) -> None:
        leaves = {name: m for name, m in model.named_modules() if not list(m.children())}
        self.outputs: dict[str, list[list[torch.Tensor]]] = {name: [] for name in leaves}
        self.inputs: dict[str, list[list[torch.Tensor]]] = {name: [] for name in leaves}
        self.gradients: dict[str, list[list[torch.Tensor]]] = {name: [] for name in leaves}
        self.handles = [m.register_forward_hook(self._saver(name)) for name, m in leaves.items()]

    def step(self) -> None:
        """What comes belongs to the next step."""
        for kind in (self.outputs, self.inputs, self.gradients):
            for steps in kind.values():
                steps.append([])

    def _saver(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            self.outputs[name][-1].append(output.detach().clone())
            self.inputs[name][-1].append(args[0].detach().clone())
            if output.requires_grad:
                output.register_hook(lambda g: self.gradients[name][-1].append(g.detach().clone()))

        return hook


def per_unit(tensors: list[torch.Tensor], axis: int) -> torch.Tensor:
    """Everything that these tensors hold of each unit, in float64. Shape (units, samples · positions)."""
    return torch.cat([t.double().movedim(axis, 0).reshape(t.shape[axis], -1) for t in tensors], 1)


def batch_std(tensors: list[torch.Tensor]) -> float:
    """Mean over the calls with several samples of their deviation across samples, over their common rms."""
    several = [t.double().reshape(t.shape[0], -1) for t in tensors if t.shape[0] > 1]
    spreads = [math.sqrt(t.var(0, correction=1).mean()) for t in several]
    rms = math.sqrt(torch.cat([t.reshape(-1) for t in several]).square().mean())
    return float(np.mean(spreads)) / rms if rms else 0.0


def rows(tensor: torch.Tensor) -> Matrix:
    """One row for each sample, in float64."""
    return tensor.reshape(tensor.shape[0], -1).double().numpy()


def mean_cosine(x: Matrix) -> float:
    """Mean of Pearson's correlation over pairs of rows."""
    found = np.corrcoef(x)
    return float(found[np.triu_indices(len(x), 1)].mean())


def effective_rank(x: Matrix) -> float:
    """Roy & Vetterli (2007), definition 1: no centring."""
    singular = np.linalg.svd(x, compute_uv=False)
    shares = singular[singular > 1e-13 * singular.max()] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def hsic(k: Matrix, el: Matrix) -> float:
    """The unbiased estimator: Song et al. (2012), equation 5."""
    n = len(k)
    k, el = k - np.diag(np.diag(k)), el - np.diag(np.diag(el))
    middle = k.sum() * el.sum() / ((n - 1) * (n - 2))
    return float((np.trace(k @ el) + middle - 2 / (n - 2) * (k @ el).sum()) / (n * (n - 3)))


def cka(x: Matrix, y: Matrix) -> float:
    """Without the level of the features, which changes nothing and costs this formula its digits."""
    x, y = x - x.mean(0), y - y.mean(0)
    k, el = x @ x.T, y @ y.T
    return hsic(k, el) / math.sqrt(hsic(k, k) * hsic(el, el))
