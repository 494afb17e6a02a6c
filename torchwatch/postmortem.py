"""``autopsy(model, data)``: examine a trained model and say why it failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchwatch.errors import UsageError
from torchwatch.examinations.case import Options, silent
from torchwatch.examinations.conduct import conduct
from torchwatch.report.write import write_autopsy
from torchwatch.results import Autopsy, AutopsyInputs

if TYPE_CHECKING:
    from torchwatch.diagnosis import Diagnosis

_INPUTS = {f.name for f in dataclasses.fields(AutopsyInputs)}
_OPTIONS = {f.name for f in dataclasses.fields(Options)}


@dataclass(frozen=True, slots=True)
class Examined(Autopsy):
    """An :class:`~torchwatch.results.Autopsy` that can write its report."""

    def report(self, out: str | Path) -> list[Path]:
        """Write ``report.html``, ``report.md``, ``report.json`` and the plots; their paths, the page first.

        Args:
            out: a directory, made if it is not there; readable by its owner alone.

        Raises:
            UsageError: the directory cannot be made or written.
        """
        return write_autopsy(self, Path(out))


def autopsy(
    model: Any,
    data: Iterable[Any] | None = None,
    *,
    examine: Iterable[str] | None = None,
    device: str | None = None,
    diagnosis: Diagnosis | None = None,
    listen: Callable[[str, int, int], None] = silent,
    until_interrupted: bool = False,
    **known: Any,
) -> Examined:
    """Examine a model on data; the model comes back as it was.

    ::

        result = autopsy(model, val_loader, train_data=train_loader, axes=("channel", "time"))
        result.verdict
        result["ablation"].ranking
        result.report("out/")

    Args:
        model: a ``torch.nn.Module``, or :class:`AutopsyInputs` that hold everything.
        data: samples to examine, see :class:`AutopsyInputs`.
        examine: names of examinations (default: all that apply).
        device: where to run (default: where the model is).
        diagnosis: of the training run, from :func:`torchwatch.diagnose`: evidence for the verdict.
        listen: called with an examination's title, how much of it is done, and of how much.
        until_interrupted: at Ctrl-C give what was done so far instead of passing it on.
        known: fields of :class:`AutopsyInputs` (``train_data``, ``loss``, ``task``, ``axes`` …) and of
            :class:`~torchwatch.examinations.case.Options` (``samples``, ``seed``, ``time_limit_s`` …).

    Raises:
        UsageError: no model, no samples, an output that fits no task, an unknown examination or keyword.
    """
    for name in known:
        if name not in _INPUTS | _OPTIONS:
            raise UsageError(f"autopsy() has no argument {name!r}; see AutopsyInputs and Options")
    about = {k: v for k, v in known.items() if k in _INPUTS}
    if isinstance(model, AutopsyInputs):
        if data is not None:
            raise UsageError("pass either AutopsyInputs or a model with data, not both")
        inputs = dataclasses.replace(model, **about)
    elif data is None:
        raise UsageError("autopsy() needs data: a loader, a Dataset or a tuple (inputs, targets)")
    else:
        inputs = AutopsyInputs(model, data, **about)
    options = Options(**{k: v for k, v in known.items() if k in _OPTIONS})
    done = conduct(
        inputs,
        examine=examine,
        options=options,
        device=device,
        diagnosis=diagnosis,
        listen=listen,
        until_interrupted=until_interrupted,
    )
    return Examined(done.about, done.outcomes)
