"""Dense peak arithmetic of accelerators, as their makers state it.

All numbers are without structured sparsity (NVIDIA's data sheets often print twice that) and, for GeForce
cards, with accumulation in float32, which is how PyTorch multiplies. Sources: NVIDIA's data sheets of T4,
V100, A10, A30, A40, A100, L4, L40, L40S, H100, H200, HGX B200 and GB200 and the RTX A6000, its white papers
"NVIDIA Ampere GA102", "NVIDIA Ada" and "NVIDIA RTX Blackwell" for GeForce and RTX cards; AMD's data sheets of
Instinct MI250X, MI300A, MI300X and MI325X (an MI250X shows as two devices, the numbers are for one).
"""

from __future__ import annotations

import re
from typing import NamedTuple

TERA = 1e12


class Peak(NamedTuple):
    """TFLOP/s of one device: ``half`` for float16 and bfloat16, ``tf32`` for float32 in reduced precision."""

    half: float
    tf32: float | None
    float32: float


_CARDS: tuple[tuple[str, Peak], ...] = (
    (r"GB200", Peak(2500, 1250, 80)),
    (r"B200", Peak(2250, 1125, 75)),
    (r"(H100|H200) NVL", Peak(835, 417, 60)),
    (r"H100 PCIe", Peak(756, 378, 51)),
    (r"(H100|H200|H800|GH200)", Peak(989.4, 494.7, 66.9)),
    (r"H20", Peak(148, 74, 44)),
    (r"(A100|A800)", Peak(312, 156, 19.5)),
    (r"A30", Peak(165, 82, 10.3)),
    (r"A40", Peak(149.7, 74.8, 37.4)),
    (r"A10", Peak(125, 62.5, 31.2)),
    (r"L40S", Peak(362, 183, 91.6)),
    (r"L40", Peak(181, 90.5, 90.5)),
    (r"L4", Peak(121, 60, 30.3)),
    (r"T4", Peak(65, None, 8.1)),
    (r"V100S", Peak(130, None, 16.4)),
    (r"V100.PCIE", Peak(112, None, 14)),
    (r"V100", Peak(125, None, 15.7)),
    (r"RTX A6000", Peak(154.8, 77.4, 38.7)),
    (r"RTX 6000 Ada", Peak(364.2, 182.1, 91.1)),
    (r"RTX 3090 Ti", Peak(80, 40, 40)),
    (r"RTX 3090", Peak(71, 35.6, 35.6)),
    (r"RTX 4090", Peak(165.2, 82.6, 82.6)),
    (r"RTX 5090", Peak(209.5, 104.8, 104.8)),
    (r"(MI300X|MI325X)", Peak(1307.4, 653.7, 163.4)),
    (r"MI300A", Peak(980.6, 490.3, 122.6)),
    (r"MI250X", Peak(191.5, None, 47.9)),
)
_OTHER_CHIPS = re.compile(r"\b(Laptop|Mobile|Max-Q|MIG)\b|RTX \d+ (D|Super)\b|-\d+[ABCQ]\b", re.IGNORECASE)
"""Names that contain a known one and mean something slower, or a part of it."""

PRECISIONS = ("half", "tf32", "float32")


def peak(device_name: str, precision: str) -> float | None:
    """Floating-point operations per second of which the device is capable, None where that is not known.

    Args:
        device_name: as ``torch.cuda.get_device_name`` gives it.
        precision: one of :data:`PRECISIONS`.
    """
    if _OTHER_CHIPS.search(device_name):
        return None
    for pattern, card in _CARDS:
        if re.search(rf"\b{pattern}\b", device_name, re.IGNORECASE):
            value: float | None = getattr(card, precision, None)
            return None if value is None else value * TERA
    return None
