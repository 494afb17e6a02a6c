"""``ExplainAttention``: one batch with its weights, a loader as numbers, text and JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchwatch
from tests.helpers_attention import Crossed, Looking, marked, streams
from tests.helpers_patients import assert_untouched
from tests.zoo_shims import load
from torchwatch import ExplainAttention
from torchwatch.errors import ModelError, UsageError
from torchwatch.examinations.explain_attention import KEPT, capture_attention


def test_a_batch_has_all_its_weights():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)), torch.randn(20, 5, 8)
    with assert_untouched(model):
        found = ExplainAttention(model).batch(x)
    model.eval()
    wanted = layer.self_attn(x, x, x, average_attn_weights=False)[1]
    assert list(found.weights) == ["0.self_attn"]
    torch.testing.assert_close(found.weights["0.self_attn"], wanted, atol=1e-4, rtol=0)
    assert not found.weights["0.self_attn"].requires_grad
    np.testing.assert_allclose(
        found.result.layers[0].mean, wanted.detach().mean((0, 2, 3)).numpy(), rtol=1e-5
    )


def test_a_loader_keeps_weights_of_few_samples_and_numbers_of_all():
    x, y = marked(60)
    loader = DataLoader(TensorDataset(x, y), batch_size=7)
    found = ExplainAttention(Looking()).loader(loader)
    assert found.weights["look"].shape == (KEPT, 2, 6, 6)
    assert found.result.layers[0].sample_entropy.shape == (60, 2)
    few = ExplainAttention(Looking()).loader(loader, samples=10, seed=1)
    assert few.result.samples.index.size == 10
    again = ExplainAttention(Looking()).loader(loader, samples=10, seed=1)
    np.testing.assert_array_equal(few.result.samples.index, again.result.samples.index)


def test_targets_tell_right_from_wrong():
    x, y = marked(20)
    true = (y[:, 0] > 0).long()
    found = capture_attention(Looking(classes=True), x, true, class_names=("down", "up"))
    assert (found.result.samples.correct == 1).mean() > 0.9
    assert "up" in found.text()


def test_silencing_is_asked_for():
    x, y = marked(20)
    assert ExplainAttention(Looking()).batch(x, y).result.contribution_of == ""
    assert ExplainAttention(Looking(), silence=True).batch(x, y).result.layers[0].contribution[0] > 0.5


def test_text_says_all_there_is():
    explain = ExplainAttention(Crossed(), streams={"audio": "a_to_b", "video": "b_to_a"})
    explain.loader(streams(40))
    text = explain.text()
    wanted = ["a_to_b (cross, audio→video, 5 × 7, softmax)", "audio ↔ video", "Cohen's d", "class"]
    for words in (*wanted, "query→key", "Jain & Wallace"):
        assert words in text, words
    assert max(map(len, text.split("\n"))) <= 400


def test_names_of_a_model_cannot_write_to_the_terminal():
    model = nn.Sequential()
    model.add_module("x\x1b[31m", Looking())
    assert "\x1b" not in ExplainAttention(model).batch(marked(8)[0]).text()


def test_the_summary_is_strict_json():
    explain = ExplainAttention(Looking())
    x, y = marked(20)
    x[2, 0, 0] = torch.nan
    explain.batch(x, y)
    values = json.loads(json.dumps(explain.as_json(), allow_nan=False))
    assert values["layers"][0]["sample_entropy"][2] == [None, None]
    assert values["layers"][0]["patterns"] == ["focused", "diffuse"]
    assert "weights" not in values


def test_nothing_captured_yet():
    explain = ExplainAttention(Looking())
    for ask in (explain.text, explain.as_json):
        with pytest.raises(UsageError, match="call batch"):
            ask()


def test_what_cannot_be_explained_is_told():
    with pytest.raises(ModelError, match=r"torch\.nn\.Module, not int"):
        ExplainAttention(3)
    with pytest.raises(UsageError, match="no attention was seen"):
        ExplainAttention(nn.Linear(3, 1)).batch(torch.randn(4, 3))
    with pytest.raises(UsageError, match="there are look"):
        ExplainAttention(Looking(), streams={"a->b": "x"}).batch(marked(8)[0])


def test_it_is_a_public_name():
    assert "ExplainAttention" in torchwatch.__all__
    assert (
        torchwatch.ExplainAttention
        is sys.modules["torchwatch.examinations.explain_attention"].ExplainAttention
    )


def test_a_sentence_encoder_is_explained_from_tokens_to_text():
    """A BERT of the shape of MiniLM (384 wide would only be slower), padded sentences, a dict batch."""
    transformers, _ = load()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=6, num_attention_heads=12, intermediate_size=48
    )
    model = transformers.BertModel(config)
    batch = {"input_ids": torch.randint(1, 60, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.long)}
    batch["attention_mask"][2, 5:] = 0
    with assert_untouched(model):
        found = ExplainAttention(model).batch(batch)
    assert len(found.result.layers) == 6
    weights = found.weights["encoder.layer.5.attention.self"]
    assert weights.shape == (4, 12, 9, 9)
    assert (weights[2, :, :, 5:] == 0).all()
    rows = weights[2, :, :5, :5].double()
    entropy = (torch.special.entr(rows).sum(-1) / np.log(5)).mean(1)
    np.testing.assert_allclose(found.result.layers[5].sample_entropy[2], entropy.numpy(), rtol=1e-5)
