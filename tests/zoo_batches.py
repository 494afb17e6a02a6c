"""Batches of noise for :mod:`tests.zoo_transformers`: keyword arguments of its models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WORDS = 37
LENGTH = 10


def words(length: int = LENGTH) -> Tensor:
    """Two sentences of random words, none of them special."""
    return torch.randint(3, WORDS, (2, length))


def text(length: int = LENGTH) -> dict[str, Any]:
    """Sentences that are their own labels."""
    ids = words(length)
    return {"input_ids": ids, "labels": ids.clone()}


def padded(length: int = LENGTH) -> dict[str, Any]:
    """Sentences of unequal length."""
    batch = text(length)
    mask = torch.ones_like(batch["input_ids"])
    mask[1, length // 2 :] = 0
    return {**batch, "attention_mask": mask, "labels": batch["labels"].masked_fill(mask == 0, -100)}


def unlabelled(length: int = LENGTH) -> dict[str, Any]:
    """Sentences for a model without a loss of its own."""
    return {"input_ids": words(length)}


def translation() -> dict[str, Any]:
    """A sentence for the encoder, another for the decoder."""
    return {"input_ids": words(), "labels": words(7)}


def images(size: int = 32, channels: int = 3) -> dict[str, Any]:
    """Two images of noise, each of a class."""
    return {"pixel_values": torch.randn(2, channels, size, size), "labels": torch.randint(0, 2, (2,))}


def unlabelled_images(size: int = 32) -> dict[str, Any]:
    """Two images for a model without a loss of its own."""
    return {"pixel_values": torch.randn(2, 3, size, size)}


def waves() -> dict[str, Any]:
    """Two stretches of noise, each with a word."""
    return {"input_values": torch.randn(2, 200), "labels": torch.randint(3, WORDS, (2, 4))}


def spectrogram() -> dict[str, Any]:
    """Two spectrograms, each with a sentence."""
    return {"input_features": torch.randn(2, 8, 20), "labels": words(7)}


def pairs() -> dict[str, Any]:
    """Images and sentences that belong together."""
    return {"input_ids": words(), "pixel_values": torch.randn(2, 3, 32, 32), "return_loss": True}


def questions() -> dict[str, Any]:
    """Questions about images."""
    return {"input_ids": words(), "pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.rand(2, 2)}


def captions() -> dict[str, Any]:
    """Images and what they show."""
    return {**text(), "pixel_values": torch.randn(2, 3, 32, 32)}


def prompts() -> dict[str, Any]:
    """Images with a point each."""
    return {"pixel_values": torch.randn(2, 3, 32, 32), "input_points": torch.rand(2, 1, 1, 2) * 32}


def boxes() -> dict[str, Any]:
    """An image with a box each."""
    marks = [{"class_labels": torch.tensor([1]), "boxes": torch.rand(1, 4) / 2 + 0.1} for _ in range(2)]
    return {"pixel_values": torch.randn(2, 3, 64, 64), "labels": marks}


def masks() -> dict[str, Any]:
    """Images, each with the outline of two things."""
    return {
        "pixel_values": torch.randn(2, 3, 64, 64),
        "mask_labels": [torch.rand(2, 64, 64).round() for _ in range(2)],
        "class_labels": [torch.tensor([0, 2]) for _ in range(2)],
    }


def past_and_future() -> dict[str, Any]:
    """Two series, of which ten values are known and four are wanted."""
    past, future = torch.randn(2, 10), torch.randn(2, 4)
    return {
        "past_values": past,
        "past_time_features": torch.randn(2, 10, 2),
        "past_observed_mask": torch.ones(2, 10),
        "future_values": future,
        "future_time_features": torch.randn(2, 4, 2),
    }


def forecast() -> dict[str, Any]:
    """Series of two channels."""
    return {"past_values": torch.randn(2, 16, 2), "future_values": torch.randn(2, 4, 2)}


def trajectory() -> dict[str, Any]:
    """Two plays of five moves."""
    return {
        "states": torch.randn(2, 5, 4),
        "actions": torch.randn(2, 5, 2),
        "rewards": torch.randn(2, 5, 1),
        "returns_to_go": torch.randn(2, 5, 1),
        "timesteps": torch.arange(5).expand(2, 5),
        "attention_mask": torch.ones(2, 5),
    }
