"""The watched model by identity: layers, parameters, optimizers, and how they change."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from torchwatch.patient import Patient, clean_name


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight
        self.scale = nn.Parameter(torch.ones(1))


def test_layers_are_leaves_and_owners_of_parameters() -> None:
    model = Tied()
    patient = Patient(model)
    assert [layer.name for layer in patient.layers] == [
        "",
        "table",
        "attention",
        "attention.out_proj",
        "head",
    ]
    assert patient.names[0] == "scale"
    assert patient.names.count("table.weight") == 1
    assert "head.weight" not in patient.names  # tied: counted where it comes first
    infos = patient.layer_infos()
    assert infos[4].attributes == {"in_features": 4, "out_features": 10}
    assert infos[4].parameters == 40


def test_identity_is_checked_not_only_the_number() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    patient = Patient(model)
    assert patient.layer_of(model[0]) == 0
    assert patient.layer_of(nn.Linear(2, 2)) is None
    patient.layer_index[id(other := nn.ReLU())] = 0  # another module at a dead one's address
    assert patient.layer_of(other) is None


def test_changes_of_the_model_are_found() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    patient = Patient(model)
    assert not patient.refresh()
    model.append(nn.Linear(2, 1))
    assert patient.refresh()
    assert [layer.name for layer in patient.layers] == ["0", "1", "2"]
    model[0].weight = nn.Parameter(torch.zeros(2, 2))
    before = patient.structure
    assert patient.refresh()
    assert patient.structure == before + 1
    assert patient.parameters[0]() is model[0].weight


def test_what_was_learned_of_a_layer_survives_a_refresh() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    patient = Patient(model)
    patient.layers[0].order = 0
    patient.layers[0].outputs = [[8, 2]]
    model.append(nn.Linear(2, 1))
    patient.refresh()
    assert (patient.layers[0].order, patient.layers[0].outputs) == (0, [[8, 2]])


def test_optimizers_are_united_and_dead_ones_make_room() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    patient = Patient(model)
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.SGD([{"params": model[1].parameters()}, {"params": []}], lr=0.2, momentum=0.9)
    assert patient.held_by(first) == [0, 1]
    assert patient.held_by(second) == [2, 3]
    assert patient.unowned() == [4, 5]
    assert patient.held_by(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)) == []
    infos = patient.parameter_infos()
    assert [(p.optimizer, p.group) for p in infos] == [
        (0, 0),
        (0, 0),
        (1, 0),
        (1, 0),
        (None, None),
        (None, None),
    ]
    groups = patient.optimizer_infos()[1].groups
    assert (groups[0]["lr"], groups[0]["momentum"], groups[0]["parameters"], groups[1]["parameters"]) == (
        0.2,
        0.9,
        2,
        0,
    )
    second.add_param_group({"params": model[2].parameters()})
    assert patient.held_by(second) == [2, 3, 4, 5]
    assert patient.unowned() == []
    for _ in range(5):  # an optimizer made anew every epoch does not pile up
        del second
        second = torch.optim.SGD(model[1].parameters(), lr=0.1)
        patient.held_by(second)
    assert len(patient.optimizers) == 2


def test_the_model_is_held_weakly() -> None:
    model = nn.Linear(2, 2)
    patient, alive = Patient(model), weakref.ref(model)
    gc.disable()
    try:
        del model
        assert alive() is None
    finally:
        gc.enable()
    assert patient.model() is None
    assert list(patient.live_parameters()) == []
    assert not patient.refresh()


def test_lazy_parameters_have_no_shape_yet() -> None:
    model = nn.LazyLinear(3)
    patient = Patient(model)
    assert patient.parameter_infos()[0].shape == []
    model(torch.ones(2, 5))
    patient.refresh()
    assert [p.shape for p in patient.parameter_infos()] == [[3, 5], [3]]


def test_wrappers_are_not_part_of_a_name() -> None:
    assert clean_name("module._orig_mod.block.0") == "block.0"
    assert clean_name("modules.module_list") == "modules.module_list"


def test_layers_say_how_the_module_around_them_splits_attention_and_where_it_normalises() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n_head, self.secret = 2, "not of interest"
            self.query = nn.Linear(4, 4)

    model = nn.ModuleDict({"own": Attention(), "torch": nn.TransformerEncoderLayer(4, 2, 8)})
    attributes = {i.name: i.attributes for i in Patient(model).layer_infos()}
    assert attributes["own.query"]["parent"] == {"type": "Attention", "n_head": 2}
    assert attributes["torch.norm1"]["parent"] == {"type": "TransformerEncoderLayer", "norm_first": False}
    plain = nn.Linear(2, 2)
    plain.parent = "a name of its own"
    assert "parent" not in Patient(nn.Sequential(plain)).layer_infos()[0].attributes


def test_nothing_holds_the_modules_around_layers() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8))
    patient, block = Patient(model), weakref.ref(model[0])
    model[0] = nn.Linear(2, 2)
    gc.collect()
    assert block() is None
    assert patient.layer_infos()[0].attributes == {}
