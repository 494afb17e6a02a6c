"""The probes of one watcher, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable

import torch

from torchwatch.probe import Later, Probe
from torchwatch.probes import _torch
from torchwatch.probes.activations import ActivationProbe
from torchwatch.probes.attention import AttentionProbe
from torchwatch.probes.clipping import ClippingProbe
from torchwatch.probes.clock import ClockProbe
from torchwatch.probes.flops import FlopsProbe
from torchwatch.probes.gradients import GradientProbe
from torchwatch.probes.groups import GroupProbe
from torchwatch.probes.histograms import HistogramProbe
from torchwatch.probes.inputs import InputProbe
from torchwatch.probes.learning_rate import LearningRateProbe
from torchwatch.probes.loss import LossProbe
from torchwatch.probes.profiler import ProfilerProbe
from torchwatch.probes.scaling import ScalingProbe
from torchwatch.probes.sentinel import SentinelProbe
from torchwatch.probes.targets import TargetProbe
from torchwatch.probes.updates import UpdateProbe
from torchwatch.probes.weights import WeightProbe
from torchwatch.probes.wiring import WiringProbe

MOMENTS = (
    "next_step", "arm", "disarm", "model_starts", "module_starts", "module_ran", "layer_ran",
    "layer_ran_light", "model_ran", "trained", "backward_starts", "layer_gradient", "gradients",
    "before_step", "after_step", "forget",
)  # fmt: skip


Observing = Callable[[str], Callable[[Callable[..., None]], Callable[..., None]]]


class Crew:
    """All probes; the attachment knows some of them by name.

    Args:
        total_norm: told by torch of every total norm that clipping computes.
        skipped: told of every optimizer step that a ``GradScaler`` skips.
        observing: makes a probe's method an observer that functions of torch may call (see ``hooks``).
        host_time: seconds of a clock that stands still while torchwatch works.
        emit: takes records that are made in the recorder thread.
    """

    def __init__(
        self,
        total_norm: _torch.TotalNormObserver,
        skipped: Callable[[torch.optim.Optimizer], None],
        observing: Observing,
        host_time: Callable[[], float],
        emit: Callable[[Later], None],
    ) -> None:
        self.activations = ActivationProbe()
        self.wiring = WiringProbe()
        self.clipping = ClippingProbe(total_norm)
        self.loss = LossProbe()
        self.inputs = InputProbe()
        self.flops = FlopsProbe()
        self.profiler = ProfilerProbe(emit)
        self.sentinel = SentinelProbe()
        self.gradients = GradientProbe()
        self.all: tuple[Probe, ...] = (
            ClockProbe(host_time),
            self.gradients,
            ScalingProbe(skipped),
            self.clipping,
            LearningRateProbe(),
            GroupProbe(),
            UpdateProbe(),
            WeightProbe(),
            self.loss,
            self.inputs,
            TargetProbe(observing),
            self.wiring,
            self.sentinel,
            self.activations,
            AttentionProbe(observing),
            HistogramProbe(),
            self.flops,
            self.profiler,
        )


def overriding(probes: tuple[Probe, ...], moment: str) -> list[tuple[str, Callable[..., None]]]:
    """Names and methods of the probes that do something at a moment."""
    inherited = getattr(Probe, moment)
    probes = tuple(sorted(probes, key=lambda p: moment in p.asked_last))
    return [(p.name, getattr(p, moment)) for p in probes if getattr(type(p), moment) is not inherited]
