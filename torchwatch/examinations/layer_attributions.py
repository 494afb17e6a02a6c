"""Layer attributions: GradCAM of convolutions, conductance of units, attention rolled out to the input.

The layers are the first, a middle and the last one, or those named with ``target_layers``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.examinations._explained import Subject, pliable, seeded, subject
from torchwatch.examinations._layer_remarks import remarks_on
from torchwatch.examinations._profiles import Tally
from torchwatch.examinations._references import Reference, reference
from torchwatch.examinations._rollout import roll_out
from torchwatch.examinations._target_layers import Executed, axes_of_map
from torchwatch.examinations.case import OutOfTime
from torchwatch.examinations.chunks import in_chunks
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results.layer_attributions import Conductance, GradCam, LayerAttributions

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case

T = TypeVar("T")
_ROWS = 64
_STEPS = 20
"""Steps of the conductance; they telescope, so that few are enough."""
_CUT = "samples are cut into pieces before this layer, so that it does not see them whole"
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass
class _Work:
    case: Case
    subject: Subject
    reference: Reference
    model: nn.Module
    executed: Executed
    signed: bool
    total: int
    done: int = 0
    not_run: list[tuple[str, str]] = field(default_factory=list)


def examine(case: Case) -> LayerAttributions:
    """Look into the chosen layers.

    Raises:
        NotApplicable: there is no layer that could be looked into, or no gradient.
        ConfigError: a named layer does not exist.
    """
    chosen = subject(case, case.options.attribution_samples, "attributions")
    model = pliable(case)
    executed = Executed(chosen, model)
    named = case.options.target_layers
    convolutions, layers = executed.convolutions(named), executed.with_units(named)
    signed = case.task.name in ("regression", "binary")
    total = len(convolutions) + len(layers) + 1
    base = reference(chosen, case.options.ig_baseline)
    work = _Work(case, chosen, base, model, executed, signed, total)
    with seeded(case, "layer attributions"):
        cams = [_tried(work, f"GradCAM of `{n}`", partial(_gradcam, work, n)) for n in convolutions]
        flows = [_tried(work, f"Conductance of `{n}`", partial(_conductance, work, n)) for n in layers]
        rollout = _tried(work, "Attention rollout", lambda: roll_out(chosen, pliable(case)))
    if not convolutions:
        work.not_run.insert(0, ("GradCAM", "no convolution runs once in a forward pass"))
    if not layers:
        work.not_run.append(("Conductance", "no layer with weights runs once before the output layer"))
    result = LayerAttributions(
        explained=chosen.target.words,
        baseline=base.words,
        samples=len(chosen),
        signed=signed,
        gradcam=tuple(c for c in cams if c is not None),
        conductance=tuple(f for f in flows if f is not None),
        rollout=rollout,
        not_run=tuple(work.not_run),
        sample_rate=case.inputs.sample_rate,
    )
    if not (result.gradcam or result.conductance or result.rollout):
        raise NotApplicable("; ".join(f"{what}: {why}" for what, why in work.not_run))
    return remarks_on(result)


def _tried(work: _Work, what: str, run: Callable[[], T]) -> T | None:
    """What ``run`` gives; None, with the reason noted, where it could not."""
    work.case.progress(work.done, work.total)
    work.done += 1
    try:
        return run()
    except (NotApplicable, OutOfTime) as reason:
        work.not_run.append((what, str(reason)))
    except (RuntimeError, AssertionError, TypeError, ValueError, IndexError) as error:
        text = " ".join(str(error).split())[:200]
        work.not_run.append((what, f"it raised {type(error).__name__}: {text}"))
    return None


def _running_once(work: _Work, name: str) -> nn.Module:
    calls = work.executed.calls[name]
    if calls > 1:
        raise NotApplicable(
            f"it runs {calls} times in a pass, and what flows through each cannot be told apart"
        )
    return work.model.get_submodule(name)


def _gradcam(work: _Work, name: str) -> GradCam:
    from captum.attr import LayerAttribution, LayerGradCam

    case, layer = work.case, _running_once(work, name)
    main = case.samples.inputs[case.main]
    lengths = dict(zip(case.axes, main.shape[1:], strict=True))
    axes = axes_of_map(work.executed, name, lengths)
    resolution = work.executed.shapes[name][1][2:]
    tally: Tally | None = None

    def explain(start: int, end: int) -> Tensor:
        inputs, extra = work.subject.rows(slice(start, end))
        method = LayerGradCam(work.subject.model(work.model), layer)
        maps: Tensor = method.attribute(
            inputs, additional_forward_args=extra, relu_attributions=not work.signed
        )
        if len(maps) != end - start:
            raise NotApplicable(
                "samples are cut into pieces before this layer, so that its maps are not theirs"
            )
        if axes is not None:
            sizes = tuple(lengths[a] for a in axes)
            maps = LayerAttribution.interpolate(maps, sizes, interpolate_mode=_MODES[len(axes)])
        return maps.squeeze(1)

    own = tuple(f"map axis {i}" for i in range(len(resolution)))
    for _, _, maps in in_chunks(explain, len(work.subject), min(_ROWS, case.options.chunk)):
        tally = tally or Tally(axes or own, case.names_along)
        tally.add(maps)
    assert tally is not None
    if not tally.finite:
        raise NotApplicable("its map is NaN or infinite")
    return GradCam(
        name, type(layer).__name__, tuple(resolution), axes or own, tally.profiles(), tally.overview()
    )


def _conductance(work: _Work, name: str) -> Conductance:
    from captum.attr import LayerConductance

    layer = _running_once(work, name)
    unit_axis = -1 if isinstance(layer, nn.Linear) else 1
    explained = work.subject.model(work.model)
    flows: list[Tensor] = []
    changes: list[Tensor] = []

    def explain(start: int, end: int) -> tuple[Tensor, Tensor]:
        rows = slice(start, end)
        inputs, extra = work.subject.rows(rows)
        base = work.reference.values[rows].to(inputs.device)
        flow = LayerConductance(explained, layer).attribute(
            inputs, baselines=base, additional_forward_args=extra, n_steps=_STEPS,
            method="riemann_trapezoid", internal_batch_size=2 * len(inputs),
        )  # fmt: skip
        flow = flow[0] if isinstance(flow, tuple) else flow
        if len(flow) != end - start:
            raise NotApplicable(
                "samples are cut into pieces before this layer, so that its units are not theirs"
            )
        with torch.no_grad():
            change = explained(inputs, *extra) - explained(base, *extra)
        per_unit = flow.detach().double().movedim(unit_axis, 1).reshape(len(flow), flow.shape[unit_axis], -1)
        return per_unit.sum(2).cpu(), change.double().cpu()

    for _, _, (flow, change) in in_chunks(explain, len(work.subject), min(_ROWS, work.case.options.chunk)):
        flows.append(flow)
        changes.append(change)
    return _of_units(name, type(layer).__name__, torch.cat(flows), torch.cat(changes))


def _of_units(name: str, kind: str, each: Tensor, change: Tensor) -> Conductance:
    if not bool(torch.isfinite(each).all()):
        raise NotApplicable("its conductance is NaN or infinite")
    magnitude = each.abs().mean(0).numpy()
    moved = float(change.abs().mean())
    along = float(
        (each.sum(1) * change.sign()).mean()
    )  # signs differ between samples: shares must not cancel
    return Conductance(
        layer=name,
        kind=kind,
        flow=each.mean(0).numpy(),
        magnitude=magnitude,
        ranking=tuple(int(i) for i in np.argsort(-magnitude, kind="stable")),
        silent=int((magnitude == 0).sum()),
        share=along / moved if moved > 0 else math.nan,
    )


EXAMINATION = Examination(
    title="Layer attributions",
    examine=examine,
    tells="where in the model the output is made: maps of convolutions, units that carry it, attention",
)
