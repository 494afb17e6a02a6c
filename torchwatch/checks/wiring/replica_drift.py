"""Ranks that should hold the same model do not.

What it detects
    The files of a data-parallel run, at the steps that all ranks measured. Either the gradients of (almost)
    all parameters differ between ranks, so that nobody averages them and every rank trains a model of its
    own; or a parameter has the same gradients everywhere (it is a replica) and other weights. There are no
    checksums of weights in the records: norms with four digits stand in for them, so that a drift below 0.2 %
    of a norm is not seen.

Why it matters
    What is saved by rank 0 is not what the others trained, and all but one rank's computing may be wasted.
    Nothing raises: the losses look healthy on every rank.

What to do
    Wrap the model with ``DistributedDataParallel`` and call the wrapper, not ``model.module``. Make the
    optimizer after wrapping. Where gradients are averaged by hand, broadcast the weights once at the start,
    or seed all ranks alike.

When it is fine
    Local SGD and federated training average weights now and then, an ensemble that was started with a
    launcher never: ignore this check there. Parameters that are spread over ranks (FSDP, tensor and expert
    parallel) are left out, and pipelines, whose ranks hold different layers, cannot be compared.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Scope, Severity
from torchwatch.run.shards import SHARDS_ONLY, shard_counts
from torchwatch.text import number, percent, printable

if TYPE_CHECKING:
    from torchwatch.records import Layout
    from torchwatch.run import Run

_SPREAD_MODELS = ("FullyShardedDataParallel", "DeepSpeedEngine")
_FSDP_NAMES = ("_fsdp", "_flat_param")


@dataclass(frozen=True)
class Limits:
    """When ranks differ.

    Attributes:
        gradients: difference of a parameter's gradient norms between ranks that counts as another gradient
            (share of the largest).
        weights: difference of a parameter's weight norms between ranks that counts as another weight (share
            of the largest); norms are rounded to 0.05 %.
        steps: least steps that all ranks measured, and at which it must be so (steps).
        parameters: share of the parameters whose gradients must differ to say that none is averaged (share).
    """

    gradients: float = 0.01
    weights: float = 0.002
    steps: int = 3
    parameters: float = 0.9


class _Norms(NamedTuple):
    """A column of all ranks at the steps that all measured: (steps,) and (steps, ranks, parameters)."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


def find(run: Run, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about all ranks."""
    layouts = [rank.layout for rank in run.ranks if rank.layout is not None]
    if len(layouts) < len(run.ranks):
        return NotReady("a rank's file has no layout")
    names = [p.name for p in layouts[0].parameters]
    if any([p.name for p in layout.parameters] != names for layout in layouts):
        return NotReady("the ranks hold different parameters")
    whole = _whole(run, layouts)
    if not whole.any():
        return NotReady("every parameter is spread over the ranks, or stepped by one of them only")
    gradients, weights = _norms(run, "grad_norms", names), _norms(run, "weight_norms", names)
    if len(gradients.steps) < max(1, limits.steps):
        return NotReady(f"needs {limits.steps} steps at which all ranks measured gradients")
    apart = _differs(gradients, limits.gradients)
    seen = whole & _measured(gradients).any(axis=0)
    always = apart.sum(axis=0) >= max(limits.steps, len(apart) / 2)
    if seen.any() and always[seen].mean() >= limits.parameters:
        return [_not_averaged(gradients, apart, seen)]
    replicas = seen & ~_differs(gradients, limits.weights).any(axis=0)
    drifted = _differs(weights, limits.weights)
    lasting = replicas & (drifted.sum(axis=0) >= limits.steps)
    if not lasting.any() or not drifted[-1, lasting].any():
        return []
    return [_drifted(weights, drifted, lasting, names, limits)]


def _whole(run: Run, layouts: list[Layout]) -> npt.NDArray[np.bool_]:
    """Which parameters every rank holds as a whole, and steps. Shape (parameters,)."""
    first = layouts[0]
    held = np.ones(len(first.parameters), np.bool_)
    for rank, layout in zip(run.ranks, layouts, strict=True):
        spread = shard_counts(rank.header, layout) > 1
        if SHARDS_ONLY in layout.coverage.get("gradients", "") and not rank.header.device.get("shards"):
            spread[:] = True
        stepped = [p.trainable and p.optimizer is not None for p in layout.parameters]
        held &= ~spread & np.array(stepped, np.bool_)
    wrapped = run.header.model in _SPREAD_MODELS or any(x.type in _SPREAD_MODELS for x in first.layers)
    if wrapped or any(word in p.name for p in first.parameters for word in _FSDP_NAMES):
        held[:] = False
    return held


def _norms(run: Run, column: str, names: list[str]) -> _Norms:
    """The column under layouts of these names, at the steps that all ranks measured."""
    tables = [_table(rank, column, names) for rank in run.ranks]
    common = functools.reduce(np.intersect1d, (steps for steps, _ in tables))
    return _Norms(common, np.stack([values[np.isin(steps, common)] for steps, values in tables], axis=1))


def _table(rank: Run, column: str, names: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """A rank's observations of a column, each step once."""
    known = rank.column_segments(column)
    segments = [s for s in known if [p.name for p in s.layout.parameters] == names]
    steps = np.concatenate([np.zeros(0, np.int64), *(s.steps for s in segments)])
    values = np.concatenate([np.zeros((0, len(names)), np.float32), *(s.values for s in segments)])
    steps, first = np.unique(steps, return_index=True)
    return steps, values[first]


def _measured(norms: _Norms) -> npt.NDArray[np.bool_]:
    """Where all ranks have a finite number and one of them is not 0. Shape (steps, parameters)."""
    return np.asarray(np.isfinite(norms.values).all(axis=1) & (norms.values > 0).any(axis=1), np.bool_)


def _differs(norms: _Norms, share: float) -> npt.NDArray[np.bool_]:
    """Where the ranks' norms are further apart than a share of the largest. Shape (steps, parameters)."""
    if not norms.values.size:
        return np.zeros((len(norms.steps), norms.values.shape[2]), np.bool_)
    high, low = norms.values.max(axis=1), norms.values.min(axis=1)
    return np.asarray(_measured(norms) & (high - low > share * high), np.bool_)


def _not_averaged(gradients: _Norms, apart: npt.NDArray[np.bool_], seen: npt.NDArray[np.bool_]) -> Finding:
    share = float(apart[:, seen].mean())
    since = int(gradients.steps[apart[:, seen].any(axis=1).argmax()])
    return Finding(
        title="Gradients are not averaged between ranks: each trains a model of its own",
        since_step=since,
        detail=f"At {len(gradients.steps)} steps that all ranks measured, the norms of {percent(share)} of "
        "the parameters' gradients differ between them.",
        metric="grad_norms",
        value=share,
        threshold=0.0,
    )


def _drifted(
    weights: _Norms,
    drifted: npt.NDArray[np.bool_],
    lasting: npt.NDArray[np.bool_],
    names: list[str],
    limits: Limits,
) -> Finding:
    last = weights.values[-1].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.where(lasting & drifted[-1], 1 - last.min(axis=0) / last.max(axis=0), 0.0)
    worst = int(gap.argmax())
    norms = ", ".join(number(float(v)) for v in last[:8, worst])
    return Finding(
        title=f"The ranks' weights differ: {int(lasting.sum())} parameters are not the same on all of them",
        since_step=int(weights.steps[drifted[:, lasting].any(axis=1).argmax()]),
        detail=f"Their gradients are the same everywhere. {printable(names[worst], 80)} has the norms "
        f"{norms} on the ranks at step {int(weights.steps[-1])}.",
        metric="weight_norms",
        value=float(gap[worst]),
        threshold=limits.weights,
    )


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.END}),
    reads=("grad_norms",),
    uses=("weight_norms",),
    scope=Scope.RUN,
    limits=Limits(),
    find=find,
    fix="Wrap the model with DistributedDataParallel, call the wrapper, start all from the same weights.",
    snippet="model = torch.nn.parallel.DistributedDataParallel(model.to(device), device_ids=[local_rank])",
)
