import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit
from torchwatch.examinations._explained import embedding_of, pliable, seeded, subject
from torchwatch.examinations._targets import target_of
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import NotApplicable
from torchwatch.results import AutopsyInputs

NAMED = {p.name: p for p in PATIENTS}


def case_of(name, **known):
    model, data = admit(NAMED[name])
    return Case(AutopsyInputs(model.eval(), data, **known))


@pytest.mark.parametrize("name", ["signals", "images", "dicts", "tokens", "labels", "sequences"])
def test_the_explained_number_is_the_one_of_the_model(name):
    case = case_of(name)
    chosen = subject(case, 10, "test")
    main, extra = chosen.rows(slice(0, 10))
    outputs = case.outputs[torch.from_numpy(chosen.index)]
    expected = {
        "signals": lambda o: o[:, 0],
        "sequences": lambda o: o[:, 0],
        "images": lambda o: o.max(1).values,
        "dicts": lambda o: o.max(1).values,
        "labels": lambda o: o.max(1).values,
        "tokens": lambda o: o.max(-1).values.mean(1),
    }[name](outputs)
    assert torch.allclose(chosen.model()(main, *extra), expected, atol=1e-5)


def test_the_main_input_keeps_its_place_among_others():
    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def forward(self, kind, x):
            return (self.weight * x.sum(1) + 100 * kind).unsqueeze(1)

    kind, x = torch.arange(6) % 2, torch.randn(6, 4)
    case = Case(AutopsyInputs(Second(), [((kind, x), torch.randn(6, 1))]))
    assert case.main == "input1"
    chosen = subject(case, 6, "test")
    main, extra = chosen.rows(slice(0, 6))
    assert torch.allclose(chosen.model()(main, *extra), 2 * x.sum(1) + 100 * kind)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        where = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return self.head(self.words(input_ids) * attention_mask.unsqueeze(-1) + self.places(where))


def test_padding_and_ignored_tokens_do_not_count():
    ids = torch.randint(9, (4, 5))
    mask = torch.tensor([[1, 1, 1, 0, 0]]).repeat(4, 1)
    case = Case(AutopsyInputs(Padded(), [{"input_ids": ids, "attention_mask": mask}], task="token"))
    target = target_of(case, subject(case, 4, "test").index)
    assert target.weights[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])
    labels = torch.full((4, 5), -100)
    labels[:, 1] = 2
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    case = Case(AutopsyInputs(Padded(), [batch]))
    assert target_of(case, subject(case, 4, "test").index).weights[0].tolist() == [0, 1, 0, 0, 0]


def test_the_embedding_is_that_of_the_main_input():
    ids = torch.randint(5, 9, (4, 5))
    case = Case(
        AutopsyInputs(Padded(), [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], task="token")
    )
    assert embedding_of(case) == "words"


def test_a_model_that_changes_its_input_in_place_can_be_explained():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 1)

        def forward(self, x):
            x -= 1
            return self.head(x)

    x = torch.randn(6, 4)
    before = x.clone()
    case = Case(AutopsyInputs(InPlace(), (x, torch.randn(6, 1))))
    chosen = subject(case, 6, "test")
    main, extra = chosen.rows(slice(0, 6))
    (gradient,) = torch.autograd.grad(chosen.model()(main.requires_grad_(), *extra).sum(), main)
    assert torch.allclose(gradient, case.model.head.weight.expand(6, 4))
    assert torch.equal(x, before)


def test_only_nan_is_nothing_to_explain():
    x = torch.full((5, 4), float("nan"))
    with pytest.raises(NotApplicable, match="NaN or infinity"):
        subject(Case(AutopsyInputs(nn.Linear(4, 1), (x, torch.randn(5, 1)))), 5, "test")


def test_copies_have_no_activation_in_place_and_the_model_keeps_its_own():
    case = case_of("signals")
    assert not any(getattr(m, "inplace", False) for m in pliable(case).modules())
    assert case.model[2].inplace


def test_chance_follows_the_seed_and_leaves_no_trace():
    case = case_of("signals")
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(case, "test"):
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), before)
