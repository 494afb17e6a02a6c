"""``ExplainAttention``: attention of one batch, weights and all, or of a whole loader as numbers.

::

    explain = ExplainAttention(model, streams={"audio->video": "cross.av", "video->audio": "cross.va"})
    one = explain.batch(x)
    one.weights["encoder.layers.0.self_attn"]  # (N, heads, queries, keys)
    print(one.text())
    explain.loader(val_loader).as_json()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchwatch.errors import ModelError, UsageError
from torchwatch.examinations._attention_collect import collect
from torchwatch.examinations._attention_text import text_of
from torchwatch.examinations._placing import unwrapped
from torchwatch.examinations.attention import examined
from torchwatch.examinations.case import Case, Options
from torchwatch.examinations.examination import NotApplicable
from torchwatch.examinations.untouched import untouched
from torchwatch.results import AutopsyInputs, plain
from torchwatch.results.attention import Attention

KEPT = 16
"""Samples of a loader whose weights are kept in full."""
_MANY = 1 << 31


@dataclass(frozen=True, slots=True)
class AttentionCapture:
    """Attention of a batch or a loader.

    Attributes:
        result: numbers per attention, head, sample, class and stream pair.
        weights: of the first samples (n, heads, queries, keys) on the CPU, by the attention's name: all
            samples of a batch, at most 16 of a loader, fewer where they would fill more than 256 MB.
    """

    result: Attention
    weights: Mapping[str, Tensor]

    def text(self) -> str:
        """A report in plain text; names from the model have control characters escaped."""
        return text_of(self.result)

    def as_json(self) -> dict[str, Any]:
        """The numbers as strict JSON values, without the weights; what is not known is None."""
        values: dict[str, Any] = plain(self.result)
        return values


class ExplainAttention:
    """Captures a model's attention; the model comes back as it was.

    Args:
        model: any ``torch.nn.Module``; it runs in evaluation mode, without gradients.
        streams: directions of cross-attention, such as ``{"audio->video": "cross.av", "video->audio":
            "cross.va"}``, or ``{"audio": "cross.av", "video": "cross.va"}`` by the stream that asks (default:
            recognised where tensors or names say it).
        silence: also measure what each head contributes, one more pass over up to 64 samples per head.
        known: further fields of :class:`~torchwatch.results.AutopsyInputs`, such as ``task`` or
            ``class_names``.

    Raises:
        ModelError: ``model`` is no module.

    Attributes:
        last: what was captured last; None before.
    """

    def __init__(
        self,
        model: nn.Module,
        streams: Mapping[str, str] | None = None,
        *,
        silence: bool = False,
        **known: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"ExplainAttention needs a torch.nn.Module, not {type(model).__name__}")
        self.model, self.streams = model, streams
        self.last: AttentionCapture | None = None
        self._silence, self._known = silence, known

    def batch(self, inputs: Any, targets: Any = None) -> AttentionCapture:
        """Attention of one batch, with the weights of all its samples.

        Args:
            inputs: a tensor, a tuple of tensors or a dict, as the model takes them; first axis: samples.
            targets: their targets, for what is right and wrong (default: none; a dict may hold them).

        Raises:
            UsageError: no attention was seen, or ``streams`` name none that was.
        """
        whole: Any = inputs if targets is None and isinstance(inputs, Mapping) else (inputs, targets)
        return self._captured([whole], samples=_MANY, seed=0, keep=_MANY)

    def loader(self, loader: Iterable[Any], *, samples: int = 500, seed: int = 0) -> AttentionCapture:
        """Attention of a seeded choice of samples of a loader.

        Args:
            loader: as ``data`` of :class:`~torchwatch.results.AutopsyInputs`.
            samples: how many.
            seed: of the choice.

        Raises:
            UsageError: no attention was seen, or ``streams`` name none that was.
        """
        return self._captured(loader, samples=samples, seed=seed, keep=KEPT)

    def text(self) -> str:
        """Report in plain text of what was captured last."""
        return self._last().text()

    def as_json(self) -> dict[str, Any]:
        """Summary of what was captured last, as strict JSON values."""
        return self._last().as_json()

    def _last(self) -> AttentionCapture:
        if self.last is None:
            raise UsageError("nothing was captured yet: call batch() or loader() first")
        return self.last

    def _captured(self, data: Iterable[Any], *, samples: int, seed: int, keep: int) -> AttentionCapture:
        inputs = AutopsyInputs(self.model, data, streams=self.streams, **self._known)
        with untouched(unwrapped(self.model)), torch.no_grad():
            case = Case(inputs, Options(samples=samples, seed=seed))
            case.model.eval()
            try:
                found = collect(case, self.streams, keep=keep)
            except NotApplicable as reason:
                raise UsageError(str(reason)) from reason
            result = examined(case, found, silence=self._silence)
        self.last = AttentionCapture(result, found.weights)
        return self.last


def capture_attention(model: nn.Module, inputs: Any, targets: Any = None, **known: Any) -> AttentionCapture:
    """Attention of one batch: ``ExplainAttention(model, **known).batch(inputs, targets)``."""
    return ExplainAttention(model, **known).batch(inputs, targets)
