"""transformer-norm-placement: a deep post-norm transformer without warm-up."""

import pytest
import torch
from torch import nn

from tests.checks.architecture.real import STEPS, layout_of, recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet, run_check
from torchwatch.checks.architecture._blocks import stacks
from torchwatch.history.attentions import attentions

SLUG = "transformer-norm-placement"


def encoder(blocks: int = 7, **options: bool) -> nn.TransformerEncoder:
    block = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, **options)
    return nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)


def run(model: nn.Module, **options):
    return recorded(model, torch.randn(2, 4, 8), steps=STEPS, **options)


@pytest.fixture(scope="module")
def deep():
    return run(encoder())


def test_fires(deep):
    alert = assert_fires(SLUG, deep, layer="layers.0.norm1", severity="info", since=(0, 1), by=20)
    assert alert.title == "7 post-norm blocks are trained without warm-up"
    assert "In layers normalisation follows" in alert.detail


def test_near_miss_six_blocks(deep):
    assert_quiet(SLUG, run(encoder(6)))
    assert_quiet(SLUG, deep, limits={"blocks": 7})


def test_near_miss_pre_norm():
    assert_quiet(SLUG, run(encoder(norm_first=True)))


@pytest.mark.parametrize(
    "rate",
    [lambda step: 1e-4 * min(step + 1, 10), lambda step: 1e-3 if step > 12 else 1e-4],
    ids=["by the step", "in one jump"],
)
def test_near_miss_warm_up_and_its_guard(rate):
    warmed = run(encoder(), rate=rate)
    assert_quiet(SLUG, warmed)
    assert_fires(SLUG, warmed, limits={"warm_up": 0})


def test_a_falling_rate_is_no_warm_up():
    assert_fires(SLUG, run(encoder(), rate=lambda step: 1e-3 / (1 + step)))


def test_near_miss_fine_tuning_and_its_guard():
    tuned = run(encoder(), declare={"fine_tuning": True})
    assert_quiet(SLUG, tuned)
    assert_fires(SLUG, tuned, limits={"pretrained": 0})


def test_not_ready_in_the_first_steps(deep):
    engine, alerts = run_check(SLUG, deep, limits={"steps": 1000})
    assert not alerts
    assert "needs 1000 steps" in engine.not_run()[SLUG]


def placement(name: str) -> dict[str, bool]:
    layout = layout_of(zoo(name))
    return {stack.name: stack.post_norm for stack in stacks(layout, attentions(layout))}


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "distilbert", "bart", "openai-gpt", "wav2vec2", "marian"]
)
def test_post_norm_by_call_order(name):
    assert all(placement(name).values())


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5", "opt", "vit", "swin", "whisper", "bloom"])
def test_pre_norm_by_call_order(name):
    assert not any(placement(name).values())


@pytest.mark.parametrize("name", ["olmo2", "swinv2"])
def test_norms_inside_the_branch_are_not_post_norm(name):
    assert placement(name)
    assert not any(placement(name).values())


def test_norms_inside_the_attention_module_are_seen():
    """As in lucidrains' vision transformers: normalise, then project, in one module."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.to_qkv, self.to_out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.to_qkv(self.norm(x)).chunk(3, -1)
            return x + self.to_out(torch.softmax(q @ k.mT, -1) @ v)

    model = nn.Sequential(*(Attention() for _ in range(8)), nn.Linear(8, 2))
    assert_quiet(SLUG, run(model))


def test_shared_blocks_count_once():
    """ALBERT runs one block many times: there is one set of weights to throw off."""
    layout = layout_of(zoo("albert"))
    assert [stack.blocks for stack in stacks(layout, attentions(layout))] == [1]
