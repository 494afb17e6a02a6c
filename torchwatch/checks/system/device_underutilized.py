"""There is an accelerator, and the model is not on it.

What it detects
    NVML sees a GPU that this process may use, no parameter was on one when the run began, and the process
    has allocated nothing there since. For Apple's GPU it is an info. Only steps that take long enough to gain
    from it count, in a run of some length.

Why it matters
    A forgotten ``.to(device)`` costs a factor of 10 to 100 on anything but tiny models.

What to do
    Move model and batches: ``model.to("cuda")`` before the optimizer is made, ``x.to("cuda",
    non_blocking=True)`` in the loop. Where torch was installed without CUDA (a ``+cpu`` in its version),
    install the other build.

When it is fine
    Steps of a few milliseconds are often faster on the processor. To say that a GPU is not meant, hide it
    with ``CUDA_VISIBLE_DEVICES=``. Intel's GPUs (XPU) are not in the records and cannot be judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import duration, printable

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When an unused accelerator is reported. A guard at 0 is off.

    Attributes:
        step_s: guard: least median step (seconds): very short ones gain nothing.
        run_s: guard: least length of the run so far (seconds).
    """

    step_s: float = 0.02
    run_s: float = 30.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    last = history.systems[-1]
    places = history.header.device.get("parameters_on")
    if not isinstance(places, list) or not places:
        return NotReady("the header does not say where the parameters are")
    if any(str(p).partition(":")[0] not in ("cpu", "meta") for p in places) or last.cuda_allocated_bytes:
        return []
    device = _unused(history)
    if device is None:
        return []
    step = float(np.median(history.series("step_time_s", 512).values))
    if step < limits.step_s or history.time_s < limits.run_s:
        return []
    name, severity = device
    version = str(history.header.software.get("torch", ""))
    without = version.endswith("+cpu") and severity is Severity.WARNING
    return [
        Finding(
            title=f"The model is not on the {name}",
            since_step=1,
            detail=f"A step takes {duration(step)} on the processor."
            + (f" This torch ({printable(version, 40)}) was built without CUDA." if without else ""),
            severity=severity,
            metric="step_time_s",
            value=step,
        )
    ]


def _unused(history: History) -> tuple[str, Severity] | None:
    """The accelerator that nothing was allocated on, and how bad that is."""
    last = history.systems[-1]
    if last.gpus:
        return printable(last.gpus[0].get("name") or "GPU", 60), Severity.WARNING
    if last.mps_allocated_bytes is not None and not any(s.mps_allocated_bytes for s in history.systems):
        return "Apple GPU (mps)", Severity.INFO
    return None


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.SYSTEM,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("machine_cpu_percent", "step_time_s"),
    uses=("gpus", "mps_allocated_bytes"),
    limits=Limits(),
    find=find,
    fix='Move the model and every batch to the accelerator: model.to("cuda"), x.to("cuda").',
    snippet=(
        "device = torch.accelerator.current_accelerator()\n"
        "model.to(device)\n"
        "x, y = x.to(device), y.to(device)\n"
    ),
)
