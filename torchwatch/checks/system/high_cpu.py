"""The processor is full while the accelerator waits.

What it detects
    All cores of the machine together are more than 90 % busy for 30 s, and the GPU that the model is on works
    less than 30 % of the time.

Why it matters
    The processor prepares data or runs Python for a device that could do many times more.

What to do
    Move augmentation to the GPU (``torchvision.transforms.v2`` works on batches there), decode once and
    cache, keep ``num_workers`` at or below the number of cores, look for ``OMP_NUM_THREADS`` times workers
    exceeding them. On a shared machine other processes may be the reason.

When it is fine
    A simulator or an environment that needs the processor (reinforcement learning) and a small network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._readings import number_of, of_gpus, recent, used_gpus

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import System


@dataclass(frozen=True)
class Limits:
    """When a full processor is reported.

    Attributes:
        cpu_percent: load of all cores together above which it is full (percent).
        seconds: how long every reading must say so (seconds).
        gpu_percent: utilisation below which every GPU of this process idles (percent).
    """

    cpu_percent: float = 90.0
    seconds: float = 30.0
    gpu_percent: float = 30.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    indices = used_gpus(history)
    if not indices:
        return NotReady("the model is not on a GPU")
    if not _is_so(history.systems[-1], indices, limits):
        return []
    records = recent(history, limits.seconds)
    if records is None:
        return NotReady(f"needs {limits.seconds:g} s of readings")
    if not all(_is_so(r, indices, limits) for r in records):
        return []
    loads = [r.machine_cpu_percent or 0.0 for r in records]
    busiest = max(_busiest(r, indices) or 0.0 for r in records)
    return [
        Finding(
            title=f"The processor is {sum(loads) / len(loads):.0f} % busy while the GPU waits",
            since_step=records[0].step,
            detail=f"For {limits.seconds:g} s no GPU of this process was busier than {busiest:.0f} %.",
            metric="machine_cpu_percent",
            value=sum(loads) / len(loads),
            threshold=limits.cpu_percent,
        )
    ]


def _is_so(record: System, indices: frozenset[int], limits: Limits) -> bool:
    load, busiest = record.machine_cpu_percent, _busiest(record, indices)
    return (
        load is not None
        and load > limits.cpu_percent
        and busiest is not None
        and busiest < limits.gpu_percent
    )


def _busiest(record: System, indices: frozenset[int]) -> float | None:
    known = [number_of(g, "utilization_percent") for g in of_gpus(record, indices)]
    return max((k for k in known if k is not None), default=None)


CHECK = Check(
    severity=Severity.INFO,
    category=Category.SYSTEM,
    cause=Cause.OTHER,
    when=frozenset({On.SYSTEM}),
    reads=("machine_cpu_percent", "gpus"),
    limits=Limits(),
    find=find,
    fix="Do augmentation on the GPU, decode the data once, and keep workers and threads within the cores.",
    resolve_after=10,
)
