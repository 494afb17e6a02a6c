"""Can more be learned? The experiment that tells training, architecture, data and task apart.

Copies of the model and a reference learner get the training data for a short while, and all are judged on
the same held-out samples. A copy that improves when it goes on says that training ended too early; one that
improves when it starts anew says that training went wrong; a reference that does better where the model
cannot says that the architecture is in the way; where nothing does better, the data or the task is the limit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from torchwatch.examinations import tasks
from torchwatch.examinations._reference_learner import Reference, features
from torchwatch.examinations._training import MEMORISED, Data, Learned, learn, memorised, mistakes
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.examinations.samples import Samples, take
from torchwatch.results import Remark
from torchwatch.results.relearning import Attempt, Relearning

_MOST_TRAINED_ON = 2_000
_MOST_REFERENCE = 1_500
_FORMS = {
    "linear": "linear ridge regression",
    "Gaussian": "kernel ridge regression",
    "sparse": "linear regression on the best of the inputs",
}
_STOP_SHARE = 0.2
_LEARNED_BY_HEART = 0.5
_WINSORISED = 10.0
"""Largest error of a sample in a comparison of two learners, in units of the naive error."""
_WORTH_A_WARNING = 0.05
"""Gain, as a share of the naive error: with many samples a far smaller one is sure, and no fault."""
_FOLDS = 5


def examine(case: Case) -> Relearning:
    """Train copies for a short while and compare them with the patient."""
    data = _data(case)
    test = tasks.canonical_targets(data.test_targets, case.task)
    naive = _naive(data, test)
    if not float(naive.mean()) > 0:
        raise NotApplicable("all targets are the same: there is nothing to learn, pass data with others")
    patient_errors = mistakes(case.predict(data.test_inputs), test, case)
    rows = torch.cat([data.fit, data.stop])
    train_error = float(mistakes(case.predict(data.of(rows)), data.canonical(rows), case).mean())
    judge = _Judge(case, naive, patient_errors, test, data)
    attempts = [judge.attempt("patient", "the model as it is", patient_errors, train_error)]
    remarks: list[Remark] = []
    for number, (name, what) in enumerate(_TRAINED.items()):
        case.tick(number, 4)
        learned = learn(case, data, restart=name == "restarted")
        if learned is None:
            remarks.append(Remark("info", f"Not tried: {what}; its training steps take too long here."))
            continue
        attempts.append(judge.trained(name, what, learned))
    case.tick(2, 4)
    attempts += [judge.attempt(*reference) for reference in _references(case, data)]
    case.tick(3, 4)
    result = Relearning(
        metric="share of wrong answers" if case.task.classifies else "squared error",
        naive_error=float(naive.mean()),
        attempts=tuple(attempts),
        memorised=memorised(case, data),
        memorised_samples=min(MEMORISED, len(data.fit)),
        trained_on=len(rows),
        tested_on=len(test),
        own_split=data.own_split,
        remarks=tuple(remarks),
    )
    return replace(result, remarks=_said(result))


_TRAINED = {
    "continued": "a copy that trains on from the model's weights",
    "restarted": "a copy with fresh weights",
}


def _data(case: Case) -> Data:
    """Training samples of the user, else a part of the samples themselves."""
    if case.inputs.train_data is not None:
        train: Samples = take(case.inputs.train_data, _MOST_TRAINED_ON, case.options.seed)
        if train.targets is None:
            raise NotApplicable("the training data hold no targets: pass batches (inputs, targets)")
        inputs, targets, own = train.inputs, train.targets, False
        test_inputs, test_targets = case.samples.inputs, case.samples.targets
    else:
        order = torch.from_numpy(case.rng("relearning split").permutation(len(case.samples)))
        cut = int(0.7 * len(order))
        chosen, rest = order[:cut].sort()[0], order[cut:].sort()[0]
        inputs = {k: v[chosen] for k, v in case.samples.inputs.items()}
        test_inputs = {k: v[rest] for k, v in case.samples.inputs.items()}
        assert case.samples.targets is not None
        targets, test_targets, own = case.samples.targets[chosen], case.samples.targets[rest], True
    assert test_targets is not None
    inputs, targets = _numbers_only(inputs, targets)
    test_inputs, test_targets = _numbers_only(test_inputs, test_targets)
    count = targets.shape[0]
    if count < 2 * _FOLDS or test_targets.shape[0] < _FOLDS:
        raise NotApplicable(f"{count} training samples are too few to learn from: pass train_data")
    order = torch.from_numpy(case.rng("relearning stop").permutation(count))
    cut = max(1, int(_STOP_SHARE * count))
    return Data(case, inputs, targets, order[cut:], order[:cut], test_inputs, test_targets, own)


def _numbers_only(inputs: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The samples whose targets and inputs are numbers: one NaN or infinity among them ends all learning.

    Where hardly any sample is without a gap in its inputs, the model is made for gaps and gets them.
    """
    if not targets.numel():
        return inputs, targets
    kept = _finite(targets)
    for value in inputs.values():
        finite = _finite(value)
        if float(finite.float().mean()) > 0.5:
            kept &= finite
    return {k: v[kept] for k, v in inputs.items()}, targets[kept]


def _finite(tensor: Tensor) -> Tensor:
    """Which samples hold neither NaN nor infinity (N,)."""
    return torch.isfinite(tensor).reshape(tensor.shape[0], -1).all(1)


def _naive(data: Data, test: Tensor) -> Tensor:
    """Errors of the training samples' best constant answer (N,)."""
    case = data.case
    train = tasks.canonical_targets(data.targets, case.task)
    if case.task.name == "regression":
        mean = train.nanmean(0, keepdim=True)
        return tasks.errors(mean.expand_as(test), test, case.task)
    if case.task.name in ("binary", "multilabel"):
        majority = (train.mean(0, keepdim=True) > 0.5).to(test.dtype).expand_as(test)
        return (majority != (test > 0.5)).double().mean(1)
    counts = torch.bincount(train[train != tasks.IGNORED])
    wrong = (test != int(counts.argmax())).double() * (test != tasks.IGNORED)
    return wrong if wrong.ndim == 1 else wrong.sum(1) / (test != tasks.IGNORED).sum(1).clamp(min=1)


class _Judge:
    """Compares each learner's errors with the patient's, sample by sample."""

    def __init__(self, case: Case, naive: Tensor, patient: Tensor, test: Tensor, data: Data) -> None:
        self._case, self._naive, self._patient, self._test, self._data = case, naive, patient, test, data
        self._scale = max(float(naive.mean()), 1e-12)

    def attempt(
        self, name: str, what: str, errors: Tensor, train_error: float, steps: int = 0, seconds: float = 0.0
    ) -> Attempt:
        skill, spread = self._mean(self._naive - errors)
        most = _WINSORISED * self._scale  # a few absurd outputs must not drown a difference in all others
        gain, apart = self._mean(_at_most(self._patient, most) - _at_most(errors, most))
        return Attempt(
            name,
            what,
            float(errors.mean()),
            train_error,
            skill,
            (skill - spread, skill + spread),
            gain,
            (gain - apart, gain + apart),
            steps,
            seconds,
        )

    def _mean(self, differences: Tensor) -> tuple[float, float]:
        """Mean of differences by sample in units of the naive error, and half of its 95 % interval."""
        scaled = differences.double() / self._scale
        return float(scaled.mean()), 1.96 * float(scaled.std()) / max(2, len(scaled)) ** 0.5

    def trained(self, name: str, what: str, learned: Learned) -> Attempt:
        case, data = self._case, self._data
        errors = mistakes(case.predict(data.test_inputs, learned.model), self._test, case)
        rows = data.fit
        seen = case.predict(data.of(rows), learned.model)
        train_error = float(mistakes(seen, data.canonical(rows), case).mean())
        return self.attempt(name, what, errors, train_error, learned.steps, learned.seconds)


def _at_most(errors: Tensor, most: float) -> Tensor:
    """Errors up to a largest one, which an output that is no number has as well."""
    return errors.nan_to_num(most, most).clamp(max=most)


def _references(case: Case, data: Data) -> list[tuple[str, str, Tensor, float]]:
    """A reference learner on the main input, from the training and from the other held-out samples.

    None for tokens, where it has no say. Where only the second one finds something, the training samples do
    not show what the held-out ones show.
    """
    if case.task.name == "token":
        return []
    rows = torch.cat([data.fit, data.stop])[:_MOST_REFERENCE]
    test = tasks.canonical_targets(data.test_targets, case.task)
    held_out = features(data.test_inputs[case.main])
    learner = Reference(features(data.inputs[case.main][rows]), _as_numbers(data.canonical(rows), case))
    what = f"a reference learner ({_FORMS[learner.kernel]}) on the raw inputs"
    left_out = float(mistakes(_as_outputs(learner.left_out, case), data.canonical(rows), case).mean())
    errors = mistakes(_as_outputs(learner.predict(held_out), case), test, case)
    within = Reference(held_out[:_MOST_REFERENCE], _as_numbers(test[:_MOST_REFERENCE], case))
    own = mistakes(_as_outputs(within.left_out, case), test[:_MOST_REFERENCE], case)
    found = [("reference", what, errors, left_out)]
    if len(own) == len(errors):
        what = "the same from the other held-out samples"
        found.append(("reference_within", what, own, float(own.mean())))
    return found


def _as_numbers(targets: Tensor, case: Case) -> Tensor:
    if case.task.name == "multiclass":
        return nn.functional.one_hot(targets.clamp(min=0), case.outputs.shape[-1]).double()
    return targets.double()


def _as_outputs(numbers: Tensor, case: Case) -> Tensor:
    """Regressed labels as outputs: 0.5 is the border between them, in logits 0."""
    if case.task.name in ("binary", "multilabel") and not case.task.probabilities:
        return numbers - 0.5
    return numbers


def _said(result: Relearning) -> tuple[Remark, ...]:
    """What the attempts show, in sentences."""
    patient = result.attempts[0]
    said = list(result.remarks)
    if result.own_split:
        text = (
            "No training data were given: the attempts learned from 70 % of the samples and were judged on "
            "the rest, and the model may have been trained on either."
        )
        said.append(Remark("info", text, "Pass train_data= to compare on held-out samples."))
    for attempt in result.attempts[1:]:
        if attempt.better:
            text = (
                f"{attempt.what[0].upper()}{attempt.what[1:]} reaches a skill of {attempt.skill:.3f} on "
                f"held-out samples; the model's is {patient.skill:.3f}."
            )
            said += [Remark("warning" if attempt.gain >= _WORTH_A_WARNING else "info", text)]
    if result.memorised < _LEARNED_BY_HEART:
        text = (
            f"A copy with fresh weights could not learn {result.memorised_samples} samples by heart: "
            f"{max(0.0, result.memorised):.0%} of their error went away."
        )
        fix = "Look for what blocks the signal: dead units, a bottleneck, a saturating output, frozen layers."
        said.append(Remark("warning", text, fix))
    return tuple(said)


EXAMINATION = Examination(
    title="Can more be learned?",
    examine=examine,
    tells="whether training on, starting anew or another learner gets more out of the same data",
    after=("predictions", "baselines"),
    needs_targets=True,
)
