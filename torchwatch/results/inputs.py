"""What an autopsy is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TASKS = ("regression", "binary", "multiclass", "multilabel", "token")


@dataclass(frozen=True)
class AutopsyInputs:
    """A model, data, and what only you know about them. A ``build()`` function returns one.

    Attributes:
        model: a ``torch.nn.Module``. It comes back as it was.
        data: the samples to examine: a ``DataLoader``, a ``Dataset``, any iterable of batches
            ``(inputs, targets)``, ``(inputs, targets, metadata)`` or dicts, or one such tuple of tensors.
            Held-out data tell most.
        train_data: what the model was trained on, in the same form: for honest baselines and for comparing
            the splits.
        loss: ``loss(outputs, targets)`` → scalar tensor, as in training (default: by task).
        task: ``"regression"``, ``"binary"``, ``"multiclass"``, ``"multilabel"``, ``"token"``, or
            ``"auto"``: told from outputs and targets.
        axes: names of the input's axes without the batch axis, such as ``("channel", "time")`` (default: told
            from the shape).
        sample_rate: of the time axis (Hz).
        channel_names: names along the channel (or feature) axis.
        positions: places of the channels on a plane, (C, 2); or the name of an MNE montage.
        groups: group of each sample: a sequence as long as the data, or the name of a metadata column.
        class_names: names of the classes, in order.
        streams: cross-attentions between named streams, as ``{"audio->video": "cross.av", "video->audio":
            "cross.va"}`` with full module names (default: recognised where tensors or names say it).
    """

    model: Any
    data: Iterable[Any]
    train_data: Iterable[Any] | None = None
    loss: Callable[..., Any] | None = None
    task: str = "auto"
    axes: Sequence[str] | None = None
    sample_rate: float | None = None
    channel_names: Sequence[str] | None = None
    positions: Any = None
    groups: Sequence[Any] | str | None = None
    class_names: Sequence[str] | Mapping[int, str] | None = None
    streams: Mapping[str, str] | None = None
