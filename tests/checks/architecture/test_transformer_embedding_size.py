"""transformer-embedding-size: embeddings wider than the vocabulary is large."""

import torch
from torch import Tensor, nn

from tests.checks.architecture.real import recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet, run_check

SLUG = "transformer-embedding-size"


class Model(nn.Module):
    """Tokens, positions, token types, one block."""

    def __init__(self, vocabulary: int, width: int, positions: int = 64, types: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(types, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        return self.block(
            self.tokens(x) + self.position_embeddings(places) + self.token_type_embeddings(x * 0)
        )


def run(vocabulary: int, width: int, **options: int):
    return recorded(Model(vocabulary, width, **options), torch.randint(0, vocabulary, (2, 6)))


def test_fires():
    alert = assert_fires(SLUG, run(16, 16), layer="tokens", severity="info", since=(0, 1))
    assert alert.title == "Embeddings of 16 numbers for a vocabulary of 16"
    assert (alert.value, alert.threshold) == (1, 1)


def test_near_miss_one_word_more():
    assert_quiet(SLUG, run(17, 16))
    assert_fires(SLUG, run(17, 16), limits={"ratio": 0.9})


def test_tables_of_positions_and_types_are_not_the_vocabulary():
    assert_quiet(SLUG, run(40, 16, positions=8, types=2))
    assert_fires(SLUG, run(10, 16, positions=64, types=64), layer="tokens")


def test_the_guard_for_small_vocabularies():
    assert_quiet(SLUG, run(16, 16), limits={"vocabulary": 256})


def test_recurrent_models_and_images_are_not_judged():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.core = nn.Embedding(5, 16), nn.GRU(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.core(self.tokens(x))[0]

    engine, alerts = run_check(SLUG, recorded(Recurrent(), torch.randint(0, 5, (2, 6))))
    assert not alerts
    assert "the model has no attention" in engine.not_run()[SLUG]
    engine, alerts = run_check(SLUG, zoo("vit"))
    assert not alerts
    assert "no table of tokens was read" in engine.not_run()[SLUG]


def test_known_architectures_are_quiet():
    for name in ("bert", "gpt2", "t5", "opt", "distilbert", "clip"):
        assert_quiet(SLUG, zoo(name))
