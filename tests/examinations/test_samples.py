import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from torchwatch.errors import UsageError
from torchwatch.examinations.samples import take

X, Y = torch.arange(30.0).reshape(30, 1), torch.arange(30)


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        n = 0
        while self.count is None or n < self.count:
            yield torch.tensor([float(n)]), n
            n += 1


def assert_pairs(samples):
    """Inputs, targets and places in the data still belong together."""
    assert samples.inputs["input"][:, 0].tolist() == samples.targets.tolist() == samples.index.tolist()


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40), seed=st.integers(0, 5), kind=st.sampled_from(["loader", "set", "tuple", "list"])
)
def test_exactly_as_many_as_asked_for(count, seed, kind):
    batches = [(X[i : i + 7], Y[i : i + 7]) for i in range(0, 30, 7)]
    data = {
        "loader": DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
        "set": TensorDataset(X, Y),
        "tuple": (X, Y),
        "list": batches,
    }[kind]
    samples = take(data, count, seed)
    assert len(samples) == min(count, 30)
    assert len(set(samples.index.tolist())) == len(samples)
    assert samples.available == 30
    assert_pairs(samples)
    assert take(data, count, seed).index.tolist() == samples.index.tolist()


def test_every_sample_is_as_likely():
    drawn = np.zeros(30)
    for seed in range(400):
        drawn[take([(X, Y)], 10, seed).index] += 1
    assert drawn.min() > 85
    assert drawn.max() < 185


def test_an_endless_loader_ends():
    samples = take(DataLoader(Stream(None), batch_size=8), 5, 0)
    assert len(samples) == 5
    assert samples.available is None
    assert_pairs(samples)


def test_batches_of_nothing_without_end_are_no_data():
    with pytest.raises(UsageError, match="no samples"):
        take(((torch.zeros(0, 2), torch.zeros(0)) for _ in itertools.count()), 5, 0)


def test_reading_ends_when_it_is_told_to():
    batches = ((torch.zeros(4, 2), torch.zeros(4)) for _ in itertools.count())
    samples = take(batches, 100, 0, lambda read: read >= 12)
    assert (len(samples), samples.available) == (12, None)
    assert (
        len(take(TensorDataset(torch.zeros(500, 2), torch.zeros(500)), 400, 0, lambda read: read > 0)) == 64
    )


def test_a_stream_that_ends_is_counted():
    assert take(DataLoader(Stream(50), batch_size=8), 500, 0).available == 50


def test_dict_batches_find_targets_metadata_and_constants():
    batch = {"input_ids": Y.reshape(30, 1), "mask": X > 3, "labels": Y, "site": ["a"] * 30, "scale": 2.0}
    samples = take([batch], 12, 0)
    assert set(samples.inputs) == {"input_ids", "mask"}
    assert samples.form == "dict"
    assert samples.constants == {"scale": 2.0}
    assert samples.metadata == {"site": ["a"] * 12}
    assert samples.targets.tolist() == samples.index.tolist()


def test_a_dict_of_one_nameless_input_is_that_input():
    assert take([{"x": X, "y": Y}], 5, 0).form == "one"


def test_metadata_follow_their_samples():
    samples = take([(X, Y, {"subject": list(range(30)), "day": "monday"})], 9, 1)
    assert samples.metadata == {"subject": samples.index.tolist(), "day": ["monday"] * 9}
    assert take([(X, Y, torch.arange(30) * 2)], 9, 1).metadata == {"metadata": (samples.index * 2).tolist()}


def test_two_inputs_keep_their_order():
    samples = take([((X, X * 2), Y)], 30, 0)
    assert samples.form == "tuple"
    assert torch.equal(samples.inputs["input1"], samples.inputs["input0"] * 2)


def test_numpy_and_missing_targets():
    samples = take([(X.numpy(),)], 4, 0)
    assert samples.targets is None
    assert samples.inputs["input"].shape == (4, 1)


def test_samples_of_another_length_are_left_out_and_said():
    batches = [(torch.zeros(4, 7), torch.zeros(4)), (torch.zeros(3, 9), torch.zeros(3))]
    samples = take(batches, 100, 0)
    assert len(samples) == 4
    (remark,) = samples.remarks
    assert remark.severity == "warning"
    assert "3 of 7" in remark.text


def test_the_batches_can_go_and_nothing_is_shared_with_them():
    x = torch.zeros(3, 2)
    samples = take([(x, torch.zeros(3))], 3, 0)
    x += 1
    assert not samples.inputs["input"].any()


class Odd(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return X[index], Y[index]


def test_the_loaders_own_collate_makes_the_batches():
    def doubled(rows):
        return torch.stack([r[0] for r in rows]) * 2, torch.tensor([int(r[1]) for r in rows])

    samples = take(DataLoader(Odd(), collate_fn=doubled), 3, 0)
    assert (samples.inputs["input"][:, 0] == 2 * samples.targets).all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "no samples"),
        (DataLoader(Stream(0), batch_size=4), "no samples"),
        (7, "must be a loader"),
        ("loader", "must be a loader"),
        ([("a", "b")], "must be tensors"),
        ([(X, Y, None, None)], "of 4"),
        ([(X, Y[:5])], "targets of shape (5,)"),
        ([((X, X[:3]), Y)], "share their first axis"),
        ([{"labels": Y}], "must hold input tensors"),
    ],
)
def test_one_clear_sentence_for_what_cannot_be_used(data, says):
    with pytest.raises(UsageError) as raised:
        take(data, 10, 0)
    assert says in str(raised.value)
