"""What is measured of a model and what is not, in the words of the layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torchwatch.patient import Patient
from torchwatch.probe import Probe
from torchwatch.probes import _torch

_UNSEEN_COMPILED = {"activations", "wiring", "inputs", "targets", "attention", "clock", "sentinel"}


def coverage(
    probes: Iterable[Probe],
    patient: Patient,
    off: Mapping[str, str],
    *,
    compiled: bool,
    stepped: bool,
    histograms: bool,
) -> dict[str, str]:
    """By probe ``ok``, or why not everything is measured.

    Args:
        probes: all there are.
        patient: the model.
        off: probe → why it was switched off.
        compiled: whether dynamo is in use: module hooks see nothing then.
        stepped: whether an optimizer of the model was seen to step.
        histograms: whether they are wanted.
    """
    told = {probe.name: off.get(probe.name) or probe.coverage() for probe in probes}
    if compiled:
        for name in _UNSEEN_COMPILED & told.keys():
            if not told[name].startswith("off"):
                told[name] = "unavailable: compiled"
        if histograms:
            told["histograms"] = "gradients only: compiled"
    scripted = patient.scripted()
    if scripted and told["activations"] == "ok":
        whole = scripted == len(patient.layers)
        told["activations"] = "unavailable: scripted" if whole else "scripted layers are not seen"
    model = patient.model()
    flat = model is not None and _torch.flat_shards(model)
    if flat or any(hasattr(p, "to_local") for _, p in patient.live_parameters()):
        told["gradients"] = "this rank's shards only"
    if not stepped:
        told["updates"] = told["learning_rate"] = "no optimizer seen"
    return told
