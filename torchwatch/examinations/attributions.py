"""Attributions: which parts of the input the output depends on, by six methods of Captum.

Integrated Gradients (Sundararajan et al. 2017) come first: they add up to the change of the output, which is
measured. Each method's map is compared with those of randomised copies of the model (Adebayo et al. 2018); a
map that stays the same shows the input, not the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from torchwatch.examinations._attribution_methods import (
    INTERNAL_BATCH,
    METHODS,
    Batch,
    Maps,
    Method,
    assert_deep_lift_applies,
    noise_of,
)
from torchwatch.examinations._attribution_remarks import remarks_on
from torchwatch.examinations._explained import Explained, Subject, pliable, reseed, seeded, subject
from torchwatch.examinations._profiles import Tally
from torchwatch.examinations._randomisation import Explain, check
from torchwatch.examinations._references import Reference, reference
from torchwatch.examinations._targets import Target, target_of
from torchwatch.examinations.case import OutOfTime
from torchwatch.examinations.chunks import in_chunks, out_of_memory
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results.attributions import (
    Attributions,
    Convergence,
    MethodAttribution,
    OutputAttribution,
    Randomisation,
)
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case

_ROWS = 128
"""Samples of a chunk: a training batch's worth of memory."""
_OUTPUTS = 4
"""Up to this many outputs are also attributed one by one."""
_CHECKED, _CHECK_STEPS, _CHECK_DRAWS = 16, 20, 2
"""Samples, steps of Integrated Gradients, and draws of the other methods in the randomisation check."""
_TOLERATED = 0.05


@dataclass
class _Work:
    """The samples with their baseline, and what was found so far."""

    subject: Subject
    reference: Reference
    case: Case
    noise: float
    tallies: dict[str, Tally] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)


def examine(case: Case) -> Attributions:
    """Run every method that the model allows.

    Raises:
        NotApplicable: the output has no gradient with respect to the input.
        OutOfTime: the time limit is over before the first method is done.
    """
    chosen = subject(case, case.options.attribution_samples, "attributions")
    work = _Work(chosen, reference(chosen, case.options.ig_baseline), case, noise_of(chosen.main))
    outputs = _single_outputs(case)
    total = len(METHODS) + len(outputs) + 1
    with seeded(case, "attributions"):
        for number, method in enumerate(METHODS):
            case.progress(number, total)
            _run(work, method)
        if not work.tallies:
            raise NotApplicable(next(iter(work.not_run.values())))
        singles = tuple(_of_output(work, output, len(METHODS) + i, total) for i, output in enumerate(outputs))
        checked = _checked(work, total)
    return _result(work, tuple(s for s in singles if s is not None), checked)


def _result(
    work: _Work, outputs: tuple[OutputAttribution, ...], checked: dict[str, Randomisation]
) -> Attributions:
    case, chosen = work.case, work.subject
    methods = tuple(
        MethodAttribution(
            m.name, m.title, tally.profiles(), tally.convergence() if m.adds_up else None, checked.get(m.name)
        )
        for m in METHODS
        if (tally := work.tallies.get(m.name)) is not None
    )
    result = Attributions(
        explained=chosen.target.words,
        place=chosen.words,
        axes=case.axes,
        baseline=work.reference.words,
        samples=len(chosen),
        n_steps=case.options.ig_n_steps,
        methods=methods,
        outputs=outputs,
        overview=work.tallies[methods[0].method].overview() if len(case.axes) > 1 else None,
        not_run=tuple((m.title, work.not_run[m.name]) for m in METHODS if m.name in work.not_run),
        sample_rate=case.inputs.sample_rate,
    )
    return remarks_on(result, chosen.left_out)


def _run(work: _Work, method: Method) -> None:
    """Run one method; what keeps it from running is noted, and the others go on."""
    try:
        tally = _tallied(work, method)
    except OutOfTime as over:
        if not work.tallies:
            raise
        work.not_run[method.name] = str(over)
    except NotApplicable as reason:
        work.not_run[method.name] = str(reason)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:200]
        work.not_run[method.name] = f"it raised {type(error).__name__}: {text}"
    else:
        work.tallies[method.name] = tally


def _tallied(work: _Work, method: Method) -> Tally:
    case = work.case
    if method.name == "deep_lift":
        assert_deep_lift_applies(case)
    model = pliable(case) if method.pliable else None
    tally = Tally(case.axes, case.names_along)
    for maps, delta in _chunks(work, method, work.subject.model(model)):
        tally.add(maps, delta)
    if not tally.finite:
        raise NotApplicable("its attributions are NaN or infinite")
    convergence = tally.convergence()
    if method.pliable and convergence is not None and not convergence.ratio <= _TOLERATED:
        raise NotApplicable(
            f"its contributions miss the change of the output by {percent(convergence.ratio)}: some "
            "activation is out of its reach, as a function instead of a module (`F.relu`) or one without a "
            "DeepLift rule; Integrated Gradients stand in"
        )
    return tally


def _chunks(work: _Work, method: Method, model: Explained, target: Target | None = None) -> Iterator[Maps]:
    """Maps of all samples, a chunk at a time; of embedded inputs summed over the embedding."""
    count, size = len(work.subject), min(_ROWS, work.case.options.chunk)

    def explain(start: int, end: int) -> Maps:
        full = end - start == min(size, count - start)  # smaller: memory ran out at this size
        batch = _batch(work, slice(start, end), target)
        rows = max(INTERNAL_BATCH, end - start) if full else end - start
        maps, delta = method.explain(model, replace(batch, rows=rows, n_steps=work.case.options.ig_n_steps))
        return work.subject.per_axis(maps), delta

    for _, _, done in in_chunks(explain, count, size):
        yield done


def _batch(work: _Work, rows: slice, target: Target | None = None) -> Batch:
    main, extra = work.subject.rows(rows, target)
    device = main.device
    reference_rows = work.reference.values[rows].to(device)
    return Batch(main, extra, reference_rows, work.reference.pool.to(device), 0, noise=work.noise)


def _single_outputs(case: Case) -> range:
    """Outputs that are explained one by one: those of regression and multilabel, where they are few."""
    count = case.outputs.shape[-1]
    several = case.task.name in ("regression", "multilabel") and 1 < count <= _OUTPUTS
    return range(count if several else 0)


def _of_output(work: _Work, output: int, number: int, total: int) -> OutputAttribution | None:
    """Integrated Gradients of one output; None where the time for it is over."""
    case = work.case
    case.progress(number, total)
    target = target_of(case, work.subject.index, output)
    tally = Tally(case.axes, case.names_along)
    try:
        for maps, delta in _chunks(work, METHODS[0], work.subject.model(), target):
            tally.add(maps, delta)
    except OutOfTime:
        return None
    convergence = tally.convergence() or Convergence(0.0, 0.0, float("nan"), float("nan"))
    names = case.class_names
    return OutputAttribution(
        names[output] if output < len(names) else str(output), tally.profiles(), convergence
    )


def _checked(work: _Work, total: int) -> dict[str, Randomisation]:
    """The randomisation check of every method that ran; nothing where time or memory for it is over."""
    case = work.case
    batch = replace(_batch(work, slice(0, _CHECKED)), n_steps=_CHECK_STEPS, draws=_CHECK_DRAWS)

    def explaining(method: Method) -> Explain:
        def explain(model: nn.Module) -> Tensor:
            reseed(case.options.seed)  # the same draws before and after: only the weights differ
            return work.subject.per_axis(method.explain(work.subject.model(model), batch)[0])

        return explain

    explains = {m.name: explaining(m) for m in METHODS if m.name in work.tallies}
    try:
        return check(case, lambda: pliable(case), explains, lambda *_: case.tick(total - 1, total))
    except OutOfTime:
        return {}
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return {}


EXAMINATION = Examination(
    title="Attributions",
    examine=examine,
    tells="which parts of the input the output depends on",
)
