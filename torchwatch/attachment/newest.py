"""The newest step of the fast lane as a record of its own: what there still is of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from torchwatch.patient import Patient
from torchwatch.probe import Block, Frame
from torchwatch.probes.loss import Logged
from torchwatch.schedule import Plan


def frame_of(newest: Block, *, gradients: bool, sentinel: bool) -> tuple[Frame, list[Logged]]:
    """The frame of a block of one step, and what was logged in it; arguments as in its plan."""
    plan = Plan(newest.first, gradients=gradients, sampled=False, rare=False, sentinel=sentinel)
    frame = Frame(plan, epoch=newest.epoch)
    frame.started_s, frame.ended_s = newest.started_s, newest.ends[0]
    for _, wait_s, samples in newest.fetched:
        frame.wait_s = frame.wait_s if wait_s is None else wait_s
        if samples is not None:
            frame.fields["samples"] = samples
    rates = newest.rates[-1][1]
    frame.put("learning_rate", [(frame.defer(r),) if isinstance(r, torch.Tensor) else r for r in rates])
    return frame, [(name, "log", value) for _, name, value in newest.logged]


def gradients_stand(patient: Patient, held: Iterable[int]) -> bool:
    """Whether the gradients of the last step are still there, where that can be asked without waiting.

    The host may have zeroed them since; gradients that are zero in every element tell nothing then.
    """
    for index in held:
        parameter = patient.parameters[index]()
        gradient = None if parameter is None else parameter.grad
        if gradient is None:
            continue
        if gradient.device.type != "cpu" or gradient.layout is not torch.strided:
            return False
        if gradient.any():
            return True
    return False
