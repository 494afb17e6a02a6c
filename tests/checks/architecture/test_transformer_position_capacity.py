"""transformer-position-capacity: sequences longer than the learned position table."""

import pytest
import torch
from torch import Tensor, nn

from tests.checks.architecture.real import recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet, run_check

SLUG = "transformer-position-capacity"


class Model(nn.Module):
    """Positions beyond the table are clamped, which is how they go unnoticed."""

    def __init__(self, rows: int, name: str = "position_embeddings", width: int = 8, **options: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.add_module(name, nn.Embedding(rows, width, **options))
        self.name, self.rows = name, rows
        self.block = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, x: Tensor, position_ids: Tensor | None = None) -> Tensor:
        places = torch.arange(x.shape[1]) if position_ids is None else position_ids
        found = self.get_submodule(self.name)(places.clamp(max=self.rows - 1))
        return self.block(self.tokens(x) + found[..., :1].expand(*found.shape[:-1], 8))


def words(length: int) -> Tensor:
    return torch.randint(0, 20, (2, length))


def test_fires():
    run = recorded(Model(16), words(20), steps=12)
    alert = assert_fires(SLUG, run, layer="position_embeddings", severity="critical", since=(0, 1), by=10)
    assert alert.title == "Sequences of 20 positions exceed a table of 16"
    assert (alert.value, alert.threshold) == (20, 16)


@pytest.mark.parametrize("name", ["wpe", "pos_emb", "embed_positions", "pos"])
def test_fires_by_other_names(name):
    assert_fires(SLUG, recorded(Model(16, name), words(20), steps=12), layer=name)


def test_info_close_to_the_end():
    alert = assert_fires(SLUG, recorded(Model(20), words(19), steps=12), severity="info")
    assert alert.detail == "Only 1 positions are left for longer sequences."
    assert_quiet(SLUG, recorded(Model(20), words(18), steps=12))
    assert_fires(SLUG, recorded(Model(20), words(18), steps=12), limits={"near": 0.85})


def test_near_miss_cut_to_the_table_and_its_guard():
    run = recorded(Model(20), words(20), steps=12)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, severity="info", limits={"full": 0})


def test_near_miss_packed_texts_with_positions_of_their_own_and_their_guard():
    places = torch.arange(20).remainder(10).expand(2, 20)
    run = recorded(Model(16), words(20), position_ids=places, steps=12)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, severity="critical", limits={"given": 0})


def test_rows_for_padding_do_not_count():
    """RoBERTa's positions begin behind the row of its padding."""
    assert_fires(SLUG, recorded(Model(20, padding_idx=1), words(19), steps=12), severity="critical")
    assert_quiet(SLUG, recorded(Model(20, padding_idx=1), words(16), steps=12))


@pytest.mark.parametrize(
    "name", ["relative_position_embeddings", "pos_bias", "x_position_embeddings", "table"]
)
def test_near_miss_tables_of_something_else(name):
    engine, alerts = run_check(SLUG, recorded(Model(16, name), words(20), steps=12))
    assert not alerts
    assert "no learned table of positions" in engine.not_run()[SLUG]


def test_near_miss_a_table_of_another_width_than_the_tokens():
    _, alerts = run_check(SLUG, recorded(Model(16, width=2), words(20), steps=12))
    assert not alerts


def test_what_was_given_must_be_known():
    run = recorded(Model(16), words(20), steps=12)
    engine, alerts = run_check(SLUG, run[:2])
    assert not alerts
    assert "what the model was given is not known yet" in engine.not_run()[SLUG]


def test_known_architectures_are_quiet():
    for name in ("bert", "roberta", "gpt2", "opt", "bart", "clip", "whisper", "longformer", "canine"):
        assert_quiet(SLUG, zoo(name))
