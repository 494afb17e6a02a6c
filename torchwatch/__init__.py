"""A flight recorder for PyTorch training.

Public names are resolved on first use, so that ``import torchwatch`` imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwatch.config import WatchConfig
    from torchwatch.diagnosis import Diagnosis, diagnose
    from torchwatch.examinations.explain_attention import ExplainAttention
    from torchwatch.postmortem import autopsy
    from torchwatch.results import AutopsyInputs
    from torchwatch.run import Run, read_run
    from torchwatch.watcher import Watcher

__version__ = "0.1.0"

__all__ = [
    "AutopsyInputs",
    "Diagnosis",
    "ExplainAttention",
    "Run",
    "WatchConfig",
    "Watcher",
    "autopsy",
    "diagnose",
    "read_run",
]

_HOME = {
    "AutopsyInputs": "torchwatch.results",
    "Diagnosis": "torchwatch.diagnosis",
    "ExplainAttention": "torchwatch.examinations.explain_attention",
    "Run": "torchwatch.run",
    "WatchConfig": "torchwatch.config",
    "Watcher": "torchwatch.watcher",
    "autopsy": "torchwatch.postmortem",
    "diagnose": "torchwatch.diagnosis",
    "read_run": "torchwatch.run",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'torchwatch' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
