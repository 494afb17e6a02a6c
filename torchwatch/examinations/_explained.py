"""The patient as Captum takes it: samples in, one number per sample out.

Integer inputs have no gradient. They are explained at their embedding: the wrapper takes embedded samples and
puts them in the place of what the embedding layer gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.examinations._placing import unwrapped
from torchwatch.examinations._targets import Target, target_of
from torchwatch.examinations.axes import integer
from torchwatch.examinations.examination import NotApplicable
from torchwatch.examinations.untouched import random_numbers_untouched

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case


class Explained(nn.Module):
    """``forward(main, ids, weights, given, *others)`` → one number per sample (n,).

    Args:
        case: whose samples and task.
        model: the patient, or a copy of it.
        embedding: where integer inputs are embedded, by name; None where the main input is a number itself.
        beat: called at every forward pass.
    """

    def __init__(
        self,
        case: Case,
        model: nn.Module,
        embedding: str | None = None,
        beat: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._case = case
        self._embedding = None if embedding is None else model.get_submodule(embedding)
        self._beat = beat or case.check_time

    def forward(self, main: Tensor, ids: Tensor, weights: Tensor, given: Tensor, *others: Tensor) -> Tensor:
        """Explained number of each sample.

        ``given`` are the integers that the main input stands for, of no width where it is the input itself;
        ``others`` are the other inputs in their order.
        """
        self._beat()
        shown = main.clone()  # a model that changes its input in place must not change a leaf of the graph
        if self._embedding is None:
            return self._score(self._outputs(shown, others), ids, weights)
        with _instead_of(self._embedding, given, shown):
            return self._score(self._outputs(given, others), ids, weights)

    def _outputs(self, main: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        rest = iter(others)
        names = self._case.samples.inputs
        return self._case.forward(
            {k: main if k == self._case.main else next(rest) for k in names}, self.model
        )

    @staticmethod
    def _score(outputs: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        if outputs.ndim == 2:
            return outputs.gather(1, ids).sum(1)
        picked = outputs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        return (picked * weights.to(picked.dtype)).sum(1)


@contextmanager
def _instead_of(embedding: nn.Module, given: Tensor, shown: Tensor) -> Iterator[None]:
    """Let the embedding of the main input be what is shown; other uses of the layer stay as they are."""

    def replace(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        of_main = args and isinstance(args[0], Tensor) and _same_ids(args[0], given)
        return shown.reshape(output.shape).to(output.dtype) if of_main else None

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _same_ids(seen: Tensor, given: Tensor) -> bool:
    return seen.numel() == given.numel() and torch.equal(seen.reshape(-1), given.reshape(-1).to(seen))


@dataclass(frozen=True)
class Subject:
    """The samples that are explained, and how.

    Attributes:
        case: the case.
        index: places of the samples among the case's (n,).
        main: main input as it is attributed, on the CPU: floats, embedded where ``embedding`` is set (n, …).
        target: what is explained of each.
        embedding: name of the embedding layer; None for inputs that are numbers.
        left_out: samples that were left out because they hold NaN or infinity.
    """

    case: Case
    index: np.ndarray[Any, np.dtype[np.int64]]
    main: Tensor
    target: Target
    embedding: str | None
    left_out: int = 0

    def __len__(self) -> int:
        return int(self.index.size)

    @property
    def words(self) -> str:
        """What was attributed to, for people."""
        name = f"input `{self.case.main}`"
        return name if self.embedding is None else f"embedding `{self.embedding}` of {name}"

    def model(self, model: nn.Module | None = None, beat: Callable[[], None] | None = None) -> Explained:
        """The patient, or a copy, as Captum takes it."""
        return Explained(self.case, self.case.model if model is None else model, self.embedding, beat)

    def rows(self, rows: slice, target: Target | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Main input and the further arguments of some samples, on the device."""
        device, inputs = self.case.device, self.case.samples.inputs
        picked = torch.from_numpy(self.index[rows])
        others = [v[picked] for k, v in inputs.items() if k != self.case.main]
        given = inputs[self.case.main][picked]
        given = given if self.embedding is not None else given.new_empty(len(picked), 0)
        extra = (*(target or self.target).of(rows), given, *others)
        return self.main[rows].to(device), tuple(t.to(device) for t in extra)

    def embedded(self, ids: Tensor) -> Tensor:
        """Other values of the main input in the form in which it is attributed, on the CPU.

        Args:
            ids: (n, …) as the data hold them.
        """
        if self.embedding is None:
            return ids.float() if not ids.is_floating_point() else ids
        layer = self.case.model.get_submodule(self.embedding)
        with torch.no_grad():
            vectors: Tensor = layer(ids.to(self.case.device))
        return vectors.cpu()

    def per_axis(self, attributions: Tensor) -> Tensor:
        """Attributions with the input's own axes: summed over the embedding's (n, …)."""
        return attributions.sum(-1) if self.embedding is not None else attributions


def subject(case: Case, count: int, purpose: str) -> Subject:
    """Choose samples and what is explained of them.

    Args:
        case: the case.
        count: how many samples at most.
        purpose: name for the random choice.

    Raises:
        NotApplicable: no finite sample, or an output without a gradient with respect to the input.
    """
    main = case.samples.inputs[case.main]
    finite = _finite(main) & _finite(case.outputs)
    usable = torch.nonzero(finite).reshape(-1).numpy()
    if not usable.size:
        raise NotApplicable("every sample has NaN or infinity in its input or output: see data quality")
    index = np.sort(case.rng(purpose).permutation(usable)[:count])
    picked = torch.from_numpy(index)
    embedding = embedding_of(case) if integer(main) else None
    found = Subject(case, index, main[picked], target_of(case, index), embedding, int((~finite).sum()))
    found = Subject(case, index, found.embedded(main[picked]), found.target, embedding, found.left_out)
    _assert_gradient(found)
    return found


def _finite(tensor: Tensor) -> Tensor:
    return torch.isfinite(tensor.reshape(tensor.shape[0], -1)).all(1)


def _assert_gradient(found: Subject) -> None:
    main, extra = found.rows(slice(0, 1))
    main = main.requires_grad_()
    with torch.enable_grad():
        output = found.model()(main, *extra)
        gradient = (
            torch.autograd.grad(output.sum(), main, allow_unused=True)[0] if output.requires_grad else None
        )
    if gradient is None:
        raise NotApplicable(
            f"the output has no gradient with respect to the {found.words}: nothing can be attributed where "
            "the model detaches it, or computes under torch.no_grad()"
        )


def embedding_of(case: Case) -> str | None:
    """Name of the layer that embeds an integer main input; None where the model takes it as numbers."""
    ids = case.samples.inputs[case.main][:1]
    seen: list[str] = []
    handles = []
    for name, module in case.model.named_modules():
        if isinstance(module, nn.Embedding):

            def note(_: nn.Module, args: tuple[Any, ...], __: Tensor, name: str = name) -> None:
                if args and isinstance(args[0], Tensor) and _same_ids(args[0], ids.to(args[0].device)):
                    seen.append(name)

            handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            case.forward({k: v[:1] for k, v in case.samples.inputs.items()})
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else None


def pliable(case: Case) -> nn.Module:
    """A copy of the model without in-place activations, for hooks that read what is before and after them."""
    twin = unwrapped(case.copy_of_model()).eval()
    for module in twin.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]
    return twin


@contextmanager
def seeded(case: Case, purpose: str) -> Iterator[None]:
    """Inside, torch's and numpy's global random numbers, which Captum draws from, follow the seed."""
    with random_numbers_untouched(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="captum")
        reseed(int(case.rng(purpose).integers(2**31)))
        yield


def reseed(seed: int) -> None:
    """Begin the global random numbers of torch and numpy anew; only inside :func:`seeded`."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that Captum draws from
