"""Captured and recomputed weights are those of eager attention, and the pass goes on as if nobody looked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_patients import assert_untouched
from tests.zoo_shims import load
from torchwatch.examinations._attention_calls import watching

TOLERANCE = 1e-4


def seen(model, *inputs, silence=None, **named):
    """Calls of one pass by name, and its output."""
    calls = {}
    samples = next(iter([*inputs, *named.values()])).shape[0]
    with watching(model, samples, lambda c: calls.setdefault(c.name, c), silence=silence), torch.no_grad():
        output = model(*inputs, **named)
    return calls, output


def close(a, b):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=0)


# ---------------------------------------------------------------------- nn.MultiheadAttention


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masks", ["none", "padding", "causal", "both"])
def test_multihead_attention_gives_its_weights_per_head(batch_first, masks):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    x, given = torch.randn(4, 6, 12), {}
    if masks in ("padding", "both"):
        given["key_padding_mask"] = torch.arange(6).expand(4, 6) >= torch.tensor([6, 5, 4, 3])[:, None]
    if masks in ("causal", "both"):
        given["attn_mask"] = torch.ones(6, 6, dtype=torch.bool).triu(1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            return self.attention(x, x, x, need_weights=False, **given)

    calls, (output, weights) = seen(Model(), x)
    places = x if batch_first else x.transpose(0, 1)
    wanted = attention(places, places, places, average_attn_weights=False, **given)
    close(calls["attention"].weights, wanted[1])
    close(output, wanted[0])
    assert weights is None, "nobody asked for weights, so nobody gets them"
    assert calls["attention"].source == "need_weights"
    assert calls["attention"].cross is False
    if masks != "none":
        torch.testing.assert_close(calls["attention"].valid.expand_as(wanted[1]), wanted[1] > 0)


@pytest.mark.parametrize("averaged", [True, False])
def test_who_asked_for_weights_gets_them_as_asked(averaged):
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    wanted = attention(x, x, x, average_attn_weights=averaged)[1]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x, average_attn_weights=averaged)

    close(seen(Model(), x)[1][1], wanted)


def test_the_fused_path_of_encoder_layers_is_off_meanwhile():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(3, 5, 8)
    with torch.no_grad():
        before = model(x)
        first = model.layers[0].self_attn(x, x, x, average_attn_weights=False)[1]
    calls, output = seen(model, x)
    assert list(calls) == ["layers.0.self_attn", "layers.1.self_attn"]
    close(calls["layers.0.self_attn"].weights, first)
    close(output, before)
    assert torch.backends.mha.get_fastpath_enabled()


# ---------------------------------------------------------------------- scaled_dot_product_attention


@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_fused_attention_is_recomputed(mask, groups, scale):
    """Weights times the identity are the weights: that is how the kernel's own are read."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 4 // groups, 5, 8)
    given = {"scale": scale, "enable_gqa": groups > 1}
    if mask == "bool":
        given["attn_mask"] = torch.rand(2, 1, 5, 5) < 0.7
        given["attn_mask"][..., 0] = True
    elif mask == "float":
        given["attn_mask"] = torch.randn(5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)
    elif mask == "causal":
        given["is_causal"] = True

    class Model(nn.Module):
        def forward(self, q):
            identity = torch.eye(5).expand(2, 4 // groups, 5, 5)
            return functional.scaled_dot_product_attention(q, k, identity, **given)

    calls, output = seen(Model(), q)
    close(calls["Model"].weights, output)
    assert (calls["Model"].valid is None) == (mask is None)


def test_a_query_that_may_see_nothing_has_no_weights():
    class Model(nn.Module):
        def forward(self, x):
            mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
            mask[..., 2, :] = False
            return functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    calls, _ = seen(Model(), torch.randn(2, 1, 4, 8))
    assert (calls["Model"].weights[:, :, 2] == 0).all()
    assert not calls["Model"].valid[:, :, 2].any()


# ---------------------------------------------------------------------- models of other packages

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip
BART = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "bert": ("BertConfig", "BertForSequenceClassification", SIZES),
    "gpt2": (
        "GPT2Config", "GPT2LMHeadModel",
        {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0},
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**SIZES, "num_key_value_heads": 2}),
    "t5": (
        "T5Config", "T5ForConditionalGeneration",
        {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    ),
    "bart": ("BartConfig", "BartForConditionalGeneration", BART),
    "vit": (
        "ViTConfig", "ViTForImageClassification",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "image_size": 16, "patch_size": 4},
    ),
    "deberta": (
        "DebertaV2Config", "DebertaV2ForSequenceClassification",
        {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    ),
}  # fmt: skip


def batch_for(kind):
    if kind == "vit":
        return {"pixel_values": torch.randn(3, 3, 16, 16)}
    ids = torch.randint(1, 50, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    return {**batch, "decoder_input_ids": ids[:, :5]} if kind in ("t5", "bart") else batch


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_hugging_face_models_are_their_output_attentions(kind):
    transformers, _ = load()
    config, model_class, options = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config)(**options)).eval()
    batch = batch_for(kind)
    as_it_is, _ = seen(model, **batch)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        given = eager(**batch, output_attentions=True)
    attentions = ("encoder_attentions", "attentions", "decoder_attentions", "cross_attentions")
    wanted = [t for name in attentions for t in (getattr(given, name, None) or ())]
    of_eager, output = seen(eager, **batch)
    torch.testing.assert_close(output.logits, given.logits)
    for calls in (as_it_is, of_eager):
        assert len(calls) == len(wanted) > 0
        left = [c.weights for c in calls.values()]
        for weights in wanted:
            same = [w for w in left if w.shape == weights.shape and (w - weights).abs().max() < TOLERANCE]
            assert len(same) >= 1
    for name, call in as_it_is.items():
        other = of_eager[name]
        assert (call.valid is None or bool(call.valid.all())) == (
            other.valid is None or bool(other.valid.all())
        )
        if call.valid is not None and other.valid is not None:
            rows = call.valid.any(-1, keepdim=True)
            assert ((call.valid == other.valid) | ~rows).all(), "masks are seen alike in both ways"


@pytest.mark.parametrize("fused", [True, False])
def test_attention_of_timm_is_seen_in_both_ways(fused):
    _, timm = load()
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=4
    ).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    x = torch.randn(2, 3, 32, 32)
    calls, _ = seen(model, x)
    assert list(calls) == ["blocks.0.attn", "blocks.1.attn"]
    assert {c.source for c in calls.values()} == {"recomputed" if fused else "softmax"}
    attention = model.blocks[0].attn
    with torch.no_grad():
        places = model.blocks[0].norm1(
            model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
        )
        q, k, _ = attention.qkv(places).reshape(2, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
    close(calls["blocks.0.attn"].weights, (q @ k.transpose(-2, -1) * attention.scale).softmax(-1))


# ---------------------------------------------------------------------- own modules


class OwnAttention(nn.Module):
    """Weights without a softmax: squares over their sum, which only the returned value tells."""

    def __init__(self, *, heads=True):
        super().__init__()
        self.layer, self.heads = nn.Linear(8, 8), heads

    def forward(self, x):
        weights = (self.layer(x) @ x.transpose(-2, -1)).square()
        weights = weights / weights.sum(-1, keepdim=True)
        shown = weights.unsqueeze(1) if self.heads else weights
        return weights @ x, {"no": 1}, shown


@pytest.mark.parametrize("heads", [True, False])
def test_weights_that_a_module_returns_are_read(heads):
    model = nn.Sequential()
    model.add_module("own", OwnAttention(heads=heads))
    x = torch.randn(3, 5, 8)
    calls, output = seen(model, x)
    assert calls["own"].source == "returned"
    close(calls["own"].weights[:, 0], output[2].squeeze(1))


def test_a_softmax_is_seen_once_though_the_module_returns_it_and_its_parent_too():
    class Inner(nn.Module):
        def forward(self, x):
            weights = (x @ x.transpose(-2, -1)).softmax(-1)
            return weights @ x, weights

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            x, weights = self.inner(x)
            self.inner(x)
            return x, weights

    calls, output = seen(Outer(), torch.randn(2, 5, 4))
    assert list(calls) == ["inner", "inner#2"]
    close(calls["inner"].weights[:, 0], output[1])


def test_probabilities_of_classes_at_each_place_are_no_attention():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 30)

        def forward(self, x):
            return self.layer(x).softmax(-1), self.layer(x).softmax(-1)

    assert not seen(Words(), torch.randn(2, 5, 4))[0]
    assert not seen(nn.Softmax(-1), torch.randn(6, 5))[0]
    assert not seen(nn.Softmax(1), torch.randn(6, 5, 5))[0]


def test_what_is_multiplied_with_values_is_attention_whatever_its_shape_and_name():
    class Mixes(nn.Module):
        def forward(self, x):
            weights = nn.functional.dropout((x @ x[:, :3].transpose(-2, -1)).softmax(-1), 0.5, self.training)
            return weights @ x[:, :3]

    x = torch.randn(2, 5, 4)
    calls, output = seen(Mixes().eval(), x)
    close(calls["Mixes"].weights[:, 0], (x @ x[:, :3].transpose(-2, -1)).softmax(-1))
    assert (output != 0).all()
    assert (seen(Mixes().eval(), x, silence=("Mixes", 0))[1] == 0).all()


def test_masked_scores_are_not_valid_whatever_is_added():
    class Masked(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            hidden = torch.ones(5, 5).triu(1) * self.value
            return (x + hidden.nan_to_num(0.0, neginf=-torch.inf)).softmax(-1)

    for value in (-1e4, torch.finfo(torch.float32).min):
        calls, output = seen(Masked(value), torch.randn(2, 3, 5, 5))
        torch.testing.assert_close(calls["Masked"].valid, torch.ones(2, 3, 5, 5).tril() > 0)
        close(calls["Masked"].weights, output)


# ---------------------------------------------------------------------- silence


class Both(nn.Module):
    """The same attention by three ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x, without=None):
        if self.way == "need_weights" and without is None:
            return self.attention(x, x, x, need_weights=False)[0]
        q, k, v = functional.linear(x, self.attention.in_proj_weight, self.attention.in_proj_bias).chunk(
            3, -1
        )
        q, k, v = (t.unflatten(-1, (3, 4)).transpose(1, 2) for t in (q, k, v))
        if self.way == "recomputed":
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = functional.softmax(q @ k.transpose(-2, -1) / 2, dim=-1) @ v
        if without is not None:
            mixed = mixed.clone()
            mixed[:, without] = 0
        return self.attention.out_proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("way", ["need_weights", "recomputed", "softmax"])
def test_a_silenced_head_adds_nothing(way):
    torch.manual_seed(0)
    model, x = Both(way).eval(), torch.randn(4, 6, 12)
    name = "attention" if way == "need_weights" else "Both"
    for head in range(3):
        _, output = seen(model, x, silence=(name, head))
        with torch.no_grad():
            close(output, model(x, without=head))
            assert (output - model(x)).abs().max() > 1e-3


def test_folded_heads_are_silenced_too():
    class Folded(nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x, x)

    x = torch.randn(6, 5, 4)  # two samples of three heads
    calls = {}
    model = Folded()
    with watching(model, 2, lambda c: calls.setdefault(c.name, c), silence=("Folded", 1)):
        output = model(x)
    assert calls["Folded"].weights.shape == (2, 3, 5, 5)
    assert (output.view(2, 3, 5, 4)[:, 1] == 0).all()
    assert (output.view(2, 3, 5, 4)[:, [0, 2]] != 0).all()


# ---------------------------------------------------------------------- guests


def test_everything_is_put_back_after_an_error():
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            self.attention(x, x, x)
            raise ValueError("in the middle")

    model, x = Breaks(), torch.randn(2, 4, 8)
    with assert_untouched(model), pytest.raises(ValueError, match="in the middle"):
        seen(model, x)
    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(functional.softmax(x, -1), x.softmax(-1))


def test_compiled_parts_run_eagerly_meanwhile():
    torch.manual_seed(0)
    inner = nn.MultiheadAttention(8, 2, batch_first=True).eval()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.compile(inner, backend="eager")

        def forward(self, x):
            return self.attention(x, x, x)[0]

    model, x = Model(), torch.randn(2, 4, 8)
    calls, _ = seen(model, x)
    (call,) = calls.values()
    close(call.weights, inner(x, x, x, average_attn_weights=False)[1])


def test_windows_of_a_sample_are_put_behind_each_other():
    class Windowed(nn.Module):
        def forward(self, x):
            parts = x.reshape(2 * 3, 4, 4, 5)  # three windows of each of two samples, four heads
            return functional.scaled_dot_product_attention(parts, parts, parts)

    x = torch.randn(2, 3, 4, 4, 5)
    calls, _ = seen(Windowed(), x)
    weights = calls["Windowed"].weights
    assert weights.shape == (2, 4, 12, 4)
    wanted = (x[1, 2, 3] @ x[1, 2, 3].T / 5**0.5).softmax(-1)
    close(weights[1, 3, 8:], wanted)
