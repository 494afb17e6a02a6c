"""rnn-depth: many recurrent layers on top of each other."""

import torch
from torch import Tensor, nn

from tests.checks.architecture.real import layout_of, recorded
from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "rnn-depth"
SERIES = torch.randn(2, 6, 4)


class Chain(nn.Module):
    """Recurrent modules one after the other; ``between`` comes between them."""

    def __init__(self, *cores: nn.RNNBase, between: nn.Module | None = None) -> None:
        super().__init__()
        self.cores, self.between = nn.ModuleList(cores), between or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for core in self.cores:
            x = self.between(core(x)[0])
        return x


def test_fires_on_one_module():
    alert = assert_fires(
        SLUG, recorded(nn.LSTM(4, 4, num_layers=5), SERIES), layer="", severity="info", since=(0, 1)
    )
    assert alert.title == "5 recurrent layers on top of each other"
    assert (alert.value, alert.threshold) == (5, 4)


def test_fires_on_modules_that_feed_each_other():
    run = recorded(Chain(nn.LSTM(4, 6, 2), nn.GRU(6, 6, 2), nn.RNN(6, 5), between=nn.Dropout(0.1)), SERIES)
    alert = assert_fires(SLUG, run, layer="cores.0")
    assert "in 3 modules" in alert.detail


def test_near_miss_four_layers():
    assert_quiet(SLUG, recorded(nn.LSTM(4, 4, num_layers=4), SERIES))
    assert_quiet(SLUG, recorded(Chain(nn.LSTM(4, 6, 2), nn.GRU(6, 6, 2)), SERIES))
    assert_fires(SLUG, recorded(nn.LSTM(4, 4, num_layers=4), SERIES), limits={"layers": 3})


def test_near_miss_an_encoder_and_a_decoder():
    """Six layers in all, but the decoder reads a sequence of its own."""

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.GRU(4, 4, 3, batch_first=True), nn.GRU(4, 4, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            _, state = self.encoder(x)
            return self.decoder(x[:, :3], state)[0]

    assert_quiet(SLUG, recorded(Translator(), SERIES))


def under(run, *, gradient: float, update: float):
    """A long run of the same layout with these gradient norms and update ratios everywhere."""
    columns = {"grad_norms": gradient, "update_ratios": update, "weight_norms": 1.0}
    return records(1.0, steps=300, layers=layout_of(run), columns=columns)


def test_warning_where_gradients_vanish_as_well():
    deep = recorded(nn.LSTM(4, 4, num_layers=5), SERIES)
    alert = assert_fires(SLUG, under(deep, gradient=1e-12, update=1e-9), severity="warning", since=(0, 1))
    assert alert.title.endswith("and gradients vanish")
    moving = under(deep, gradient=1e-12, update=1e-3)  # small gradients that an optimizer rescales
    assert_quiet(SLUG, moving, allow_info=True)
    assert_fires(SLUG, moving, severity="warning", limits={"vanishing": 0})


def test_vanishing_gradients_in_a_shallow_stack_are_not_its_affair():
    shallow = recorded(nn.LSTM(4, 4, num_layers=2), SERIES)
    assert_quiet(SLUG, under(shallow, gradient=1e-12, update=1e-9))


def test_models_without_recurrence_are_not_judged():
    engine, _ = run_check(SLUG, recorded(nn.Linear(4, 4), SERIES))
    assert "the model has no recurrent layers" in engine.not_run()[SLUG]
