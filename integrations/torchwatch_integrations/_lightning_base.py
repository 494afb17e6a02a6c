"""Lightning is published under two names whose classes are not related; whose callbacks ours has to be."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from torchwatch_integrations._guest import require

LEAST = "2.5"
_NAMES = ("lightning.pytorch", "pytorch_lightning")


def callback_bases() -> tuple[Any, ...]:
    """``Callback`` of each of ``lightning.pytorch`` and ``pytorch_lightning`` that was imported before.

    Nothing that the user did not import is imported, unless that is neither: then ``lightning`` is, or
    ``pytorch_lightning`` where that is the one that is installed.

    Raises:
        MissingExtra: neither is installed, or it is too old.
    """
    imported = [name for name in _NAMES if name in sys.modules]
    if not imported:
        alone = importlib.util.find_spec("lightning") is None and importlib.util.find_spec(_NAMES[1])
        imported = [_NAMES[1] if alone else _NAMES[0]]
    for name in imported:
        package = name.partition(".")[0]
        require(package, LEAST, extra="lightning", distribution=package.replace("_", "-"))
    return tuple(importlib.import_module(name).Callback for name in imported)
