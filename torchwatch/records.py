"""Every kind of line in a run file, and how it becomes bytes and back.

A record is a frozen dataclass; its fields are the keys of one JSON line. Fields named ``*_s``, ``*_bytes``,
``*_w`` carry that unit. A field that was not measured is ``None`` and is left out of the line.

**Columns** are float32 arrays with one entry per parameter (``grad_norms``, ``update_ratios``,
``weight_norms``) or per layer (``activations.*``) of the latest :class:`Layout`. An entry that was not
measured holds :data:`MISSING`, a NaN with a payload of its own (the idea of R's ``NA_real_``); every other
NaN or infinity *was* measured. Use :func:`is_missing` and :func:`is_bad` to tell them apart.

In the file a column's entries have four significant digits (:func:`torchwatch.codec.rounded` is applied
before checks see a step, so that live equals replay; exact zeros, NaN, infinities and MISSING stay what they
are), and a column that says the same in every entry is ``{"n": 150, "all": 0}``.

**Many steps in one line**: see :class:`Steps`, and :mod:`torchwatch.codec.steps` for how it is written.

**Strict JSON**: a non-finite number is written as ``null`` and the line's ``nonfinite`` map says which it was
(``{"loss": "nan", "grad_norms.3": "inf"}``, or ``{"grad_norms": "nan"}`` for all entries of a column);
decoding restores it. :mod:`torchwatch.codec` has the rules.

Adding fields or kinds keeps :data:`SCHEMA`; unknown fields are ignored, unknown kinds become
:class:`Unknown`. This docstring is longer than its file's functions because the file is the format's only
description in code.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import orjson

from torchwatch import codec
from torchwatch.errors import NewerSchema, NotARunFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = 1

Column = codec.Column
MISSING = codec.MISSING
is_missing = codec.is_missing
is_bad = codec.is_bad
missing_column = codec.missing_column


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer: a leaf module, or a module that owns parameters itself.

    ``name`` is its dotted path ("" is the model itself), ``order`` its place in the first forward pass (None:
    never called), ``inputs``/``outputs`` the shapes of that pass, batch axis first. ``attributes`` are plain
    numbers and words such as ``in_features``. ``watched`` is False where its activations cannot be measured.
    """

    name: str
    type: str
    parameters: int = 0
    trainable: bool = True
    order: int | None = None
    inputs: list[list[int]] = field(default_factory=list)
    outputs: list[list[int]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    watched: bool = True


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One parameter: its name, the index of its layer, and where it is optimised.

    ``optimizer`` and ``group`` index ``Layout.optimizers`` and its groups; None: in no optimizer seen so far.
    """

    name: str
    layer: int
    shape: list[int]
    dtype: str
    trainable: bool = True
    optimizer: int | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class OptimizerInfo:
    """One optimizer that stepped watched parameters; ``groups`` hold its plain options (lr, momentum …)."""

    type: str
    groups: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Record:
    """What all records share: ``kind`` is the line's first key."""

    kind: ClassVar[str] = ""
    keep_none: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class RunHeader(Record):
    """First line. ``time`` is ISO 8601 with zone; ``limits`` are those of every check in force.

    ``software`` maps package to version, ``device`` describes the machine, ``recipe`` is
    ``file.py:function``.
    """

    kind: ClassVar[str] = "run"
    schema: int = SCHEMA
    run_id: str = ""
    name: str = ""
    time: str = ""
    torchwatch: str = ""
    rank: int = 0
    world: int = 1
    pid: int = 0
    model: str = ""
    parameters: int = 0
    software: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignore: list[str] = field(default_factory=list)
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class Layout(Record):
    """What columns refer to, until the next layout.

    ``coverage`` maps what is measured ("activations", "gradients", "loss" …) to "ok" or to the reason why
    not. ``other_optimizers`` are the classes of optimizers without any of these parameters that step again
    and again between this model's steps (the critic of a watched generator).

    ``flops_per_step`` counts the arithmetic of one step, forward and backward pass:
    :mod:`torchwatch.probes.flops` says what of it was measured. ``peak_flops_per_s`` is what the devices
    that hold the model could do together in the precisions that it uses, None where that is not known.
    """

    kind: ClassVar[str] = "layout"
    step: int = 0
    layers: list[LayerInfo] = field(default_factory=list)
    parameters: list[ParameterInfo] = field(default_factory=list)
    optimizers: list[OptimizerInfo] = field(default_factory=list)
    coverage: dict[str, str] = field(default_factory=dict)
    other_optimizers: list[str] = field(default_factory=list)
    flops_per_step: float | None = None
    peak_flops_per_s: float | None = None

    @property
    def several_optimizers(self) -> bool:
        """Whether more than one optimizer takes turns, of this model or beside it."""
        return len(self.optimizers) + len(self.other_optimizers) > 1


@dataclass(frozen=True, slots=True)
class Step(Record):
    """One optimisation step. ``time_s`` counts from the start of the run; ``epoch`` from 0.

    ``loss`` is the mean of what was logged in the step, ``loss_source`` one of ``log``, ``module``,
    ``output``. ``lr`` is per parameter group, all optimizers in the layout's order. ``grad_norm`` is the
    global L2 norm as the optimizer sees it, ``grad_norm_preclip`` the one before clipping (only when clipping
    was observed). ``update_ratio`` is ‖Δw‖/‖w‖ over all parameters, estimated from a fixed scattered slice of
    each (in full on some rarely sampled steps): exactly 0 means that no weight that was read has changed,
    infinite that the step left one non-finite, NaN that one was so before. ``stale_gradients`` is None where
    it was not watched.
    ``wait_time_s`` is time spent waiting for data (only with ``watch.batches``); ``watch_time_s`` what
    torchwatch itself took in the training thread.

    ``grad_scale`` is the GradScaler's factor. On sampled steps: ``momentum`` and ``weight_decay`` per group
    (Adam's β₁ is its momentum), ``forward_s``, ``backward_s`` and ``optimizer_s`` (the parts of the step,
    ours taken out), ``tokens`` (entries of integer inputs with a sequence axis).

    ``fingerprint`` is a hash of the model's inputs, equal for equal batches (8 hex digits). ``inputs`` and
    ``targets`` describe them: :mod:`torchwatch.probes.inputs` has their keys. ``wiring`` says what was seen
    of the silent mistakes, :mod:`torchwatch.probes.wiring` has its keys. ``first_nonfinite`` names where the
    first NaN or infinity appeared, on steps whose loss, gradients or weights are not finite: ``where``
    (``input``; ``forward``; ``loss``, the loss function; ``backward``; ``optimizer``, its step;
    ``parameter``, a weight that was not finite before the step), ``name`` (of the layer, "" the model's own
    code; of the parameter; of the input as in ``inputs``, or ``batch.0`` where only the loader's batch was
    seen), ``order`` (the layer's place in call order, else None) and ``seen_by`` (``statistics`` of a sampled
    step, or the ``sentinel`` that sums outputs). Where it is missing on such a step, this step was not
    watched closely enough.

    Columns, where due; per parameter ``grad_norms`` (L2), ``update_ratios`` (as ``update_ratio``),
    ``weight_norms`` (L2) and on sampled steps ``grad_absmax``, ``grad_nonfinite`` and ``weight_nonfinite``
    (counts; off the CPU 1 stands for "some"), ``weight_zero_fraction`` (share of entries with
    abs(w) ≤ 1e-6 of the rms, on some rarely sampled steps). Per layer ``activations[statistic]``:
    :data:`torchwatch.probes.activations.STATISTICS` names and explains them.
    """

    kind: ClassVar[str] = "step"
    step: int = 0
    epoch: int | None = None
    time_s: float = 0.0
    loss: float | None = None
    loss_source: str | None = None
    lr: list[float] | None = None
    samples: int | None = None
    step_time_s: float | None = None
    wait_time_s: float | None = None
    grad_norm: float | None = None
    grad_norm_preclip: float | None = None
    clipped: bool | None = None
    update_ratio: float | None = None
    grad_scale: float | None = None
    skipped: bool | None = None
    foreign_optimizer: bool | None = None
    stale_gradients: bool | None = None
    metrics: dict[str, float | None] | None = None
    watch_time_s: float | None = None
    momentum: list[float] | None = None
    weight_decay: list[float] | None = None
    forward_s: float | None = None
    backward_s: float | None = None
    optimizer_s: float | None = None
    tokens: int | None = None
    fingerprint: str | None = None
    inputs: dict[str, Any] | None = None
    targets: dict[str, Any] | None = None
    wiring: dict[str, Any] | None = None
    first_nonfinite: dict[str, Any] | None = None
    grad_norms: Column | None = None
    update_ratios: Column | None = None
    weight_norms: Column | None = None
    grad_absmax: Column | None = None
    grad_nonfinite: Column | None = None
    weight_zero_fraction: Column | None = None
    weight_nonfinite: Column | None = None
    activations: dict[str, Column] | None = None


STEP_COLUMNS = (
    "grad_norms",
    "update_ratios",
    "weight_norms",
    "grad_absmax",
    "grad_nonfinite",
    "weight_zero_fraction",
    "weight_nonfinite",
    "activations",
)
STEP_SCALARS = tuple(f.name for f in dataclasses.fields(Step) if f.name not in STEP_COLUMNS)
STEP_NUMBERS = tuple(
    n
    for n in STEP_SCALARS
    if n not in ("step", "loss_source", "lr", "momentum", "weight_decay", "metrics", "fingerprint")
    and n not in ("inputs", "targets", "wiring", "first_nonfinite")
)
"""Fields of a step that are one number or truth value."""


Numbers = list[float | None] | npt.NDArray[np.float64]
"""A float of several steps: an array where every step measured it, else a list with None in it."""


@dataclass(frozen=True, slots=True)
class Steps(Record):
    """Consecutive fast steps in one line: every scalar of :class:`Step` as a list with one entry per step.

    A scalar that no step measured is left out; None stands where one step did not measure it. Floats that
    every step measured are float64 arrays, in a record that was read or :func:`batch` made. ``metrics`` maps
    a name to such numbers. ``columns`` maps an index into these lists (as text) to that step's columns.

    In the file consecutive step numbers are ``step``, the first, and ``count``; the map ``same`` holds the
    scalars that are the same at every step; ``time_s`` is the first step's time alone where each step began
    when the one before ended (the others follow from ``step_time_s``); a scalar that most steps did not
    measure is a map from index to value.
    """

    kind: ClassVar[str] = "steps"
    step: list[int] = field(default_factory=list)
    epoch: list[int | None] | None = None
    time_s: Numbers | None = None
    loss: Numbers | None = None
    loss_source: list[str | None] | None = None
    lr: list[list[float] | None] | None = None
    samples: list[int | None] | None = None
    step_time_s: Numbers | None = None
    wait_time_s: Numbers | None = None
    grad_norm: Numbers | None = None
    grad_norm_preclip: Numbers | None = None
    clipped: list[bool | None] | None = None
    update_ratio: Numbers | None = None
    grad_scale: Numbers | None = None
    skipped: list[bool | None] | None = None
    foreign_optimizer: list[bool | None] | None = None
    stale_gradients: list[bool | None] | None = None
    metrics: dict[str, Numbers] | None = None
    watch_time_s: Numbers | None = None
    momentum: list[list[float] | None] | None = None
    weight_decay: list[list[float] | None] | None = None
    forward_s: Numbers | None = None
    backward_s: Numbers | None = None
    optimizer_s: Numbers | None = None
    tokens: list[int | None] | None = None
    fingerprint: list[str | None] | None = None
    inputs: list[dict[str, Any] | None] | None = None
    targets: list[dict[str, Any] | None] | None = None
    wiring: list[dict[str, Any] | None] | None = None
    first_nonfinite: list[dict[str, Any] | None] | None = None
    columns: dict[str, StepColumns] | None = None


@dataclass(frozen=True, slots=True)
class StepColumns:
    """The columns of one step inside a :class:`Steps` line; fields as in :class:`Step`."""

    grad_norms: Column | None = None
    update_ratios: Column | None = None
    weight_norms: Column | None = None
    grad_absmax: Column | None = None
    grad_nonfinite: Column | None = None
    weight_zero_fraction: Column | None = None
    weight_nonfinite: Column | None = None
    activations: dict[str, Column] | None = None


@dataclass(frozen=True, slots=True)
class Interval(Record):
    """A stretch of steps: until the end of an epoch or ``interval_steps`` steps, whichever comes first.

    ``closed_by`` is ``epoch``, ``steps`` or ``end``. ``duration_s`` is wall time, ``busy_s`` the sum of its
    step times, waiting included and evaluation not; throughputs are over ``busy_s``. Memory is read when
    the interval closes. ``wait_share`` is waiting for data over ``busy_s``. ``watch_share`` is what
    watching cost over the time of the steps: training thread, calibrated by comparing steps that were
    sampled with those beside them, plus recorder thread CPU time; ``watch_share_error`` is one standard
    error of it, from the calibration. The first ``dense_steps`` steps of a run are in neither (see
    :class:`End`). ``gradients_every`` and ``activations_every`` are what the budget settled on,
    ``sentinel`` whether outputs were summed on every step in search of the first NaN, ``zoomed_steps`` how
    many steps a warning had measured in full. ``dropped`` counts step details lost under pressure.

    ``forward_share``, ``backward_share`` and ``optimizer_share`` are of the host's own time (``watch_time_s``
    taken out) in the steps that were sampled; so is ``tokens_per_s``. ``flops_per_s`` counts the model's
    arithmetic over ``busy_s``, ``mfu`` is its share of the devices' peak. ``uss_bytes`` is the last reading,
    ``alloc_retries`` counts the CUDA allocator's retries in the interval.

    Energy: ``energy_j`` of the whole interval, evaluation included, ``energy_source`` ``measured`` (every
    part was metered), ``mixed`` or ``estimated``, ``energy_parts`` joules and source per part (gpu, cpu,
    ram), ``co2_kg`` with the factor of the configured country. Intervals that close in the first six seconds
    have none of it; what they used is in the end record all the same.
    """

    kind: ClassVar[str] = "interval"
    index: int = 0
    first_step: int = 0
    last_step: int = 0
    steps: int = 0
    epoch: int | None = None
    time_s: float = 0.0
    closed_by: str = "steps"
    duration_s: float = 0.0
    busy_s: float | None = None
    loss_mean: float | None = None
    loss_std: float | None = None
    loss_min: float | None = None
    loss_max: float | None = None
    lr_max: float | None = None
    grad_norm_median: float | None = None
    update_ratio_median: float | None = None
    samples: int | None = None
    steps_per_s: float | None = None
    samples_per_s: float | None = None
    step_time_median_s: float | None = None
    wait_share: float | None = None
    rss_bytes: int | None = None
    cuda_allocated_bytes: int | None = None
    cuda_reserved_bytes: int | None = None
    cpu_percent: float | None = None
    watch_share: float | None = None
    watch_share_error: float | None = None
    dropped: int = 0
    thinned: str | None = None
    tokens_per_s: float | None = None
    forward_share: float | None = None
    backward_share: float | None = None
    optimizer_share: float | None = None
    flops_per_s: float | None = None
    mfu: float | None = None
    uss_bytes: int | None = None
    cuda_peak_bytes: int | None = None
    alloc_retries: int | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    energy_parts: dict[str, Any] | None = None
    joules_per_step: float | None = None
    joules_per_sample: float | None = None
    co2_kg: float | None = None
    gradients_every: int | None = None
    activations_every: int | None = None
    sentinel: bool | None = None
    zoomed_steps: int | None = None

    @property
    def length(self) -> int:
        """Step numbers from the first to the last: more than ``steps`` where a log has every tenth only."""
        return max(self.last_step - self.first_step + 1, self.steps)


@dataclass(frozen=True, slots=True)
class Epoch(Record):
    """End of epoch ``epoch`` (from 0): aggregate of its intervals plus what ``watch.epoch`` was given."""

    kind: ClassVar[str] = "epoch"
    epoch: int = 0
    step: int = 0
    steps: int = 0
    time_s: float = 0.0
    duration_s: float = 0.0
    loss_mean: float | None = None
    samples: int | None = None
    samples_per_s: float | None = None
    wait_share: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Eval(Record):
    """One evaluation: the metrics whose names begin with ``val_``, ``valid_``, ``eval_`` or ``test_``."""

    kind: ClassVar[str] = "eval"
    step: int = 0
    epoch: int | None = None
    time_s: float = 0.0
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class System(Record):
    """About once a second. ``since_step_s``: time since the last recorded step ended, None before the first.

    Memory (resident, and unique to the process) and CPU share are those of the training process; CUDA memory
    is PyTorch's allocator's, all devices. ``machine_cpu_percent`` is of all cores together, 0 to 100; disk
    and network counts are the machine's since the record before. ``gpus``: one map per GPU with
    :mod:`torchwatch.recorder.gpus`'s keys. ``stack`` is a digest of the main thread's stack, 8 hex digits.
    """

    kind: ClassVar[str] = "system"
    time_s: float = 0.0
    step: int = 0
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    cuda_allocated_bytes: int | None = None
    cuda_reserved_bytes: int | None = None
    since_step_s: float | None = None
    uss_bytes: int | None = None
    cuda_peak_bytes: int | None = None
    mps_allocated_bytes: int | None = None
    machine_cpu_percent: float | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    net_sent_bytes: int | None = None
    net_received_bytes: int | None = None
    gpus: list[dict[str, Any]] | None = None
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class Profile(Record):
    """One profiler window: per-layer self times and operator categories, as plain JSON."""

    kind: ClassVar[str] = "profile"
    step: int = 0
    time_s: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attention(Record):
    """Attention statistics per head of one sampled step, as plain JSON."""

    kind: ClassVar[str] = "attention"
    step: int = 0
    time_s: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Histogram(Record):
    """Histograms of one sampled step (opt-in): ``data[what][name]`` has ``edges`` and ``counts``.

    ``what`` is ``gradients`` (name: parameter) or ``activations`` (name: layer); edges are signed powers of
    two, in ascending order, one more than counts.
    """

    kind: ClassVar[str] = "histogram"
    step: int = 0
    time_s: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Log(Record):
    """A message logged, warned or raised by the host while it was watched. ``level`` as in ``logging``."""

    kind: ClassVar[str] = "log"
    step: int = 0
    time_s: float = 0.0
    level: str = "WARNING"
    source: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Alert(Record):
    """An issue opening, changing or resolving. Every key is in the line, null where it does not apply."""

    kind: ClassVar[str] = "alert"
    keep_none: ClassVar[bool] = True
    state: str = "opened"
    check: str = ""
    severity: str = "info"
    category: str = ""
    title: str = ""
    detail: str = ""
    step: int = 0
    epoch: int | None = None
    layer: str | None = None
    metric: str | None = None
    value: float | None = None
    threshold: float | None = None
    fix: str = ""
    snippet: str | None = None
    count: int = 1
    since_step: int = 0
    last_step: int = 0
    worst: float | None = None
    incident: int = 0
    root: bool = False
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Note(Record):
    """Something torchwatch says about itself: a collector switched off, a loss not seen, a file renamed."""

    kind: ClassVar[str] = "note"
    step: int = 0
    time_s: float = 0.0
    topic: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Blackbox(Record):
    """The last measured steps in full, written at a critical alert or when an exception ends the body."""

    kind: ClassVar[str] = "blackbox"
    step: int = 0
    time_s: float = 0.0
    reason: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class End(Record):
    """Last line. ``status``: ``finished``, ``interrupted`` or ``crashed`` (then ``error`` and ``traceback``).

    ``sinks``: by name, what the sinks that deliver in a thread of their own have ``delivered`` and what not
    (``undelivered``) when this line was written.

    ``complete`` is False when lines were lost (disk full, file deleted, recorder overrun): ``dropped`` says
    how many step details and ``lost_lines`` how many lines. ``watch_share`` and its error are measured as
    in :class:`Interval`, over the whole run but its first ``dense_steps`` steps; what watching cost in
    those, and in loading what is used later, is ``watch_start_s``. Energy and CO2 are those of the whole
    run (None in one of less than five seconds), for the grid of ``country``: three letters, or ``world``.
    """

    kind: ClassVar[str] = "end"
    status: str = "finished"
    step: int = 0
    steps: int = 0
    epochs: int = 0
    time_s: float = 0.0
    samples: int | None = None
    health_score: int | None = None
    issues: dict[str, int] = field(default_factory=dict)
    watch_share: float | None = None
    watch_share_error: float | None = None
    watch_start_s: float | None = None
    energy_kwh: float | None = None
    energy_source: str | None = None
    co2_kg: float | None = None
    country: str | None = None
    zoomed_steps: int | None = None
    complete: bool = True
    dropped: int = 0
    lost_lines: int = 0
    error: str | None = None
    traceback: str | None = None
    sinks: dict[str, dict[str, int]] | None = None


@dataclass(frozen=True, slots=True)
class Unknown(Record):
    """A line of a kind that this version does not know, kept raw."""

    name: str = ""
    data: dict[str, Any] = field(default_factory=dict)


KINDS: Mapping[str, type[Record]] = {
    cls.kind: cls
    for cls in (
        RunHeader, Layout, Step, Steps, Interval, Epoch, Eval, System, Profile, Attention, Histogram, Log,
        Alert, Note, Blackbox, End,
    )
}  # fmt: skip

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def encode(record: Record) -> bytes:
    """One line of strict JSON, newline included. Never fails: :mod:`torchwatch.codec` says what it bends."""
    found = codec.Nonfinite()
    if isinstance(record, Unknown):
        body = {**codec.map_to_json(record.data, found, ""), "kind": record.name}
    elif isinstance(record, Steps):
        body = {"kind": record.kind, **codec.steps_to_json(record, found)}
    else:
        body = {"kind": record.kind, **codec.fields_to_json(record, found, keep_none=record.keep_none)}
    words = found.words()
    if words:
        body["nonfinite"] = words
    try:
        return orjson.dumps(body, option=_OPTIONS)
    except TypeError:
        return orjson.dumps(codec.mended(body), option=_OPTIONS)


def decode(line: bytes | str) -> Record:
    """The record of one line.

    Raises:
        ValueError: the line is not one JSON object with a ``kind``, or a field that this version knows has a
            value of another type than it should have: such a line counts as torn.
    """
    body = orjson.loads(line)
    if type(body) is not dict or type(body.get("kind")) is not str:
        raise ValueError("not a record: no `kind`")
    kind = body.pop("kind")
    if "nonfinite" in body:
        codec.restore(body, body.pop("nonfinite"))
    cls = KINDS.get(kind)
    if cls is None:
        return Unknown(name=kind, data=body)
    if cls is Steps:
        return _decode_steps(body)
    record = typing.cast("Record", codec.build(cls, body))
    if isinstance(record, Layout):
        _require_known(record)
    return record


def _decode_steps(body: dict[str, Any]) -> Steps:
    known = codec.steps_from_json(body, _ENTRIES)
    return Steps(**known, columns=codec.build(_StepsColumns, body).columns)


def decode_header(line: bytes | str) -> RunHeader:
    """The header in a file's first line.

    Raises:
        NotARunFile: the line is not a torchwatch run header.
        NewerSchema: it was written with a newer schema.
    """
    try:
        body = orjson.loads(line)
    except ValueError:
        body = None
    if not isinstance(body, dict) or body.get("kind") != RunHeader.kind:
        raise NotARunFile("its first line is not a torchwatch run header")
    schema = body.get("schema")
    if type(schema) is not int or schema < 1:
        raise NotARunFile(f"its header names schema {schema!r:.40}, which is not a schema number")
    if schema > SCHEMA:
        raise NewerSchema(
            f"it was written with schema {schema}, and this torchwatch reads up to schema {SCHEMA}: "
            "upgrade torchwatch-monitor"
        )
    try:
        return typing.cast("RunHeader", decode(line))
    except ValueError as error:
        raise NotARunFile(f"its header is damaged ({error})") from error


def _require_known(record: Layout) -> None:
    """Raises ValueError unless every parameter's layer, optimizer and group exist."""
    groups = [len(o.groups) for o in record.optimizers]
    for p in record.parameters:
        optimizer = 0 if p.optimizer is None else p.optimizer
        known = p.optimizer is None or 0 <= optimizer < len(groups)
        if not known or not 0 <= p.layer < len(record.layers):
            raise ValueError(f"Layout: {p.name!r:.80} belongs to a layer or optimizer that is not listed")
        if p.optimizer is not None and p.group is not None and not 0 <= p.group < groups[optimizer]:
            raise ValueError(f"Layout: {p.name!r:.80} belongs to a group that is not listed")


def expand(record: Steps) -> Iterator[Step]:
    """The single steps of a ``steps`` line, equal to what was batched into it, rounded.

    Only metrics lose a shade: an empty map comes back as None, and an entry that is None as absent.
    """
    names = [n for n in _ENTRIES if getattr(record, n) is not None]
    lists = [as_list(getattr(record, n)) for n in names]
    metrics = {k: as_list(v) for k, v in (record.metrics or {}).items()}
    for i, step in enumerate(record.step):
        values = {n: column[i] for n, column in zip(names, lists, strict=True)}
        if record.metrics is not None:
            seen = {k: v[i] for k, v in metrics.items() if v[i] is not None}
            values["metrics"] = seen or None
        columns = (record.columns or {}).get(str(i))
        if columns is not None:
            values |= {n: getattr(columns, n) for n in STEP_COLUMNS}
        yield Step(step=step, **values)


def as_list(values: Any) -> Any:
    """A field of a ``steps`` record as a list of Python values, None where it is None."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def batch(steps: list[Step]) -> Steps:
    """Several steps as one ``steps`` line, :func:`rounded_line` applied; :func:`expand` gives them back."""
    values: dict[str, Any] = {"step": [s.step for s in steps]}
    for name in _ENTRIES:
        column = [getattr(s, name) for s in steps]
        if any(v is not None for v in column):
            values[name] = column
    names = {k: None for s in steps for k in s.metrics or ()}
    if names:
        values["metrics"] = {k: [(s.metrics or {}).get(k) for s in steps] for k in names}
    columns = {
        str(i): StepColumns(**{n: getattr(s, n) for n in STEP_COLUMNS})
        for i, s in enumerate(steps)
        if any(getattr(s, n) is not None for n in STEP_COLUMNS)
    }
    return rounded_line(Steps(**values, columns=columns or None))


def rounded_line(record: Steps) -> Steps:
    """The line with its scalars rounded as :func:`torchwatch.codec.rounded_steps` says; columns as they are.

    To be done before the checks see it; doing it again changes nothing.
    """
    values = {n: getattr(record, n) for n in STEP_SCALARS}
    return dataclasses.replace(record, **codec.rounded_steps(values))


@dataclass(frozen=True, slots=True)
class _StepsColumns:
    """What of a ``steps`` line is read as in any other record."""

    columns: dict[str, StepColumns] | None = None


_ENTRIES = {
    n: t for n, t in codec.field_types(Step).items() if n in STEP_SCALARS and n not in ("step", "metrics")
}
"""Type of a step's entry in a ``steps`` line, by field."""
