"""Importing this fills the registry."""

import importlib

_MODULES = (
    "wiring",
    "numeric",
    "flow",
    "dynamics",
    "system",
    "healthy_vision",
    "healthy_text",
    "healthy_other",
)
for _name in _MODULES:
    importlib.import_module(f"benchmarks.faults.cases.{_name}")

LOADED = True
