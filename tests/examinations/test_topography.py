import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations._positions import flattened
from torchwatch.postmortem import autopsy

PLACES = np.array([[-1, 0], [1, 0], [0, 1], [0, -1], [0, 0], [0.5, 0.5]], dtype=float)
NAMES = ["C3", "C4", "Fz", "Oz", "Cz", "F4"]


def examined(**known):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6 * 10, 1))
    with torch.no_grad():
        model[1].weight.mul_(0.01)
        model[1].weight.reshape(1, 6, 10)[:, 1] = 1
    x = torch.randn(30, 6, 10)
    done = autopsy(
        model,
        (x, model(x).detach()),
        examine=["ablation", "attributions", "topography"],
        axes=("channel", "time"),
        ig_n_steps=4,
        attribution_samples=8,
        repeats=1,
        **known,
    )
    return next(o for o in done.outcomes if o.name == "topography")


def test_attribution_and_ablation_lie_where_the_channel_is():
    result = examined(positions=PLACES, channel_names=NAMES).result
    assert [layer.name for layer in result.layers] == ["attribution", "ablation"]
    for layer in result.layers:
        assert layer.values.argmax() == 1
        assert layer.centre == pytest.approx((1, 0), abs=0.15)
    assert result.channels == tuple(NAMES)
    assert "C4" in result.remarks[0].text


def test_places_may_be_given_by_name():
    result = examined(positions={"c3": (-1, 0), "C4": (1, 0)}, channel_names=NAMES).result
    assert np.isnan(result.positions[2:]).all()
    assert any("4 channels have no place" in r.text for r in result.remarks)


@pytest.mark.parametrize(
    ("positions", "status", "words"),
    [
        (None, "skipped", "pass positions="),
        (PLACES[:4], "failed", "positions must be (6, 2)"),
        ({"A": (0, 0)}, "skipped", "no place is known"),
    ],
)
def test_what_is_wrong_is_said(positions, status, words):
    done = examined(positions=positions)
    assert done.status == status
    assert words in done.reason


def test_a_montage_without_mne_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mne", None)
    monkeypatch.setitem(sys.modules, "mne.channels", None)
    done = examined(positions="standard_1020", channel_names=NAMES)
    assert done.status == "skipped"
    assert "pip install mne" in done.reason


def test_a_montage_gives_the_places_of_its_names(monkeypatch):
    class Montage:
        def get_positions(self):
            return {
                "ch_pos": {"Cz": [0, 0, 0.1], "C3": [-0.1, 0, 0], "C4": [0.1, 0, 0], "FZ": [0, 0.07, 0.07]}
            }

    def make_standard_montage(name):
        if name != "standard_1020":
            raise ValueError(f"Invalid value for the 'kind' parameter: {name}\nAllowed values are …")
        return Montage()

    channels = types.ModuleType("mne.channels")
    channels.make_standard_montage = make_standard_montage
    monkeypatch.setitem(sys.modules, "mne", types.ModuleType("mne"))
    monkeypatch.setitem(sys.modules, "mne.channels", channels)
    result = examined(positions="standard_1020", channel_names=NAMES).result
    assert result.source == "MNE montage standard_1020"
    assert result.positions[[0, 1, 4]] == pytest.approx(np.array([[-1, 0], [1, 0], [0, 0]]))
    assert result.positions[2] == pytest.approx([0, 0.5]), "names in any case"
    done = examined(positions="no_such", channel_names=NAMES)
    assert done.status == "failed"
    assert "MNE has no montage 'no_such'" in done.reason


def test_the_plane_keeps_angles_from_the_top():
    assert flattened(np.array([0, 0, 2.0])).tolist() == [0, 0]
    assert flattened(np.array([3.0, 0, 0])) == pytest.approx([1, 0])
    assert flattened(np.array([0, 1.0, 1.0])) == pytest.approx([0, 0.5])
    assert np.hypot(*flattened(np.array([1.0, 1.0, -0.5]))) > 1, "below the equator is outside"


def test_the_patient_survives():
    model, data = admit(PATIENTS[0])
    with assert_untouched(model):
        autopsy(
            model,
            data,
            examine=["attributions", "topography"],
            positions=PLACES,
            ig_n_steps=2,
            attribution_samples=3,
        )
