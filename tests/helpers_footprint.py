"""Everything that a guest could leave behind in a process, as comparable values."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import types
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

_PACKAGES = ("torch", "threading", "logging", "warnings", "signal", "io", "builtins", "numpy")
_CODE = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    classmethod,
    staticmethod,
    property,
)


def functions() -> dict[str, int]:
    """Identity of every function, method and class with a name in torch or the parts of Python near it."""
    found: dict[str, int] = {}
    for name, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType) or name.partition(".")[0] not in _PACKAGES:
            continue
        for key, value in list(vars(module).items()):
            if issubclass(type(value), _CODE):  # isinstance() would ask deprecated objects, which warn
                found[f"{name}.{key}"] = id(value)
            if issubclass(type(value), type) and value.__module__ == name:
                found |= {
                    f"{name}.{key}.{k}": id(v) for k, v in vars(value).items() if issubclass(type(v), _CODE)
                }
    return found


def global_hooks() -> dict[str, list[int]]:
    """Keys of every process-wide hook registry of modules and optimizers."""
    homes = (nn.modules.module, sys.modules[torch.optim.Optimizer.__module__])
    return {
        key: sorted(value)
        for home in homes
        for key, value in vars(home).items()
        if key.startswith("_global_") and isinstance(value, dict)
    }


def on_modules(model: nn.Module) -> dict[str, Any]:
    """Attributes and hooks of every module and every parameter."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name}: attributes"] = sorted(vars(module))
        found[f"{name}: class"] = id(type(module))
        found |= {
            f"{name}: {k}": sorted(v) for k, v in vars(module).items() if isinstance(v, dict) and "hooks" in k
        }
    for name, parameter in model.named_parameters():
        found[f"{name}: attributes"] = sorted(vars(parameter))
        found[f"{name}: hooks"] = sorted(parameter._backward_hooks or ())
        found[f"{name}: accumulated hooks"] = sorted(
            getattr(parameter, "_post_accumulate_grad_hooks", 0) or ()
        )
    return found


def on_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Attributes and hooks of an optimizer."""
    hooks = {k: sorted(v) for k, v in vars(optimizer).items() if k.endswith("hooks") and isinstance(v, dict)}
    return {"attributes": sorted(vars(optimizer)), "step": optimizer.step.__code__, **hooks}


def process() -> dict[str, Any]:
    """Threads, descriptors, handlers and switches of the process."""
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": sorted(open_files()),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "excepthooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook),
        "trace": (sys.gettrace(), sys.getprofile()),
        "collector": (gc.isenabled(), gc.get_threshold(), list(gc.callbacks), gc.get_freeze_count()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (list(logging.root.handlers), logging.root.level),
        "streams": (sys.stdout, sys.stderr),
        "directory": Path.cwd(),
        "environment": dict(os.environ),
        "switch interval": sys.getswitchinterval(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()),
        "hooks": global_hooks(),
    }


def ours() -> Counter[str]:
    """How many objects of our classes are alive, by class."""
    kinds = (type(o) for o in gc.get_objects())
    return Counter(
        f"{t.__module__}.{t.__qualname__}" for t in kinds if str(t.__module__).startswith("torchwatch.")
    )


def open_files() -> list[str]:
    """What the process has open, as "number -> target"; kept descriptors of the listing itself left out."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(f"{entry.name} -> {entry.readlink()}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What differs, by key. Keys that are new are no difference for functions, as modules load lazily."""
    return {k: (v, after.get(k)) for k, v in before.items() if after.get(k) != v}


__all__ = [
    "changed",
    "functions",
    "global_hooks",
    "on_modules",
    "on_optimizer",
    "open_files",
    "ours",
    "process",
]
