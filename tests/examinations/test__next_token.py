import pytest
import torch
from torch import nn

from torchwatch.examinations._next_token import predicts_next_token
from torchwatch.examinations.case import Case
from torchwatch.results import AutopsyInputs

IDS = torch.randint(20, (12, 7), generator=torch.Generator().manual_seed(0))


class Reader(nn.Module):
    """Sees the tokens so far, or all."""

    def __init__(self, *, causal):
        super().__init__()
        torch.manual_seed(0)
        self.causal, self.embedding, self.head = causal, nn.Embedding(20, 8), nn.Linear(8, 20)

    def forward(self, input_ids, attention_mask=None):
        x = self.embedding(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        x = x.cumsum(1) if self.causal else x + x.sum(1, keepdim=True)
        return self.head(x)


def told(model, targets=IDS, **more):
    inputs = {"input_ids": IDS, **more}
    return predicts_next_token(lambda named: model(**named), inputs, "input_ids", targets)


def test_tokens_as_their_own_targets_of_a_causal_model_are_meant_one_place_on():
    assert told(Reader(causal=True))
    some = IDS.clone()
    some[:, :3] = -100
    assert told(Reader(causal=True), some)


@pytest.mark.parametrize(
    ("causal", "targets"), [(False, IDS), (True, IDS.roll(-1, 1)), (True, IDS[:, :1]), (True, IDS * 0 - 100)]
)
def test_others_are_not(causal, targets):
    assert not told(Reader(causal=causal), targets)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_hides_no_look_ahead(causal):
    mask = torch.ones_like(IDS)
    mask[:, 4:] = 0
    assert told(Reader(causal=causal), attention_mask=mask) == causal


def test_the_case_compares_with_the_next_token_and_says_so():
    case = Case(AutopsyInputs(Reader(causal=True), [{"input_ids": IDS, "labels": IDS}]))
    assert case.task.next_token
    assert torch.equal(case.targets[:, :-1], IDS[:, 1:])
    assert (case.targets[:, -1] == -100).all()
    assert "next token" in case.task.remarks[0].text
