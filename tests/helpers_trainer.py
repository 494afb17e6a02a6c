"""A tiny language model in the Trainer of transformers, on text that every Python brings along."""

from __future__ import annotations

import argparse
import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

    import transformers

LENGTH = 24
BATCH = 8


class Characters(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks of the source of ``argparse``, as classes of 0 to 31 a character; labels are the same blocks."""

    def __init__(self, count: int, first: int = 0) -> None:
        text = inspect.getsource(argparse)[first * LENGTH : (first + count) * LENGTH]
        self._codes = torch.tensor([ord(c) % 32 for c in text]).view(count, LENGTH)

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._codes[index], "labels": self._codes[index]}


def language_model(**changes: Any) -> transformers.PreTrainedModel:
    """A GPT-2 of 15,000 parameters; the same weights each time."""
    import transformers

    sizes = {"vocab_size": 32, "n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    config = transformers.GPT2Config(**{**sizes, **changes}, bos_token_id=None, eos_token_id=None)
    config.loss_type = "ForCausalLM"
    return transformers.GPT2LMHeadModel(config)


def trainer(
    folder: Path,
    callback: Any = None,
    model: torch.nn.Module | None = None,
    trained: Any = None,
    kind: type[transformers.Trainer] | None = None,
    **changes: Any,
) -> transformers.Trainer:
    """A Trainer that trains for two epochs of 13 batches, the last one incomplete.

    Args:
        folder: its ``output_dir``.
        callback: one more callback.
        model: what is trained, by default a :func:`language_model`.
        trained: the data, by default 100 blocks of :class:`Characters`.
        kind: a Trainer of the test's own.
        changes: training arguments.
    """
    import transformers
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # the precision of the training before
    arguments = {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 2,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "log_level": "error",
    }
    made = (kind or transformers.Trainer)(
        model=model if model is not None else language_model(),
        args=transformers.TrainingArguments(output_dir=str(folder), **{**arguments, **changes}),
        train_dataset=Characters(100) if trained is None else trained,
        eval_dataset=Characters(20, first=100),
        callbacks=None if callback is None else [callback],
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def logged_losses(made: transformers.Trainer) -> list[float]:
    """The losses that the Trainer logged, oldest first."""
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]
