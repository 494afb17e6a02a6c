"""The moments of a layer's output on a CUDA device: in one pass where Triton is, else by plain torch."""

from __future__ import annotations

import math
from typing import Any

import torch

from torchwatch.probes._moments import MOMENTS, NEAR, Arrangement, Bounds, Moments, Units, reference

_BLOCK = 256
_PROGRAMS = 1024
_FEWEST_ROWS = 16
_READ = (torch.float32, torch.float16, torch.bfloat16)


class TritonKernels:
    """As :func:`~torchwatch.probes._moments.reference`, by three launches and without a synchronisation.

    Double precision, and devices on which a kernel could not be built, take the plain way. Σx² is summed in
    float32 within a block: beyond 3e38 it is infinite here, while the count of non-finite entries is exact.

    Attributes:
        failed: why the kernels are not used, "" as long as they are.
    """

    def __init__(self) -> None:
        self.failed = ""
        self._kernels: Any = None

    def moments(
        self,
        tensor: torch.Tensor,
        arrangement: Arrangement,
        *,
        per_unit: bool = False,
        bounds: Bounds | None = None,
        nonnegative: bool = False,
    ) -> Moments:
        """As :func:`~torchwatch.probes._moments.reference`."""
        if not self.failed and tensor.dtype in _READ and tensor.numel():
            try:
                return self._launch(tensor, arrangement, per_unit=per_unit, bounds=bounds)
            except Exception as error:  # noqa: BLE001 - no compiler, an old driver: the plain way gives the same
                self.failed = f"{type(error).__name__}: {error}"
        return reference(tensor, arrangement, per_unit=per_unit, bounds=bounds, nonnegative=nonnegative)

    def _launch(
        self, tensor: torch.Tensor, arrangement: Arrangement, *, per_unit: bool, bounds: Bounds | None
    ) -> Moments:
        if self._kernels is None:
            from torchwatch.probes import _triton_kernels

            self._kernels = _triton_kernels
        samples, features = arrangement.samples, arrangement.features
        blocks, chunks, rows = grid(samples, features)
        new = tensor.new_empty
        sums = new((2, chunks, features), dtype=torch.float32)
        read_parts = new((blocks * chunks, 5), dtype=torch.float32)
        feature_parts = new((blocks, 4), dtype=torch.float32)
        vector = new(len(MOMENTS), dtype=torch.float64)
        if bounds is None:
            vector.fill_(math.nan)
        peaks, activity = self._unit_sums(tensor, arrangement.units if per_unit else 1)
        low, high = (bounds[0] + NEAR, bounds[1] - NEAR) if bounds is not None else (0.0, 0.0)
        options: dict[str, Any] = {"BLOCK": _BLOCK, "BOUNDS": bounds is not None}
        with torch.cuda.device_of(tensor):
            self._kernels.read[(blocks, chunks)](
                tensor, sums[0], sums[1], read_parts, peaks, activity, samples, features, rows,
                arrangement.units, arrangement.inner, low, high, PER_UNIT=per_unit, **options,
            )  # fmt: skip
            self._kernels.per_feature[(blocks,)](
                tensor, sums[0], sums[1], feature_parts, samples, features, chunks, BLOCK=_BLOCK
            )
            self._kernels.together[(1,)](
                read_parts, feature_parts, vector, samples, blocks * chunks, blocks, **options
            )
        units: Units | None = None
        if per_unit:
            count = samples * arrangement.outer * arrangement.inner
            units = peaks.view(torch.float32), activity / count
        return Moments(vector, units)

    @staticmethod
    def _unit_sums(tensor: torch.Tensor, units: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Zeros to start from: bits of the peaks, sums of magnitudes."""
        both = torch.zeros((2, units), dtype=torch.float32, device=tensor.device)
        return both[0].view(torch.int32), both[1]


def grid(samples: int, features: int) -> tuple[int, int, int]:
    """Blocks of features, chunks of samples, samples per chunk: enough programs to fill the device."""
    blocks = -(-features // _BLOCK)
    most = max(samples // _FEWEST_ROWS, 1)
    chunks = min(max(_PROGRAMS // blocks, 1), most)
    rows = -(-samples // chunks)
    return blocks, -(-samples // rows), rows
