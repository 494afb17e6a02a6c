"""The attribution methods, all Captum's, behind one signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.examinations._explained import Explained, pliable
from torchwatch.examinations.examination import NotApplicable

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case

INTERNAL_BATCH = 32
"""Rows of Integrated Gradients in one pass, or one step of all samples where they are more."""
_NOISE = 0.1
"""Standard deviation of SmoothGrad's noise as a share of the input's range (Smilkov et al. 2017)."""


@dataclass(frozen=True)
class Batch:
    """Samples on the device with what a method may need.

    Attributes:
        main: (n, …).
        extra: further arguments of :class:`Explained`, (n, …) each.
        reference: baseline of each sample (n, …).
        pool: baselines to draw from (p, …).
        n_steps: of Integrated Gradients.
        rows: rows of Integrated Gradients in one pass.
        noise: of SmoothGrad, in units of the input.
        draws: baselines of GradientSHAP and noises of SmoothGrad for each sample.
    """

    main: Tensor
    extra: tuple[Tensor, ...]
    reference: Tensor
    pool: Tensor
    n_steps: int
    rows: int = INTERNAL_BATCH
    noise: float = 0.0
    draws: int = 10


Maps = tuple[Tensor, Tensor | None]
"""Attributions (n, …), and for methods that promise to add up their convergence delta (n,)."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as in results.
        title: for people.
        explain: from the model and a batch to attributions.
        adds_up: whether attributions promise to sum to the change of the output.
        pliable: whether it needs a copy of the model whose activations are not in place.
    """

    name: str
    title: str
    explain: Callable[[Explained, Batch], Maps]
    adds_up: bool = False
    pliable: bool = False


def _integrated_gradients(model: Explained, batch: Batch) -> Maps:
    from captum.attr import IntegratedGradients

    maps, delta = IntegratedGradients(model).attribute(
        batch.main,
        baselines=batch.reference,
        additional_forward_args=batch.extra,
        n_steps=batch.n_steps,
        internal_batch_size=batch.rows,
        return_convergence_delta=True,
    )
    return maps, delta


def _saliency(model: Explained, batch: Batch) -> Maps:
    from captum.attr import Saliency

    return Saliency(model).attribute(batch.main, abs=False, additional_forward_args=batch.extra), None


def _input_x_gradient(model: Explained, batch: Batch) -> Maps:
    from captum.attr import InputXGradient

    return InputXGradient(model).attribute(batch.main, additional_forward_args=batch.extra), None


def _gradient_shap(model: Explained, batch: Batch) -> Maps:
    """Its draws one after the other: all at once would take that many times the memory."""
    from captum.attr import GradientShap

    total = torch.zeros_like(batch.main)
    for _ in range(batch.draws):
        total += GradientShap(model).attribute(
            batch.main, baselines=batch.pool, n_samples=1, additional_forward_args=batch.extra
        )
    return total / batch.draws, None


def _smooth_grad(model: Explained, batch: Batch) -> Maps:
    from captum.attr import NoiseTunnel, Saliency

    maps = NoiseTunnel(Saliency(model)).attribute(
        batch.main,
        nt_type="smoothgrad",
        nt_samples=batch.draws,
        nt_samples_batch_size=1,
        stdevs=batch.noise,
        abs=False,
        additional_forward_args=batch.extra,
    )
    return maps, None


def _deep_lift(model: Explained, batch: Batch) -> Maps:
    from captum.attr import DeepLift

    maps, delta = DeepLift(model).attribute(
        batch.main,
        baselines=batch.reference,
        additional_forward_args=batch.extra,
        return_convergence_delta=True,
    )
    return maps, delta


METHODS = (
    Method("integrated_gradients", "Integrated Gradients", _integrated_gradients, adds_up=True),
    Method("saliency", "Saliency", _saliency),
    Method("input_x_gradient", "Input × Gradient", _input_x_gradient),
    Method("gradient_shap", "GradientSHAP", _gradient_shap),
    Method("smooth_grad", "SmoothGrad", _smooth_grad),
    Method("deep_lift", "DeepLift", _deep_lift, adds_up=True, pliable=True),
)


def noise_of(main: Tensor) -> float:
    """SmoothGrad's noise: a tenth of the range in which 99 % of the values lie."""
    flat = main.reshape(-1)
    if len(flat) > 100_000:
        flat = flat[:: len(flat) // 100_000]
    low, high = np.quantile(flat.double().numpy(), [0.005, 0.995])
    return _NOISE * max(float(high - low), 1e-12)


def assert_deep_lift_applies(case: Case) -> None:
    """Refuse models that DeepLift cannot go back through.

    Raises:
        NotApplicable: an activation is used more than once in a pass, or attention and recurrent layers,
            whose products have no DeepLift rule, are there.
    """
    twin = pliable(case)
    calls = _calls_of_activations(case, twin)
    shared = next((name for name, count in calls.items() if count > 1), None)
    if shared is not None:
        raise NotApplicable(
            f"its module `{shared}` is used {calls[shared]} times in one pass, and DeepLift needs one module "
            "per use; Integrated Gradients stand in"
        )
    product = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
    other = next((n for n, m in twin.named_modules() if isinstance(m, product)), None)
    if other is not None:
        raise NotApplicable(
            f"there is no DeepLift rule for the products inside `{other}` "
            f"({type(twin.get_submodule(other)).__name__}); Integrated Gradients stand in"
        )


def _calls_of_activations(case: Case, model: nn.Module) -> dict[str, int]:
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR

    calls: dict[str, int] = {}
    for name, module in model.named_modules():
        if type(module) in SUPPORTED_NON_LINEAR:

            def count(*_: Any, name: str = name) -> None:
                calls[name] = calls.get(name, 0) + 1

            module.register_forward_hook(count)  # on a copy of ours
    with torch.no_grad():
        case.forward({k: v[:1] for k, v in case.samples.inputs.items()}, model)
    return calls
