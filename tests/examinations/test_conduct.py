import pytest
import torch
from torch import nn

from tests.helpers_patients import assert_untouched
from torchwatch.errors import ConfigError, ModelError
from torchwatch.examinations import conduct as conducting
from torchwatch.examinations.case import Options
from torchwatch.examinations.conduct import conduct
from torchwatch.examinations.examination import Examination, NotApplicable, all_examinations, chosen
from torchwatch.results import AutopsyInputs

X, Y = torch.randn(20, 3), torch.randn(20, 1)


def examined(monkeypatch, *examines, model=None, data=(X, Y), **known):
    table = [
        Examination(f"No. {i}", e, "", name=f"e{i}", **known.pop("of", {})) for i, e in enumerate(examines)
    ]
    monkeypatch.setattr(conducting, "chosen", lambda names: tuple(table))
    return conduct(AutopsyInputs(model or nn.Linear(3, 1), data), **known)


def broken(case):
    raise RuntimeError("mat1 and mat2\ncannot be multiplied")


def not_here(case):
    raise NotApplicable("the model has no dropout")


def test_one_that_fails_stops_no_other(monkeypatch):
    autopsy = examined(monkeypatch, broken, not_here, lambda case: len(case.samples))
    assert [o.status for o in autopsy.outcomes] == ["failed", "skipped", "done"]
    assert autopsy.outcomes[0].reason == "RuntimeError: mat1 and mat2 cannot be multiplied"
    assert autopsy["e2"] == 20
    assert list(autopsy) == ["e2"]
    with pytest.raises(KeyError, match="no dropout"):
        autopsy["e1"]


def test_later_ones_see_what_came_before(monkeypatch):
    autopsy = examined(monkeypatch, lambda case: 7, lambda case: case.results["e0"] + 1)
    assert autopsy["e1"] == 8


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_patient_survives_whatever_is_done_to_it(monkeypatch, error):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def rough(case):
        case.model.train()
        case.model(X).sum().backward()
        case.model[0].register_forward_hook(print)
        raise error

    with assert_untouched(model):
        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                examined(monkeypatch, rough, model=model)
        else:
            examined(monkeypatch, rough, model=model)


def test_each_finds_the_model_in_evaluation_mode(monkeypatch):
    def upset(case):
        case.model.train()

    autopsy = examined(monkeypatch, upset, lambda case: case.model.training)
    assert autopsy["e1"] is False


def test_after_the_time_limit_none_starts(monkeypatch):
    now = [0.0]

    def slow(case):
        now[0] += 60

    options = Options(time_limit_s=30)
    autopsy = examined(monkeypatch, slow, slow, options=options, clock=lambda: now[0])
    assert [o.status for o in autopsy.outcomes] == ["done", "skipped"]
    assert "30 s" in autopsy.outcomes[1].reason
    assert autopsy.outcomes[0].duration_s == 60


def test_progress_is_told_by_title(monkeypatch):
    heard = []
    examined(monkeypatch, lambda case: case.tick(3, 9), listen=lambda *said: heard.append(said))
    assert ("No. 0", 3, 9) in heard


def test_without_targets_those_that_need_them_say_so(monkeypatch):
    autopsy = examined(monkeypatch, lambda case: 1, data=[(X,)], of={"needs_targets": True})
    assert "hold no targets" in autopsy.outcomes[0].reason


def test_names_may_have_dashes_and_unknown_ones_get_a_hint():
    name = next(n for n in all_examinations() if "_" in n)
    assert [e.name for e in chosen([name.replace("_", "-")])] == [name]
    with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
        chosen([f"{name}x"])


def test_each_comes_after_what_it_uses():
    order = list(all_examinations())
    for name, examination in all_examinations().items():
        assert all(order.index(b) < order.index(name) for b in examination.after if b in order)


def test_no_model_is_said():
    with pytest.raises(ModelError, match="not dict"):
        conduct(AutopsyInputs({}, (X, Y)))
