import math

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance, LayerGradCam
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.postmortem import autopsy

NAMED = {p.name: p for p in PATIENTS}


def outcome(model, data, **known):
    return autopsy(model, data, examine=["layer_attributions"], **known).outcomes[0]


def examined(model, data, **known):
    done = outcome(model, data, **known)
    assert done.status == "done", done.reason
    return done.result


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = outcome(model, data, attribution_samples=6)
    assert done.status == "done" or "GradCAM: no convolution" in done.reason


class Located(nn.Module):
    """Channel 3 of a convolution that copies channel 1 of the input is what the head reads, in one window."""

    def __init__(self, dims=1):
        super().__init__()
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.dims = dims
        self.first = kind(3, 4, 1, stride=2, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.second = kind(4, 5, 1, bias=False)
        self.third = kind(5, 5, 1, bias=False)
        with torch.no_grad():
            for layer in (self.first, self.second, self.third):
                layer.weight.abs_()
                layer.weight.mul_(0.01)
            self.first.weight[3, 1] = 1.0
            self.second.weight[2, 3] = 1.0
            self.third.weight[2, 2] = 1.0

    def forward(self, x):
        x = self.third(self.act(self.second(self.act(self.first(x)))))
        return x.flatten(2).mean(2).sum(1, keepdim=True)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradcam_finds_the_place_on_every_kind_of_convolution(dims):
    torch.manual_seed(0)
    x = 0.1 * torch.rand(20, 3, *[12] * dims)
    x[(slice(None), 1, *[slice(8, 10)] * dims)] = 4.0
    result = examined(Located(dims), (x, torch.randn(20, 1)))
    assert [c.layer for c in result.gradcam] == ["first", "second", "third"]
    assert result.signed
    for cam in result.gradcam:
        assert cam.upsampled
        assert cam.resolution == (6,) * dims
        assert len(cam.axes) == dims
        assert "channel" not in cam.axes
        for profile in cam.profiles:
            assert set(profile.ranking[:2]) <= {7, 8, 9, 10}, (cam.layer, profile.axis)
        assert cam.overview.signed.shape == ((1, 12) if dims == 1 else (12, 12))


def test_gradcam_is_captums():
    model, (x, y) = admit(NAMED["images"])
    model.eval()
    target = model(x).argmax(1)
    expected = LayerGradCam(model, model[3]).attribute(x, target, relu_attributions=True)
    result = examined(model, (x, y), target_layers=("3",))
    (cam,) = result.gradcam
    assert not result.signed
    assert cam.axes == ("height", "width")
    assert cam.overview.signed == pytest.approx(expected.detach().mean((0, 1)).numpy(), rel=1e-4, abs=1e-8)


def test_conductance_is_captums():
    model, (x, y) = admit(NAMED["labels"])
    model.eval()
    target = model(x).argmax(1)
    expected = LayerConductance(model, model[0]).attribute(
        x, torch.zeros_like(x), target, n_steps=20, method="riemann_trapezoid"
    )
    (layer,) = examined(model, (x, y)).conductance
    assert layer.layer == "0"
    assert layer.flow == pytest.approx(expected.detach().mean(0).numpy(), rel=1e-4, abs=1e-7)
    assert layer.magnitude == pytest.approx(expected.detach().abs().mean(0).numpy(), rel=1e-4)
    assert layer.share == pytest.approx(1, abs=0.05)


def test_conductance_finds_the_unit_that_carries_the_output():
    x = torch.rand(20, 3, 12)
    flows = examined(Located(), (x, torch.randn(20, 1))).conductance
    assert [(f.layer, f.ranking[0]) for f in flows] == [("first", 3), ("second", 2)]
    assert all(f.share == pytest.approx(1, abs=0.05) for f in flows)


def test_what_goes_around_a_layer_lowers_its_share():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)

        def forward(self, x):
            return self.head(x + self.layer(x))

    model = Skipping()
    with torch.no_grad():
        model.layer.weight.copy_(torch.eye(4))
    (layer,) = examined(model, (torch.rand(9, 4), torch.rand(9, 1))).conductance
    assert layer.share == pytest.approx(0.5, abs=1e-4)


def test_silent_units_are_counted_and_said():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    with torch.no_grad():
        model[2].weight[:, 1:5] = 0
        model[2].weight[:, [0, 5]] = 1
        model[0].bias.fill_(5)
    result = examined(model, (torch.rand(9, 4), torch.rand(9, 1)))
    assert result.conductance[0].silent == 4
    assert [r.severity for r in result.remarks] == ["warning"]
    assert "4 of 6 units of `0`" in result.remarks[0].text


def test_a_layer_off_the_path_is_no_alarm():
    result = examined(*admit(NAMED["dicts"]))
    right = result.conductance[1]
    assert right.layer == "right"
    assert right.silent == 6
    assert all(r.severity == "info" for r in result.remarks)


def test_a_named_layer_that_runs_three_times_says_so():
    done = outcome(*admit(NAMED["shared"]), target_layers=("layer",))
    assert done.status == "skipped"
    assert "Conductance of `layer`: it runs 3 times" in done.reason


def test_an_unknown_layer_names_the_nearest():
    done = outcome(*admit(NAMED["dicts"]), target_layers=("heat",))
    assert "did you mean 'head'?" in done.reason


def test_a_transposed_input_is_laid_over_its_own_axes():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.conv(x.transpose(1, 2)).mean(2))

    data = torch.randn(12, 20, 3), torch.randn(12, 1)
    (cam,) = examined(Transposed(), data, axes=("time", "channel")).gradcam
    assert cam.axes == ("time",)
    assert len(cam.profiles[0].elements) == 20


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


def test_rollout_of_torchs_own_encoder():
    torch.manual_seed(0)
    model, data = Encoder(), (torch.randn(10, 6, 8), torch.randn(10, 1))
    with assert_untouched(model):
        rollout = examined(model, data).rollout
    assert rollout.layers == ("encoder.layers.0.self_attn", "encoder.layers.1.self_attn")
    assert rollout.axis == "time"
    assert rollout.matrix.sum(1) == pytest.approx(np.ones(6))
    assert not rollout.causal


def test_rollout_by_hand():
    torch.manual_seed(0)
    model = Encoder().eval()
    x = torch.randn(4, 6, 8)
    product = torch.eye(6).expand(4, 6, 6)
    seen = x
    for layer in model.encoder.layers:
        _, weights = layer.self_attn(seen, seen, seen, need_weights=True)
        product = (weights + torch.eye(6)) / 2 @ product
        seen = layer(seen)
    rollout = examined(model, (x, torch.randn(4, 1))).rollout
    assert rollout.matrix == pytest.approx(product.mean(0).detach().numpy(), abs=1e-5)
    assert rollout.received == pytest.approx(rollout.matrix.mean(0))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_rollout_of_transformers(kind):
    torch.manual_seed(0)
    small = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "bert":
        model = BertModel(BertConfig(**small, intermediate_size=16))
    else:
        config = GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=16)
        model = GPT2LMHeadModel(config)
    ids = torch.randint(30, (5, 7))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "gpt2":
        batch["labels"] = ids
    with assert_untouched(model):
        rollout = examined(model, [batch]).rollout
    assert len(rollout.layers) == 2
    assert rollout.axis == "token"
    assert rollout.causal == (kind == "gpt2")


def test_a_change_of_nothing_has_no_share():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    with torch.no_grad():
        model[1].weight.zero_()
    (layer,) = examined(model, (torch.rand(9, 4), torch.rand(9, 1))).conductance
    assert math.isnan(layer.share)
