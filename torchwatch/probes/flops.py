"""Floating-point operations of one step, counted once."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.probes._peaks import peak
from torchwatch.schedule import Plan

_TRIES = 10
"""Sampled steps on which counting is tried before it is given up."""

_ATTENTION = "attention"
_RECURRENT = "rnn"
_FLASH = "aten._scaled_dot_product_flash_attention"
_ATTENTION_BACKWARD = 2.5
"""A fused attention's backward pass computes the scores again: five matrix products for the forward's two."""

_OPERANDS = {"addmm": (1, 2), "baddbmm": (1, 2)}
"""Where the two factors are; 0 and 1 for all other operators."""

Key = tuple[torch.dtype, bool]


class Count:
    """Operations of matrix products, convolutions, attention and recurrent layers; nothing else counts.

    Shapes go through the formulas of ``torch.utils.flop_counter`` (a multiplication and an addition are two
    operations). The backward pass is not observed but derived: one product of the same size for each factor
    that needs a gradient. What a checkpoint recomputes is not counted, as is usual for MFU (Chowdhery et al.,
    "PaLM", 2022, appendix B).

    Attributes:
        flops: operations, forward and backward, by (data type, whether it is a convolution).
        problem: why the count is wrong, None where it is right.
    """

    def __init__(self) -> None:
        self.flops: Counter[Key] = Counter()
        self.problem: str | None = None

    def saw(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Count an operator that has run."""
        try:
            self._add(operator, args, kwargs, result)
        except Exception as error:  # noqa: BLE001 - this runs inside the host's forward pass
            self.problem = f"{operator}: {type(error).__name__}: {error}"

    def _add(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name = str(operator).removeprefix("aten.")
        forward = _forward(operator, name, args, kwargs, result)
        if not forward:
            return
        first, second = _OPERANDS.get(name, (0, 1))
        factors = [args[first], *(args[second:] if _fused(name) else args[second : second + 1])]
        tensors = [t for factor in factors for t in (factor if isinstance(factor, list) else [factor])]
        tensors = [t for t in tensors if isinstance(t, torch.Tensor)]
        if any(hasattr(t, "to_local") for t in tensors):
            raise TypeError("its factors are spread over ranks")
        key = (tensors[0].dtype, "conv" in name)
        self.flops[key] += int(forward * (1 + _backward(name, tensors)))


def _fused(name: str) -> bool:
    return _ATTENTION in name or _RECURRENT in name


def _forward(
    operator: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> float | None:
    """Operations of one call, None of an operator that does not count."""
    from torch.utils.flop_counter import flop_registry

    if _RECURRENT in name:
        return _recurrent(args)
    formula = flop_registry.get(operator)
    if formula is None and "scaled_dot_product" in name and "backward" not in name:
        formula = {str(op): f for op, f in flop_registry.items()}[_FLASH]  # the CPU's has none of its own
    return None if formula is None else float(formula(*args, **kwargs, out_val=result))


def _recurrent(args: tuple[Any, ...]) -> float:
    """A fused recurrent layer multiplies each of its matrices with one vector per step and sample."""
    weights = args[1] if isinstance(args[1], (list, tuple)) else args[1:3]
    vectors: int = math.prod(args[0].shape[:-1])
    return float(2 * vectors * sum(w.numel() for w in weights if w.dim() == 2))


def _backward(name: str, factors: list[torch.Tensor]) -> float:
    """Operations of the backward pass over those of the forward pass."""
    if "backward" in name:
        return 0.0
    if torch.is_grad_enabled():
        needed = sum(t.requires_grad for t in factors)
    else:
        needed = 2 if _torch.in_checkpoint() else 0
    if _ATTENTION in name:
        return _ATTENTION_BACKWARD if needed else 0.0
    return float(min(needed, 2))


class FlopsProbe(Probe):
    """Counts the arithmetic of the first sampled step that can be counted, and then never again.

    While the model's forward pass runs, an observer of operators is on; it is off again before anything else
    of the host runs, also when the pass raises. Only passes that are trained on count.

    Attributes:
        flops_per_step: forward and backward, all passes of the step; None: not counted (yet).
        peak_flops_per_s: what the devices of the model could do in the precisions used; None: not known.
    """

    name: ClassVar[str] = "flops"
    writes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.flops_per_step: float | None = None
        self.peak_flops_per_s: float | None = None
        self._observer: _torch.OperatorObserver | None = None
        self._count: Count | None = None
        self._hook: Any = None
        self._turn = 0
        self._restart()

    def _restart(self) -> None:
        self._tries = 0
        self._done = False
        self._reason = "the model's own forward pass was not seen"
        self._passes: dict[int, Count] = {}
        self._trained: list[Count] = []
        self._step: int | None = None

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """Look whether the model can be counted."""
        super().attach(patient, config)
        model = patient.model()
        if model is not None and any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
            self._done, self._reason = True, "scripted modules"

    # ------------------------------------------------------------------ the window

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Count the next step, unless that is done."""
        self._leave()
        if self._done:
            self._unhook()
            return
        if self._tries >= _TRIES:
            self._done = True
            self._unhook()
            self.patient.version += 1  # the coverage changes
            return
        self._tries += 1
        self._passes = {}
        if self._hook is None:
            self._hook = _torch.register_always_called_hook(_leaver(weakref.ref(self)))

    def disarm(self) -> None:
        """The step is not sampled."""
        self._leave()
        self._unhook()

    def model_starts(self, args: tuple[Any, ...], *, recording: bool) -> None:  # noqa: ARG002
        """Begin to count a pass."""
        self._leave()
        self._count = None
        if self._done or self._hook is None or not recording or _torch.profiler_runs():
            return
        count = Count()
        observer = _torch.OperatorObserver(count.saw)
        if observer.enter():
            self._observer, self._count = observer, count
        else:
            self._reason = "a dispatch mode of the host was active"

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """The pass is over."""
        turn, self._turn = self._turn, self._turn + 1
        count, self._count = self._count, None
        self._leave()
        if count is not None:
            self._passes[turn] = count
            self._reason = "no gradient arrived at the model's output"

    def passed(self, module: torch.nn.Module) -> None:
        """A module has run, or raised: if it is the model, the observer goes."""
        if self._observer is not None and module is self.patient.model():
            self._leave()

    def _leave(self) -> None:
        if self._observer is not None and self._observer.leave():
            self._observer = None

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    # ------------------------------------------------------------------ what counts

    def trained(self, turn: int) -> None:
        """A pass is trained on."""
        count = self._passes.pop(turn, None)
        if count is not None:
            self._trained.append(count)

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:  # noqa: ARG002
        """What was trained on so far belongs to this step; several optimizers may follow each other in it."""
        if self._done or not self._trained:
            return
        if self._step is not None and frame.number != self._step:
            self._done, self._trained = True, []
            return
        self._step = frame.number
        problem = next((c.problem for c in self._trained if c.problem is not None), None)
        total: Counter[Key] = sum((c.flops for c in self._trained), Counter())
        if problem is not None or not total:
            self._done, self._reason = True, problem or "no matrix product, convolution or attention was seen"
        else:
            self.flops_per_step = float(sum(total.values()))
            self.peak_flops_per_s = _peak(total, [p.device for _, p in self.patient.live_parameters()])
        self.patient.version += 1  # the layout says it

    def forget(self) -> None:
        """The model changed: its arithmetic too."""
        self._leave()
        if self._reason != "scripted modules":
            self._restart()

    def detach(self) -> None:
        """Drop everything."""
        self._leave()
        self._unhook()
        self._passes, self._trained, self._count = {}, [], None

    def coverage(self) -> str:
        """Why there is no count, or no peak to compare it with."""
        model = self.patient.model()
        if self.flops_per_step is None and model is not None and _torch.compiled(model):
            return "not counted: compiled"
        if self.flops_per_step is None:
            return f"not counted: {self._reason}" if self._done else "not counted yet"
        return "ok" if self.peak_flops_per_s is not None else "counted; the device's peak is not known"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """Nothing: the count is in the layout."""
        return {}


def _leaver(reference: weakref.ref[FlopsProbe]) -> Callable[[torch.nn.Module, Any, Any], None]:
    """The hook after every forward pass; it holds the probe weakly and raises nothing."""

    def hook(module: torch.nn.Module, _: Any, __: Any) -> None:
        probe = reference()
        if probe is not None:
            with contextlib.suppress(Exception):
                probe.passed(module)

    return hook


def _peak(flops: Counter[Key], devices: list[torch.device]) -> float | None:
    """Operations per second that all devices of the model could do together, in this mix of precisions.

    That is the harmonic mean of the peaks, weighted with the operations in each precision.
    """
    if not devices or any(d.type != "cuda" for d in devices):
        return None
    together = 0.0
    for device in set(devices):
        seconds = 0.0
        for (dtype, convolution), operations in flops.items():
            reached = peak(torch.cuda.get_device_name(device), precision(dtype, convolution=convolution))
            if reached is None:
                return None
            seconds += operations / reached
        together += flops.total() / seconds
    return together


def precision(dtype: torch.dtype, *, convolution: bool) -> str:
    """How a device multiplies numbers of this type: ``half``, ``tf32``, ``float32``, or the type's name."""
    if dtype in (torch.float16, torch.bfloat16):
        return "half"
    if dtype is not torch.float32:
        return str(dtype).removeprefix("torch.")
    backends: Any = torch.backends
    new: Any = getattr(backends.cudnn, "conv", None) if convolution else backends.cuda.matmul
    if hasattr(new, "fp32_precision"):  # asking the old way raises where a host has set the new one
        return "tf32" if new.fp32_precision == "tf32" else "float32"
    old = backends.cudnn if convolution else backends.cuda.matmul
    return "tf32" if old.allow_tf32 else "float32"
