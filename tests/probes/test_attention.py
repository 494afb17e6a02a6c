"""Which calls of attention are recorded, under which names, and of which passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes import _attention
from torchwatch.probes.attention import attends
from torchwatch.records import Attention, Layout

X = torch.randn(3, 10, 16, generator=torch.Generator().manual_seed(0))


class SelfAttention(nn.Module):
    """As everybody writes it; keeps what it attended with."""

    def __init__(self, heads: int = 4, causal: bool = True) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Sequential(nn.Linear(16, 16))
        self.heads, self.causal = heads, causal
        self.last: tuple[torch.Tensor, ...] = ()

    def forward(self, x):
        query, key, value = (
            t.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1)
        )
        self.last = (query.detach(), key.detach())
        out = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.proj(out.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(16), SelfAttention()

    def forward(self, x):
        return x + self.attn(self.norm(x))


def model_of(*parts: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(part() for part in parts))


def train(
    model, tmp_path, steps=2, config=EVERY_STEP, loss_of=lambda m: m(X).square().mean(), between=lambda: None
):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def body(watch) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(model).backward()
            between()
            optimizer.step()
            watch.log(loss=1.0)

    return record(model, body, tmp_path / "r.jsonl", config=config)


def attention(records) -> list[Attention]:
    return [r for r in records if isinstance(r, Attention)]


def layers(records) -> list[dict]:
    return attention(records)[0].data["layers"]


def coverage(records) -> str:
    return [r.coverage["attention"] for r in records if isinstance(r, Layout)][-1]


def test_a_record_per_sampled_step_with_a_layer_per_call(tmp_path) -> None:
    model = model_of(Block, Block)
    records = train(model, tmp_path, steps=1)
    (found,) = attention(records)
    assert (found.step, found.time_s) == (1, steps_of(records)[0].time_s)
    assert [layer["name"] for layer in layers(records)] == ["0.attn", "1.attn"]
    for layer, block in zip(layers(records), model, strict=True):
        assert (layer["heads"], layer["queries"], layer["keys"], layer["rows"]) == (4, 10, 10, 5)
        query, key = block.attn.last
        weights = (query @ key.transpose(-2, -1) / 2).masked_fill(
            torch.ones(10, 10).triu(1).bool(), -math.inf
        )
        rows = weights.double().softmax(-1)[:, :, 1::2]
        entropy = torch.special.entr(rows).sum(-1) / torch.arange(2, 11, 2).double().log()
        np.testing.assert_allclose(layer["entropy"], entropy.mean((0, 2)), atol=1e-4)
        np.testing.assert_allclose(layer["max"], rows.amax(-1).mean((0, 2)), atol=1e-4)
    assert coverage(records) == "ok"


def test_training_is_bitwise_the_same(tmp_path) -> None:
    bare, watched = model_of(Block, Block), model_of(Block, Block)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(bare.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        bare(X).square().mean().backward()
        optimizer.step()
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert len(attention(train(watched, tmp_path, steps=3))) == 3
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(bare.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_attention_counts_once(reentrant, tmp_path) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant)
            return x

    class Plain(Checkpointed):
        def forward(self, x):
            return self.blocks[1](self.blocks[0](x))

    x = X.clone().requires_grad_()
    found = train(Checkpointed(), tmp_path, loss_of=lambda m: m(x).square().mean())
    assert [a.data for a in attention(found)] == [a.data for a in attention(train(Plain(), tmp_path))]


def test_evaluation_and_discarded_passes_do_not_count(tmp_path) -> None:
    model = model_of(Block)
    wanted = attention(train(model_of(Block), tmp_path))

    def between() -> None:
        with torch.no_grad():
            model(X * 100)
        model(X * 100)  # forgot no_grad

    found = attention(train(model, tmp_path, between=between))
    assert [a.data for a in found] == [a.data for a in wanted]


def test_several_passes_are_averaged(tmp_path) -> None:
    model = model_of(Block)
    alone = [
        layers(train(model_of(Block), tmp_path, steps=1, loss_of=lambda m, x=x: m(x).square().mean()))[0]
        for x in (X, 3 * X)
    ]
    both = layers(train(model, tmp_path, steps=1, loss_of=lambda m: (m(X) + m(3 * X)).square().mean()))
    assert len(both) == 1
    np.testing.assert_allclose(both[0]["entropy"], np.mean([a["entropy"] for a in alone], 0), atol=1e-4)


class Twice(nn.Module):
    """Self and cross attention in one module, as some decoders have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def forward(self, x):
        x = (x * self.weight).unsqueeze(1)
        x = functional.scaled_dot_product_attention(x, x, x)
        return functional.scaled_dot_product_attention(x, x[:, :, :4], x[:, :, :4])


def test_several_calls_of_one_module_are_told_apart(tmp_path) -> None:
    config = WatchConfig(activations_every=1, terminal=False, attention=True)
    found = layers(train(model_of(Twice), tmp_path, config=config))
    assert [(layer["name"], layer["keys"]) for layer in found] == [("0", 10), ("0#2", 4)]


def test_the_fused_transformer_layers_of_torch(tmp_path) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
    found = layers(train(model_of(lambda: nn.TransformerEncoder(layer, 2)), tmp_path))
    assert [(entry["name"], entry["heads"]) for entry in found] == [
        ("0.layers.0.self_attn", 4),
        ("0.layers.1.self_attn", 4),
    ]
    assert all(0.5 < e <= 1 for entry in found for e in entry["entropy"])


class Returning(nn.Module):
    def __init__(self, average: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.average = average
        self.inner = nn.MultiheadAttention(16, 4, batch_first=True)
        self.last: torch.Tensor | None = None

    def forward(self, x):
        out, self.last = self.inner(x, x, x, need_weights=True, average_attn_weights=self.average)
        return out


@pytest.mark.parametrize("average", [True, False])
def test_returned_weights_are_read(average, tmp_path) -> None:
    model = Returning(average)
    (found,) = layers(train(model, tmp_path, steps=1))
    assert (found["name"], found["source"], found["heads"]) == ("inner", "returned", 1 if average else 4)
    weights = model.last.detach().double()
    rows = (weights[:, None] if average else weights)[:, :, 1::2]
    entropy = torch.special.entr(rows).sum(-1) / math.log(10)
    np.testing.assert_allclose(found["entropy"], entropy.mean((0, 2)), atol=1e-4)


class EagerAttention(nn.Module):
    """As transformers writes it: (output, weights); ``bias`` hands on something that is not weights first."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.qk, self.bias = nn.Linear(16, 32), bias

    def forward(self, x):
        query, key = (t.view(3, 10, 4, 4).transpose(1, 2) for t in self.qk(x).chunk(2, -1))
        weights = (query @ key.transpose(-2, -1)).softmax(-1)
        out = (weights @ key).transpose(1, 2).reshape(x.shape)
        return (out, query @ key.transpose(-2, -1), weights) if self.bias else (out, weights)


class AttentionWrapper(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.inner = EagerAttention(bias)

    def forward(self, x):
        out, *more = self.inner(x)
        return out + x, *more


@pytest.mark.parametrize("bias", [True, False])
def test_weights_of_eager_attention_are_read_once(bias, tmp_path) -> None:
    found = layers(train(AttentionWrapper(bias), tmp_path, loss_of=lambda m: m(X)[0].square().mean()))
    assert [(layer["name"], layer["heads"]) for layer in found] == [("inner", 4)]


def test_a_model_whose_parts_are_called_is_seen_too(tmp_path) -> None:
    found = train(model_of(Block, Block), tmp_path, steps=3, loss_of=lambda m: m[1](m[0](X)).square().mean())
    assert [a.step for a in attention(found)] == [1, 2, 3]


def test_only_sampled_steps_and_the_function_is_back_outside_of_the_model(tmp_path) -> None:
    original, inside, outside = functional.scaled_dot_product_attention, [], []
    model = model_of(Block)
    model[0].norm.register_forward_hook(
        lambda *a: inside.append(functional.scaled_dot_product_attention is original)
    )

    def between() -> None:
        outside.append(functional.scaled_dot_product_attention is original)
        x = X.unsqueeze(1).requires_grad_()
        functional.scaled_dot_product_attention(x, x, x)

    config = WatchConfig(activations_every=2, dense_steps=0, budget=None, terminal=False)
    records = train(model, tmp_path, steps=4, config=config, between=between)
    assert [a.step for a in attention(records)] == [2, 4]
    assert [layer["name"] for layer in layers(records)] == ["0.attn"]
    assert inside == [True, False, True, False]
    assert all(outside)
    assert functional.scaled_dot_product_attention is original


def test_a_forward_that_raises_leaves_nothing_behind(tmp_path) -> None:
    original = functional.scaled_dot_product_attention
    model = model_of(Block, Block)
    failing = [True]

    def fail(*args):
        if failing[0]:
            raise RuntimeError("out of memory")

    model[1].norm.register_forward_hook(fail)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def body(watch) -> None:
        for _ in range(2):
            failing[0] = True
            with pytest.raises(RuntimeError, match="out of memory"):
                model(X)
            failing[0] = False
            model(X).square().mean().backward()
            assert functional.scaled_dot_product_attention is original
            optimizer.step()

    records = record(model, body, tmp_path / "r.jsonl")
    assert [[layer["name"] for layer in a.data["layers"]] for a in attention(records)] == [
        ["0.attn", "1.attn"]
    ] * 2


def test_our_failure_is_ours(tmp_path, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise ValueError("ours")

    monkeypatch.setattr(_attention, "recomputed", broken)
    records = train(model_of(Block), tmp_path, steps=4)
    assert attention(records) == []
    assert len(steps_of(records)) == 4
    assert any("attention switched off" in r.message for r in records if r.kind == "note")


def test_patterns_are_opt_in(tmp_path) -> None:
    config = WatchConfig(activations_every=1, terminal=False, histograms=True)
    pattern = layers(train(model_of(Block), tmp_path, config=config))[0]["pattern"]
    assert (pattern["rows"], pattern["keys_per_bin"]) == ([1, 3, 5, 7, 9], 1)
    assert np.shape(pattern["weights"]) == (5, 10)
    np.testing.assert_allclose(np.sum(pattern["weights"], 1), 1, atol=1e-3)
    assert pattern["weights"][0][2:] == [0.0] * 8  # causal
    assert "pattern" not in layers(train(model_of(Block), tmp_path))[0]


def test_off_by_default_without_attention_modules(tmp_path) -> None:
    records = train(model_of(Twice), tmp_path)
    assert attention(records) == []
    assert coverage(records).startswith("off: no attention module")
    config = WatchConfig(activations_every=1, terminal=False, attention=False)
    records = train(model_of(Block), tmp_path, config=config)
    assert (attention(records), coverage(records)) == ([], "off")


def test_attention_that_is_not_seen_is_said(tmp_path) -> None:
    class LinearAttention(nn.Linear):
        pass

    records = train(model_of(lambda: LinearAttention(16, 16)), tmp_path)
    assert attention(records) == []
    assert coverage(records).startswith("not seen")


def test_what_counts_as_attention() -> None:
    assert attends(nn.MultiheadAttention(4, 2))
    assert attends(SelfAttention())
    assert not attends(nn.Linear(2, 2))
