"""What the examination of the data's quality yields.

One file of more than 300 lines, because its dataclasses are one result and most of it describes their fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SplitAbout:
    """What was looked at of a split.

    Attributes:
        name: ``data`` or ``train``.
        samples: how many samples were looked at.
        available: how many there are; None where that is not known.
        neighbours: pairs of samples that follow each other directly in the data.
        nonfinite_inputs: NaN and infinite entries of all inputs.
        nonfinite_targets: those of the targets.
    """

    name: str
    samples: int
    available: int | None
    neighbours: int
    nonfinite_inputs: int
    nonfinite_targets: int


@dataclass(frozen=True, slots=True)
class BadValue:
    """Where a value is NaN or infinite.

    Attributes:
        split: ``data`` or ``train``.
        where: name of the input, or ``targets``.
        sample: index of the sample in its data.
        channel: name of the channel (or feature); empty where there is none.
        place: index along the other axes, such as ``time 17``; empty where there are none.
        value: ``nan``, ``inf`` or ``-inf``.
    """

    split: str
    where: str
    sample: int
    channel: str
    place: str
    value: str


@dataclass(frozen=True, slots=True)
class Channels:
    """The main input, channel by channel (or feature by feature); all in the unit of the input.

    Attributes:
        axis: ``channel``, ``feature``, or ``input`` where the input has no such axis.
        names: of the channels (C).
        mean: over samples and places (C,).
        std: the same (C,).
        least: smallest value (C,).
        most: largest value (C,).
        flat: the channel never changes (C,).
        flat_share: share of samples within which the channel does not change, 0 to 1 (C,); NaN where a
            sample has one value per channel.
        outliers: values more than 5 standard deviations from the channel's mean (C,); 0 in channels of at
            most 10 different values.
        worst_z: the largest such distance, in standard deviations (C,); NaN as above and for flat channels.
        worst_sample: index in the data of the sample it is in (C,); −1 where there is none.
        train_mean: over the training samples (C,); NaN without them.
        train_std: the same (C,).
        shift: ``(mean − train_mean) / train_std`` (C,); NaN without training data.
        level_ks: Kolmogorov–Smirnov statistic between the splits' levels (mean of the channel in a
            sample), 0 to 1 (C,); NaN without training data.
    """

    axis: str
    names: tuple[str, ...]
    mean: Floats
    std: Floats
    least: Floats
    most: Floats
    flat: Flags
    flat_share: Floats
    outliers: Integers
    worst_z: Floats
    worst_sample: Integers
    train_mean: Floats
    train_std: Floats
    shift: Floats
    level_ks: Floats


@dataclass(frozen=True, slots=True)
class Copies:
    """Samples that are there twice, by a hash of all inputs.

    Attributes:
        within_data: samples of the data that are a copy of an earlier one.
        within_train: the same of the training data; None without them.
        across: samples of the data that are in the training data too; None without them.
        conflicting: copies whose targets differ from the original's.
        examples: up to 20 pairs (split, index, split, index).
        near_within_data: samples that come within 5 % (root mean square, in standard deviations) of an
            earlier one without being a copy; None where it was not looked for.
        near_across: samples of the data that come as close to a training sample; None as above.
        near_examples: up to 20 such pairs.
    """

    within_data: int
    within_train: int | None
    across: int | None
    conflicting: int
    examples: tuple[tuple[str, int, str, int], ...]
    near_within_data: int | None
    near_across: int | None
    near_examples: tuple[tuple[str, int, str, int], ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Windows cut from one recording: the tail of one sample is the head of another.

    Attributes:
        neighbours: pairs of samples, one behind the other, that were looked at.
        overlapping: how many of them share a stretch.
        shift: median number of bins from one window to the next where they overlap; NaN where none do.
        length: bins of a window.
        across: samples of the data that share a stretch with a training sample; None without training data.
        examples: up to 20 (index in the data, index in the training data, shared bins).
    """

    neighbours: int
    overlapping: int
    shift: float
    length: int
    across: int | None
    examples: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class GroupOverlap:
    """Groups that both splits have.

    Attributes:
        column: metadata column that names the group.
        given: whether it was said to be the group, or only has a name such as ``subject``.
        shared: names of the groups in both, at most 50.
        count: how many groups are in both.
        share: share of the data's samples that belong to them, 0 to 1.
    """

    column: str
    given: bool
    shared: tuple[str, ...]
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Labels:
    """The targets. Of a number K outputs; of classes K of them; of labels that can each hold K of them.

    Attributes:
        kind: ``numbers``, ``classes`` or ``labels``.
        names: of outputs, classes or labels (K).
        count: finite values of an output, samples of a class, samples with a label (K,).
        train_count: the same in the training data (K,); empty without them.
        share: ``count`` over the samples (K,); over tokens for a token task.
        train_share: the same for the training data (K,); empty without them.
        mean: of each output, in its unit (K,); empty for classes and labels, as are the next ones.
        std: (K,).
        commonest: share of the values that equal the commonest one (K,), 0 to 1.
        quantiles: 101 quantiles of each output, from the least to the most (K, 101).
        train_quantiles: the same for the training data (K, 101).
        absent: classes or labels of which the data hold no sample.
        train_absent: those that the data hold and the training data do not.
        majority: share of the commonest class, 0 to 1; NaN for numbers and labels.
        imbalance: samples of the commonest class over those of the rarest present; NaN as above.
    """

    kind: str
    names: tuple[str, ...]
    count: Integers
    train_count: Integers
    share: Floats
    train_share: Floats
    mean: Floats
    std: Floats
    commonest: Floats
    quantiles: Floats
    train_quantiles: Floats
    absent: tuple[str, ...]
    train_absent: tuple[str, ...]
    majority: float
    imbalance: float


@dataclass(frozen=True, slots=True)
class LabelShift:
    """How the targets differ between training data and data. Significance never stands alone: sizes do.

    Attributes:
        names: of the outputs (K); of classes one entry for the whole distribution; of labels each (K).
        samples: values compared in the data (K,).
        train_samples: values compared in the training data (K,).
        ks: Kolmogorov–Smirnov statistic, 0 to 1 (K,); NaN for classes and labels.
        p: its asymptotic p value, for independent samples (K,); NaN as above.
        wasserstein: first Wasserstein distance over the training targets' standard deviation (K,); NaN as
            above.
        variation: total variation distance, 0 to 1 (K,); NaN for numbers.
        chance: 95 % quantile of that distance between two draws of these sizes from one distribution (K,).
    """

    names: tuple[str, ...]
    samples: Integers
    train_samples: Integers
    ks: Floats
    p: Floats
    wasserstein: Floats
    variation: Floats
    chance: Floats


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Groups of the data beside all others.

    Attributes:
        column: what names the group.
        names: of the groups (G), the largest first, at most 200.
        samples: in each (G,).
        few: fewer than 5 samples (G,): nothing else is computed for those.
        target_shift: of numbers the difference of means over the standard deviation, of the output with the
            largest; of classes the total variation distance to all others (G,).
        target_ks: largest Kolmogorov–Smirnov statistic of an output against all others (G,); NaN for classes.
        target_p: its p value (G,); NaN for classes.
        input_shift: largest difference of a channel's mean, over its standard deviation (G,).
        input_channel: which channel that is (G).
        explained: share of the targets' variance between groups, corrected for their number (ε², up to 1);
            NaN without targets.
    """

    column: str
    names: tuple[str, ...]
    samples: Integers
    few: Flags
    target_shift: Floats
    target_ks: Floats
    target_p: Floats
    input_shift: Floats
    input_channel: tuple[str, ...]
    explained: float


@dataclass(frozen=True, slots=True)
class Order:
    """Whether samples that follow each other are alike.

    Attributes:
        split: ``data`` or ``train``.
        pairs: neighbours that were compared.
        targets: lag-1 autocorrelation of the targets, −1 to 1; NaN where unknown.
        inputs: mean correlation of the inputs of neighbours, less that of random pairs; NaN as above.
    """

    split: str
    pairs: int
    targets: float
    inputs: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """Whether inputs fit the targets of other samples better than their own.

    A linear probe is trained on one half of the samples and scored on the other, both ways, with the target
    of the sample ``lag`` places later.

    Attributes:
        split: ``data`` or ``train``.
        lags: −5 … 5 (L,).
        probe: correlation of held-out predictions of the probe with the targets, at each lag (L,).
        model: the same for the predictions of the model (L,); NaN for training data.
        pairs: samples compared at each lag (L,).
        best: the lag other than 0 that fits best, by probe or model.
        gain: how much better it fits than lag 0, as a correlation.
        gain_low: lower end of the interval of ``gain``, corrected for the ten lags looked at.
        shifted: ``gain_low`` is above 0 and the samples are independent enough for that to mean something.
        excused: why a better fit is no sign here (overlapping windows, targets that change slowly), or empty.
    """

    split: str
    lags: Integers
    probe: Floats
    model: Floats
    pairs: Integers
    best: int
    gain: float
    gain_low: float
    shifted: bool
    excused: str


@dataclass(frozen=True, slots=True)
class LinearSkill:
    """How much of the targets a linear model can tell: evidence that there is a signal in the data at all.

    Attributes:
        split: where it was trained and scored, by halves: ``train`` where given, else ``data``.
        samples: how many samples.
        features: how many features the probe had, after averaging along time and space.
        skill: 1 − squared error over that of the mean, held out: 1 perfect, 0 no better than the mean. Of
            classes the squared error of their indicators (Brier).
        low: lower end of its 95 % bootstrap interval over samples.
        high: upper end.
        correlation: of held-out predictions and targets, −1 to 1.
        permuted: 95 % quantile of that correlation with permuted targets.
        p: share of permutations that reach it, at least 1 ⁄ (permutations + 1).
        beats_chance: ``correlation`` is above all permuted ones and above 2.6 ⁄ √samples.
    """

    split: str
    samples: int
    features: int
    skill: float
    low: float
    high: float
    correlation: float
    permuted: float
    p: float
    beats_chance: bool


@dataclass(frozen=True, slots=True)
class DataQuality:
    """The quality of the data: of what is examined, and of training data where they are given.

    Attributes:
        task: kind of task.
        splits: what was looked at: ``data`` first.
        bad_values: up to 50 NaN and infinite values with their places.
        channels: per channel; None for integer inputs.
        copies: duplicates.
        overlap: of windows along a time or token axis; None where there is none.
        group_overlaps: groups in both splits, by column.
        labels: None without targets.
        label_shift: None without training targets.
        cohorts: None without groups.
        order: one per split.
        alignment: one per split where a probe could be trained.
        linear_skill: None where a probe could not be trained.
        not_checked: sentences about what could not be looked at, and why.
        remarks: what there is to say.
    """

    task: str
    splits: tuple[SplitAbout, ...]
    bad_values: tuple[BadValue, ...]
    channels: Channels | None
    copies: Copies
    overlap: Overlap | None
    group_overlaps: tuple[GroupOverlap, ...]
    labels: Labels | None
    label_shift: LabelShift | None
    cohorts: Cohorts | None
    order: tuple[Order, ...]
    alignment: tuple[Alignment, ...]
    linear_skill: LinearSkill | None
    not_checked: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    def split(self, name: str) -> SplitAbout | None:
        """What was looked at of a split; None where it was not given."""
        return next((s for s in self.splits if s.name == name), None)
