"""Which kernel takes a tensor's statistics: the CPU's own, Triton's on CUDA, else the plain definition."""

from __future__ import annotations

import torch

from torchwatch.probes._moments import Bounds, Moments, Units, arrange, reference, reference_units
from torchwatch.probes._moments_cpu import CpuKernels
from torchwatch.probes._moments_triton import TritonKernels


class Kernels:
    """Statistics of tensors on any device, in any layout of memory; never a synchronisation."""

    def __init__(self) -> None:
        self._cpu = CpuKernels()
        self._cuda = TritonKernels()

    def moments(
        self,
        tensor: torch.Tensor,
        axis: int | None,
        *,
        bounds: Bounds | None = None,
        nonnegative: bool = False,
    ) -> Moments:
        """As :func:`~torchwatch.probes._moments.reference`; ``axis``: that of the units, if wanted."""
        lying, arrangement = arrange(tensor, axis)
        own = {"cpu": self._cpu.moments, "cuda": self._cuda.moments}
        take = own.get(lying.device.type, reference)
        return take(lying, arrangement, per_unit=axis is not None, bounds=bounds, nonnegative=nonnegative)

    def units(self, tensor: torch.Tensor, axis: int) -> Units:
        """Peaks and activity, as :func:`~torchwatch.probes._moments.reference_units`."""
        lying, arrangement = arrange(tensor, axis)
        take = self._cpu.units if lying.device.type == "cpu" else reference_units
        return take(lying, arrangement)

    def square(self, tensor: torch.Tensor) -> float | torch.Tensor:
        """Σx² of a tensor, in double precision; a number on the CPU, else a tensor of shape ()."""
        copies = 1
        for axis in range(tensor.dim() - 1, -1, -1):
            if tensor.stride(axis) == 0 and tensor.shape[axis] > 1:  # expanded, as the gradient of a mean is
                copies *= tensor.shape[axis]
                tensor = tensor.select(axis, 0)
        lying, _ = arrange(tensor, None)
        if lying.device.type == "cpu":
            return copies * self._cpu.square(lying)
        wide = torch.float32 if lying.device.type == "mps" else torch.float64
        norm: torch.Tensor = torch.linalg.vector_norm(lying, dtype=wide)
        return norm * norm * copies
