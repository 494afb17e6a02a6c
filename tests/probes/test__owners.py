"""Who is in its forward pass, also after one that raised."""

from __future__ import annotations

from torch import nn

from torchwatch.probes._owners import Owners


def model_and_owners() -> tuple[nn.Sequential, Owners]:
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Linear(1, 1))
    owners = Owners()
    owners.refresh(model)
    return model, owners


def name(owners: Owners) -> str | None:
    return owners.innermost.name if owners.innermost is not None else None


def test_the_innermost_module_in_progress() -> None:
    model, owners = model_and_owners()
    seen = []
    owners.starts(model)
    owners.starts(model[0])
    owners.starts(model[0][0])
    seen.append(name(owners))
    owners.ran(model[0][0])
    seen.append(name(owners))
    owners.ran(model[0])
    seen.append(name(owners))
    owners.ran(model)
    seen.append(name(owners))
    assert seen == ["0.0", "0", "", None]


def test_other_peoples_modules_are_ignored() -> None:
    model, owners = model_and_owners()
    owners.starts(other := nn.ReLU())
    assert owners.innermost is None
    owners.starts(model[1])
    owners.ran(other)
    assert name(owners) == "1"


def test_a_pass_that_raised_is_forgotten_with_the_next() -> None:
    model, owners = model_and_owners()
    for module in (model, model[0], model[0][1]):
        owners.starts(module)  # the activation raises: nobody tells of an end
    owners.starts(model)
    assert name(owners) == ""
    owners.ran(model)
    assert owners.innermost is None


def test_an_end_inside_of_one_that_raised() -> None:
    model, owners = model_and_owners()
    for module in (model, model[0], model[0][1]):
        owners.starts(module)
    owners.ran(model[0])  # it caught what the activation raised
    assert name(owners) == ""


def test_wrappers_are_not_part_of_names() -> None:
    wrapped = nn.ModuleDict({"module": nn.ModuleDict({"body": nn.Linear(1, 1)})})
    owners = Owners()
    owners.refresh(wrapped)
    owners.starts(wrapped["module"]["body"])
    assert name(owners) == "body"


def test_a_dead_module_does_not_lend_its_name() -> None:
    model, owners = model_and_owners()
    identity = id(model[1])
    del model[1]
    stranger = nn.ReLU()
    owners._names[id(stranger)] = owners._names[identity]  # as if it had got the same address
    owners.starts(stranger)
    assert owners.innermost is None
