"""The case on the table: model, samples and task, in the one form that all examinations use.

Longer than other files: it is what every examination is written against, and is read as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.errors import UsageError
from torchwatch.examinations import tasks
from torchwatch.examinations._admission import check_loss, check_model, check_output, unfit, writes_inputs
from torchwatch.examinations._next_token import predicts_next_token
from torchwatch.examinations._placing import copied, device_of, on_device, unwrapped
from torchwatch.examinations.axes import integer, name_axes
from torchwatch.examinations.chunks import in_chunks
from torchwatch.examinations.samples import Samples, take
from torchwatch.results import AutopsyInputs, Remark

if TYPE_CHECKING:
    from torchwatch.diagnosis import Diagnosis

Progress = Callable[[int, int], None]

NO_TARGETS = "the data hold no targets: pass batches (inputs, targets)"


def silent(*_: object) -> None:
    """Says nothing."""


class OutOfTime(Exception):  # noqa: N818 - says what is the case
    """The time limit is over."""


@dataclass(frozen=True)
class Options:
    """What can be set for an autopsy.

    Attributes:
        samples: how many samples are examined.
        seed: of the choice of samples and of every random draw.
        time_limit_s: after it no examination starts, and a running one ends at its next chunk (s).
        chunk: samples per forward pass; halved when memory runs out.
        repeats: permutations (or draws of noise) per ablated element.
        window: width of the windows along a time axis (bins); narrower where five would not fit.
        fill: what is put in the place of what is ablated: ``permutation`` (values of other samples),
            ``mean``, ``noise`` or ``zero``.
        channel_groups: channels (or features) that are also ablated together: name → names or numbers.
        ig_n_steps: steps of Integrated Gradients.
        ig_baseline: ``zero``, ``mean``, ``random`` (training samples where given) or ``blur``.
        attribution_samples: how many of the samples are attributed.
        target_layers: layers for layer attributions, by name (default: first, middle and last).
        bands: frequency bands, name → (low, high) in Hz (default: those of the EEG, octaves at other rates).
    """

    samples: int = 500
    seed: int = 0
    time_limit_s: float | None = None
    chunk: int = 256
    repeats: int = 5
    window: int = 20
    fill: str = "permutation"
    channel_groups: Mapping[str, Sequence[str | int]] | None = None
    ig_n_steps: int = 50
    ig_baseline: str = "zero"
    attribution_samples: int = 100
    target_layers: tuple[str, ...] = ()
    bands: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "chunk", "repeats", "window", "ig_n_steps", "attribution_samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more, not {self.seed}")


class Case:
    """Everything an examination may look at.

    The model is in evaluation mode while it is examined, and what is done to it is put back
    (:func:`~torchwatch.examinations.untouched.untouched`); whatever changes weights or needs another mode
    works on :meth:`copy_of_model`.

    Attributes:
        model: without the wrappers of DataParallel, DDP and ``torch.compile``.
        inputs: what the user gave.
        options: what the user set.
        device: where the model is.
        samples: the chosen samples, on the CPU.
        task: kind of task.
        main: name of the input that is attributed and ablated: the first floating one, else the first.
        axes: names of the main input's axes, without the batch axis.
        targets: canonical targets on the CPU (see :func:`tasks.canonical_targets`); None without targets, or
            with such as the model has no outputs for.
        without_targets: why there are no targets, and what to do.
        groups: group of each sample; None where there are none.
        results: results of the examinations before, by name.
        diagnosis: what the run's checks found; None without a run file.
    """

    def __init__(
        self,
        inputs: AutopsyInputs,
        options: Options | None = None,
        *,
        device: str | torch.device | None = None,
        diagnosis: Diagnosis | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_model(inputs.model)
        self.inputs = inputs
        self.options = options or Options()
        self.model = on_device(unwrapped(inputs.model), device)
        self.device = device_of(self.model)
        self.diagnosis = diagnosis
        self.results: dict[str, Any] = {}
        self.progress: Progress = silent
        self._clock, self._started_s = clock, clock()
        self.samples: Samples = take(inputs.data, self.options.samples, self.options.seed, self._enough)
        self.main = self._main()
        self.axes = name_axes(inputs.axes, self.samples.inputs[self.main], self.model)
        first = self._first_outputs()
        targets = self.samples.targets
        shaped = first if targets is None else _as_many(first, targets.shape[0])
        self.task = self._next_token(self._known_from_loss(tasks.infer(shaped, targets, inputs.task)))
        self._last_axis = tasks.canonical(first, None, self.task).shape[-1]
        self.targets = None if targets is None else tasks.canonical_targets(targets, self.task)
        self.without_targets = NO_TARGETS
        if self.targets is not None and (reason := unfit(self.targets, self.task, self._last_axis)):
            self.targets, self.without_targets = None, reason
        self.groups = self._groups()

    # ------------------------------------------------------------------ the model

    def raw(self, tensors: Mapping[str, Tensor], model: nn.Module | None = None) -> Tensor:
        """The model's own output for named inputs, moved to its device; gradients flow where they are on."""
        model = self.model if model is None else model
        moved = {
            k: v.to(self.device, non_blocking=True, copy=self._writes_inputs) for k, v in tensors.items()
        }
        if self.samples.form == "one":
            output = model(next(iter(moved.values())))
        elif self.samples.form == "tuple":
            output = model(*moved.values())
        else:
            output = model(**moved, **self.samples.constants)
        return tasks.tensor_of(output)

    def forward(self, tensors: Mapping[str, Tensor], model: nn.Module | None = None) -> Tensor:
        """The canonical output (see :func:`tasks.canonical`) for named inputs, on the device."""
        return tasks.canonical(self.raw(tensors, model), None, self.task)

    def predict(self, tensors: Mapping[str, Tensor] | None = None, model: nn.Module | None = None) -> Tensor:
        """Canonical outputs without gradients, in chunks, on the CPU.

        Args:
            tensors: named inputs (default: those of the samples).
            model: another model than the patient.

        Raises:
            OutOfTime: the time limit is over.
        """
        inputs = self.samples.inputs if tensors is None else tensors
        count = next(iter(inputs.values())).shape[0]

        def work(start: int, end: int) -> Tensor:
            self.check_time()
            with torch.no_grad():
                outputs = self.forward({k: v[start:end] for k, v in inputs.items()}, model)
                return outputs.detach().cpu()  # a model may switch gradients on by itself

        return torch.cat([part for _, _, part in in_chunks(work, count, self.options.chunk)])

    @cached_property
    def outputs(self) -> Tensor:
        """Canonical outputs of all samples on the CPU, computed once."""
        return self.predict()

    def errors(self, outputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Error of each sample (N,): squared error, or negative log-likelihood (nats)."""
        wanted = self.wanted_targets if targets is None else targets
        return tasks.errors(outputs, wanted.to(outputs.device), self.task)

    def loss(self, outputs: Tensor, targets: Tensor, raw: Tensor | None = None) -> Tensor:
        """The user's loss of raw outputs and the targets as given, else the mean error of canonical ones.

        Args:
            outputs: canonical outputs, (n, …).
            targets: targets of the same samples as the data gave them.
            raw: the model's own outputs, for the user's loss.
        """
        if self.inputs.loss is not None and raw is not None:
            if not callable(self.inputs.loss):
                raise UsageError(
                    f"loss must be called as loss(outputs, targets), not {self.inputs.loss!r:.80}"
                )
            return check_loss(self.inputs.loss(raw, targets.to(raw.device))).mean()
        wanted = tasks.canonical_targets(targets, self.task).to(outputs.device)
        return tasks.errors(outputs, wanted, self.task).mean()

    def copy_of_model(self) -> nn.Module:
        """A copy whose weights, modes and gradients are free to change."""
        twin = copied(self.model)
        for parameter in twin.parameters():
            parameter.grad = None
        return twin

    # ------------------------------------------------------------------ what is known

    @property
    def wanted_targets(self) -> Tensor:
        """Canonical targets; :class:`UsageError` where the data hold none."""
        if self.targets is None:
            raise UsageError(self.without_targets)
        return self.targets

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, numbers where none were given; empty for regression."""
        if not self.task.classifies:
            return []
        count = 2 if self.task.name == "binary" else self._last_axis
        given = self.inputs.class_names or {}
        named = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
        return [str(named.get(i, i)) for i in range(count)]

    def names_along(self, axis: str, count: int) -> list[str]:
        """Names of the elements along an axis of the main input: the user's for channels, else numbers."""
        given = self.inputs.channel_names
        if axis in ("channel", "feature") and given is not None and len(given) == count:
            return [str(n) for n in given]
        return [str(i) for i in range(count)]

    def integer_main(self) -> bool:
        """Whether the main input holds indices, such as tokens."""
        return integer(self.samples.inputs[self.main])

    # ------------------------------------------------------------------ time and chance

    def check_time(self) -> None:
        """Raise :class:`OutOfTime` once the time limit is over."""
        limit = self.options.time_limit_s
        if limit is not None and self._clock() - self._started_s >= limit:
            raise OutOfTime(f"the time limit of {limit:g} s was over: raise it with --time-limit")

    def _enough(self, read: int) -> bool:
        """Whether reading has to end: half of the time is over, and there is something to examine."""
        limit = self.options.time_limit_s
        return read > 0 and limit is not None and 2 * (self._clock() - self._started_s) >= limit

    def tick(self, done: int, total: int) -> None:
        """Say how far an examination is, and end it when its time is over."""
        self.progress(done, total)
        self.check_time()

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers that depend on the seed and on the purpose alone."""
        return np.random.default_rng([self.options.seed, *purpose.encode()])

    def generator(self, purpose: str) -> torch.Generator:
        """The same for torch, on the CPU."""
        return torch.Generator().manual_seed(int(self.rng(purpose).integers(2**31)))

    # ------------------------------------------------------------------ on the way in

    def _first_outputs(self) -> Tensor:
        """The model's own outputs of a few samples, and whether it writes into what it is given."""
        few = {k: v[:8] for k, v in self.samples.inputs.items()}
        given = {k: v.to(self.device, copy=True) for k, v in few.items()}
        with torch.no_grad():
            self._writes_inputs = False
            first = self.raw(given).detach().cpu()
        self._writes_inputs = writes_inputs(few, {k: v.cpu() for k, v in given.items()})
        check_output(first, len(next(iter(few.values()))))
        return first

    def _main(self) -> str:
        inputs = self.samples.inputs
        floating = [k for k, v in inputs.items() if v.is_floating_point() and v.ndim > 1]
        masks = ("mask", "token_type", "position")
        others = [k for k in inputs if not any(m in k for m in masks)]
        return next(iter([*floating, *others, *inputs]))

    def _known_from_loss(self, task: tasks.Task) -> tasks.Task:
        """A loss that takes logits says that outputs are none but logits; and which class it ignores."""
        if isinstance(self.inputs.loss, nn.BCEWithLogitsLoss):
            return replace(task, probabilities=False)
        ignored = getattr(self.inputs.loss, "ignore_index", None)
        return replace(task, ignored=ignored) if isinstance(ignored, int) else task

    def _next_token(self, task: tasks.Task) -> tasks.Task:
        """Tokens as their own targets are compared one place on where the model sees no later token."""
        inputs, targets = self.samples.inputs, self.samples.targets
        if task.name != "token" or targets is None:
            return task
        if not predicts_next_token(self.raw, inputs, self.main, targets):
            return task
        text = (
            "The targets are the input's own tokens and the model sees no later ones: each output was "
            "compared with the next token, as the loss of causal language models does."
        )
        return replace(task, next_token=True, remarks=(*task.remarks, Remark("info", text)))

    def _groups(self) -> list[Any] | None:
        given, metadata = self.inputs.groups, self.samples.metadata
        if given is None:
            return None
        if isinstance(given, str):
            if given not in metadata:
                known = ", ".join(metadata) or "none"
                raise UsageError(f"groups={given!r} is no metadata column; there are {known}")
            return metadata[given]
        least = int(self.samples.index.max()) + 1
        if len(given) < least:
            raise UsageError(f"groups has {len(given)} entries, but the data hold at least {least}")
        return [given[int(i)] for i in self.samples.index]


def _as_many(first: Tensor, count: int) -> Tensor:
    """The first outputs over and over: as many as there are targets, to tell the task from."""
    repeats = -(-count // first.shape[0])
    return first.repeat(repeats, *[1] * (first.ndim - 1))[:count]


def shape_remarks(case: Case) -> tuple[Remark, ...]:
    """What was noticed while the case was laid out."""
    return (*case.samples.remarks, *case.task.remarks)
