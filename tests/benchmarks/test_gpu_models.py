"""The models of the GPU bench are what their names say, and train."""

from __future__ import annotations

import torch

from benchmarks.gpu import gpt2, resnet50


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in gpt2.Gpt2().parameters()) == gpt2.PARAMETERS
        assert sum(p.numel() for p in resnet50.ResNet50().parameters()) == resnet50.PARAMETERS


def test_small_ones_run_forward_and_backward() -> None:
    logits = gpt2.Gpt2(vocabulary=50, context=16, width=32, heads=2, depth=2)(torch.randint(0, 50, (2, 16)))
    assert logits.shape == (2, 16, 50)
    logits.sum().backward()
    logits = resnet50.ResNet50(classes=7, depths=(1, 1, 1, 1))(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    logits.sum().backward()
