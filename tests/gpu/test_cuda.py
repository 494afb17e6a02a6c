"""On a CUDA device: bitwise the same, no synchronisation, values as on the host (benchmarks/gpu/run.sh)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig, Watcher
from torchwatch.runfile import read_records

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

EVERYTHING = WatchConfig(
    terminal=False, budget=None, gradients_every=1, activations_every=1, rare_every=2, energy=False
)


class Net(nn.Module):
    """Convolution, norm, ReLU, attention and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        return self.head(self.attention(y, y, y, need_weights=False)[0].mean(1))


def train(device: str, path=None, *, steps: int = 12, strict: bool = False, config=EVERYTHING):
    """Losses and final parameters; ``strict``: any synchronisation inside the watched steps raises."""
    torch.manual_seed(0)
    model = Net().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = [torch.randn(16, 3, 8, 8).to(device) for _ in range(steps)]
    target = torch.randint(0, 5, (16,)).to(device)
    losses = []

    def loop(watch: Watcher | None) -> None:
        for number, x in enumerate(data):
            if strict and number == 2:  # the first steps compile kernels and allocate
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode("error")
            with torch.autocast(device, dtype=torch.bfloat16, enabled=strict):
                loss = functional.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
            if watch is not None:
                watch.log(loss=loss)

    try:
        if path is None:
            loop(None)
        else:
            with Watcher(model, path, config=config) as watch:
                try:
                    loop(watch)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return torch.stack(losses), [p.detach().clone() for p in model.parameters()], torch.cuda.get_rng_state()


def test_training_is_bitwise_the_same(tmp_path) -> None:
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        bare, watched = train("cuda"), train("cuda", tmp_path / "run.jsonl")
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert torch.equal(bare[0], watched[0])
    assert all(torch.equal(a, b) for a, b in zip(bare[1], watched[1], strict=True))
    assert torch.equal(bare[2], watched[2])


@pytest.mark.parametrize("config", [EVERYTHING, WatchConfig(terminal=False)], ids=["everything", "default"])
def test_no_watched_step_synchronises(tmp_path, config: WatchConfig) -> None:
    train("cuda", tmp_path / "run.jsonl", steps=30, strict=True, config=config)
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert len(steps_in(records)) == 30


def test_what_is_measured_is_what_the_host_measures(tmp_path) -> None:
    train("cpu", tmp_path / "cpu.jsonl", steps=2)
    train("cuda", tmp_path / "cuda.jsonl", steps=2)
    pairs = zip(
        steps_in(list(read_records(tmp_path / "cpu.jsonl"))),
        steps_in(list(read_records(tmp_path / "cuda.jsonl"))),
        strict=True,
    )
    for host, card in pairs:
        assert card.loss == pytest.approx(host.loss, rel=1e-3)
        assert card.grad_norm == pytest.approx(host.grad_norm, rel=1e-2)
        assert host.activations is not None
        assert card.activations is not None
        for name in ("mean", "rms", "zero_fraction", "absmax", "nonfinite"):
            np.testing.assert_allclose(card.activations[name], host.activations[name], rtol=2e-2, atol=2e-3)


def test_a_full_ring_drops_and_says_so(tmp_path) -> None:
    """The recorder is held up while the device runs ahead: steps lose their values, the training goes on."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, tmp_path / "run.jsonl", config=EVERYTHING) as watch:
        session = watch._session
        assert session is not None
        session.attachment.steps.transfers._slots = 1
        torch.cuda._sleep(2_000_000_000)
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.ones(4, 8, device="cuda")).sum().backward()
            optimizer.step()
    records = list(read_records(tmp_path / "run.jsonl"))
    assert records[-1].dropped > 0  # type: ignore[attr-defined]
    assert len(steps_in(records)) == 20
