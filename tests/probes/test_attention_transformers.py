"""What is recomputed from fused attention equals the weights of the same models with eager attention."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.helpers_watch import EVERY_STEP, record
from tests.zoo_shims import load
from tests.zoo_transformers import LANGUAGES
from torchwatch.probes import _attention
from torchwatch.records import Attention

MODELS = ["gpt2", "bert", "llama", "gemma3", "bart", "vit", "bloom"]
"""Causal, padded, grouped queries, sliding windows and own scale, cross attention, images, returned."""


def eager_weights(outputs) -> list[torch.Tensor]:
    """All attention weights of the model's outputs, self and cross."""
    found = []
    for key in ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions"):
        found += outputs.get(key) or ()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_equal_to_eager_attention(name, tmp_path) -> None:
    libraries = load()
    torch.manual_seed(0)
    model = LANGUAGES[name].make(libraries[0]).eval()  # without dropout, which the probe leaves out
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform
    batch = LANGUAGES[name].batch()
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    wanted = eager_weights(eager(**batch, output_attentions=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def body(watch) -> None:
        model(**batch).loss.backward()
        optimizer.step()

    records = record(model, body, tmp_path / "r.jsonl", config=EVERY_STEP)
    layers = next(r for r in records if isinstance(r, Attention)).data["layers"]
    exact = [
        _attention.per_head([_attention.summary(_attention.returned(w)).detach().double().numpy()])
        for w in wanted
    ]
    assert len(layers) == len(exact) > 0
    assert min(e for x in exact for e in x["entropy"]) < 0.995
    for weights in exact:
        near = [np.abs(np.subtract(weights[k], of[k])).max() for of in layers for k in ("entropy", "max")]
        assert min(np.maximum(near[::2], near[1::2])) <= 1.5e-4
