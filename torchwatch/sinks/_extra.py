"""Packages that only one sink needs."""

from __future__ import annotations

import importlib
import random
from typing import Any

from torchwatch.errors import MissingExtra


def package(module: str, sink: str) -> Any:
    """Import a module of the sink's extra; the host's random numbers stay what they are.

    Raises:
        MissingExtra: it is not installed.
    """
    state = random.getstate()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"the sink {sink} needs a package: pip install 'torchwatch-monitor[{sink}]'"
        ) from error
    finally:
        random.setstate(state)
