"""A model that says what its input says: planted predictions without training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from torchwatch.examinations.case import Case, Options
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs


def said(predictions: Any, targets: Any, examine: str, metadata: Any = None, **known: Any) -> Any:
    """Result of one examination of these predictions; raises with the reason where there is none."""
    given = (as_tensor(predictions), as_tensor(targets))
    data = given if metadata is None else (*given, metadata)
    return autopsy(nn.Identity(), data, examine=[examine], samples=len(given[0]), **known)[examine]


def case_of(predictions: Any, targets: Any, metadata: Any = None, **known: Any) -> Case:
    """The case that an examination of these predictions gets."""
    given = (as_tensor(predictions), as_tensor(targets))
    data = given if metadata is None else (*given, metadata)
    return Case(AutopsyInputs(nn.Identity(), data, **known), Options(samples=len(given[0])))


def as_tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=shape)
