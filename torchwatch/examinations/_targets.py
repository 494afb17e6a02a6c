"""What is explained: the predicted class, an output, or the sum of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchwatch.examinations.tasks import IGNORED

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case


@dataclass(frozen=True)
class Target:
    """Which numbers of an output are explained, for each sample.

    Attributes:
        words: what it is, for people.
        ids: places among the outputs (n, M), or the class at each of M tokens.
        weights: of each token in the sum that is explained (n, M); ones elsewhere.
    """

    words: str
    ids: Tensor
    weights: Tensor

    def of(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Those of some samples."""
        return self.ids[rows], self.weights[rows]


def target_of(case: Case, index: np.ndarray[Any, np.dtype[np.int64]], output: int | None = None) -> Target:
    """What is explained: the predicted class, or the sum of the outputs.

    Args:
        case: the case.
        index: samples (n,).
        output: one output, class or label instead.
    """
    outputs = case.outputs[torch.from_numpy(index)]
    count, last = outputs.shape[0], outputs.shape[-1]
    if outputs.ndim == 3:
        classes = outputs.argmax(-1) if output is None else torch.full(outputs.shape[:2], output)
        words = (
            "mean over the tokens of the predicted class's logit" if output is None else f"output {output}"
        )
        return Target(words, classes, _tokens_that_count(case, index, outputs.shape[1]))
    if output is not None or last == 1:
        ids = torch.full((count, 1), output or 0)
        words = "the output" if last == 1 else f"output {output}"
        words = "the logit of class 1" if case.task.name == "binary" else words
    elif case.task.name == "regression":
        ids, words = torch.arange(last).repeat(count, 1), f"the sum of the {last} outputs"
    else:
        ids = outputs.argmax(1, keepdim=True)
        words = (
            f"the logit of the {'predicted class' if case.task.name == 'multiclass' else 'likeliest label'}"
        )
    if case.task.probabilities:
        words = words.replace("logit", "probability")
    return Target(words, ids, torch.ones(ids.shape))


def _tokens_that_count(case: Case, index: np.ndarray[Any, np.dtype[np.int64]], tokens: int) -> Tensor:
    """Weights (n, T) that average over tokens with a target, else over those that are not padding."""
    picked = torch.from_numpy(index)
    counts = torch.ones(len(index), tokens)
    mask = case.samples.inputs.get("attention_mask")
    if case.targets is not None:
        counts = (case.targets[picked] != IGNORED).float()
    elif mask is not None and mask.shape[1:] == (tokens,):
        counts = (mask[picked] != 0).float()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)
