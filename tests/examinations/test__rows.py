import torch

from torchwatch.examinations.samples import take


def batch(tokens, mask, targets):
    return {
        "input_ids": torch.tensor(tokens),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(targets),
    }


def test_batches_of_their_own_length_are_padded_where_a_mask_hides_it():
    short = batch([[5, 6], [7, 9]], [[1, 1], [1, 0]], [[5, 6], [7, -100]])
    long = batch([[1, 2, 3, 4]], [[1, 1, 1, 1]], [[1, 2, 3, 4]])
    samples = take([short, long], 10, 0)
    assert samples.inputs["input_ids"].tolist() == [[5, 6, 9, 9], [7, 9, 9, 9], [1, 2, 3, 4]]
    assert samples.inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert samples.targets.tolist() == [[5, 6, -100, -100], [7, -100, -100, -100], [1, 2, 3, 4]]
    assert [r.severity for r in samples.remarks] == ["info"]


def test_classes_of_texts_stay_as_they_are():
    samples = take([batch([[5, 6]], [[1, 1]], [1]), batch([[1, 2, 3]], [[1, 1, 1]], [0])], 10, 0)
    assert samples.targets.tolist() == [1, 0]
    assert samples.inputs["input_ids"].shape == (2, 3)
