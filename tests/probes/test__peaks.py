"""Peaks are found by the names that drivers give, and are not guessed for other chips."""

from __future__ import annotations

import pytest

from torchwatch.probes._peaks import _CARDS, PRECISIONS, peak


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("Tesla V100-PCIE-32GB", 112e12),
        ("Tesla V100S-PCIE-32GB", 130e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 3090 Ti", 80e12),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e12),
        ("AMD Instinct MI300X", 1307.4e12),
    ],
)
def test_known_cards(name, half) -> None:
    assert peak(name, "half") == half


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "NVIDIA A10G",
        "NVIDIA A40-12Q",
        "NVIDIA A1000",
        "NVIDIA T400",
        "Quadro RTX 6000",
        "cpu",
        "",
    ],
)
def test_what_is_not_known_is_not_guessed(name) -> None:
    assert peak(name, "half") is None


def test_a_card_without_tf32_has_no_such_peak() -> None:
    assert peak("Tesla T4", "tf32") is None
    assert peak("Tesla T4", "float32") == 8.1e12


def test_lower_precision_is_never_slower() -> None:
    for _, card in _CARDS:
        ordered = [getattr(card, p) for p in reversed(PRECISIONS) if getattr(card, p) is not None]
        assert ordered == sorted(ordered)
