"""transformer-head-split: a width that does not divide into heads."""

import dataclasses

import torch
from torch import Tensor, nn

from tests.checks.architecture.real import changed, layout_of, recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet, run_check
from torchwatch.records import RunHeader

SLUG = "transformer-head-split"
WORDS = torch.randint(0, 20, (2, 6))


class Attention(nn.Module):
    """Written by hand: ``chunk`` takes any width."""

    def __init__(self, width: int, heads: int, *, inner: int | None = None, size: int | None = None) -> None:
        super().__init__()
        self.n_head = heads
        if size is not None:
            self.head_dim = size
        inner = inner or width
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(*(f(x).chunk(self.n_head, -1) for f in (self.query, self.key, self.value)), strict=True)
        heads = [torch.softmax(q @ k.mT, -1) @ v for q, k, v in pairs]
        return self.out(torch.cat(heads, -1))


def model(attention: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(20, width), attention, nn.Linear(width, 20))


def on_cuda(run):
    return [
        dataclasses.replace(r, device={**r.device, "parameters_on": ["cuda:0"]})
        if isinstance(r, RunHeader) else r for r in run
    ]  # fmt: skip


def test_fires():
    run = recorded(model(Attention(10, 4), 10), WORDS)
    alert = assert_fires(SLUG, run, layer="1.query", severity="warning", since=(0, 1))
    assert alert.title == "10 features do not divide into 4 heads"
    assert alert.detail == "2 features per head leave 2 over."


def test_fires_on_an_attention_of_torch_that_was_changed_by_hand():
    run = recorded(nn.TransformerEncoderLayer(12, 3, 8), torch.randn(2, 3, 12))
    own = {"embed_dim": 12, "num_heads": 5, "head_dim": 5}
    layers = [
        dataclasses.replace(x, attributes=own) if x.type == "MultiheadAttention" else x
        for x in layout_of(run).layers
    ]
    assert_quiet(SLUG, run)
    assert_fires(SLUG, changed(run, layers=layers), layer="self_attn", severity="warning")


def test_near_miss_a_width_that_divides():
    assert_quiet(SLUG, recorded(model(Attention(12, 4), 12), WORDS))


def test_near_miss_an_inner_width_of_its_own():
    """As in mT5 small: 512 features, six heads of 64."""
    assert_quiet(SLUG, recorded(model(Attention(10, 3, inner=12), 10), WORDS))


def test_a_size_of_its_own_and_its_guard():
    """Grouped heads: the attribute may count something else than what the queries are cut into."""
    run = recorded(model(Attention(10, 4, size=5), 10), WORDS)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"own_size": 0}, severity="warning")


def test_odd_heads_are_an_info_on_cuda_alone():
    run = recorded(model(Attention(12, 4), 12), WORDS)
    assert_quiet(SLUG, run)
    alert = assert_fires(SLUG, on_cuda(run), severity="info", layer="1.query")
    assert alert.title == "Heads are 3 wide, which is no multiple of 8"
    assert_quiet(SLUG, on_cuda(run), limits={"multiple": 0})
    assert_quiet(SLUG, on_cuda(recorded(model(Attention(16, 2), 16), WORDS)))


def test_many_odd_heads_are_one_info():
    _, alerts = run_check(SLUG, on_cuda(zoo("codegen")))
    assert len(alerts) == 1
    assert "4 wide" in alerts[0].title
    assert alerts[0].title.endswith("and 1 more like it")


def test_an_attention_that_counts_no_heads_is_not_judged():
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(10, 10) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.query(x) @ self.key(x).mT, -1) @ self.value(x)

    engine, alerts = run_check(SLUG, recorded(model(Single(), 10), WORDS))
    assert not alerts
    assert "no attention says how many heads it has" in engine.not_run()[SLUG]


def test_known_architectures_are_quiet():
    for name in ("bert", "gpt2", "llama", "falcon", "deepseek-v3", "t5", "perceiver", "swin", "vit", "xcit"):
        assert_quiet(SLUG, zoo(name))
