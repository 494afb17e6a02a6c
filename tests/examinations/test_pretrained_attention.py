"""A real pretrained model explained end to end: the MiniLM sentence encoder, whose weights a package ships.

The package is data here: its archive is read, its code is never run.
"""

import zipfile
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest
import torch

from torchwatch import ExplainAttention, autopsy

SENTENCES = [
    "The loss fell for ten epochs and then became infinite.",
    "The network predicts the mean of all targets.",
    "A cat sat on the mat and looked at the dog.",
    "Dogs and cats are the most common pets.",
    "Interest rates rose for the third time this year.",
    "The central bank raised its interest rate again.",
    "She plays the violin in a small orchestra.",
    "The orchestra gave a concert with a young violinist.",
]
TOPICS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The encoder with eager attention, and one batch of sentences."""
    from tests.zoo_shims import load

    transformers, _ = load()
    found = find_spec("all_minilm_l6_v2")
    assert found is not None, 'the weights are in the extra: pip install -e ".[pretrained]"'
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(found.origin).parent / "model.zip") as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            archive.extract(name, folder)
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="sdpa", local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    batch = dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))
    return model.eval(), batch


def test_recomputed_weights_are_those_of_eager_attention(encoder):
    model, batch = encoder
    captured = ExplainAttention(model).batch(batch)
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            expected = model(**batch, output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    assert len(captured.weights) == len(expected) == 6
    valid = batch["attention_mask"].bool()[:, None, :, None].expand_as(expected[0])
    for weights, eager in zip(captured.weights.values(), expected, strict=True):
        assert weights.shape == eager.shape == (8, 12, *batch["input_ids"].shape[1:] * 2)
        assert (weights - eager)[valid].abs().max() < 1e-4


class Classifier(torch.nn.Module):
    """Nearest topic by the mean of the last hidden states: a pretrained encoder put to use."""

    def __init__(self, encoder, batch):
        super().__init__()
        self.encoder = encoder
        with torch.no_grad():
            sentences = self.embed(**batch)
        self.register_buffer("topics", torch.stack([sentences[t == TOPICS].mean(0) for t in range(4)]))

    def embed(self, input_ids, attention_mask, token_type_ids=None):
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return 10 * self.embed(input_ids, attention_mask, token_type_ids) @ self.topics.T


def test_a_report_of_a_pretrained_encoder(encoder, tmp_path):
    model, batch = encoder
    classifier = Classifier(model, batch).eval()
    data = [batch | {"labels": TOPICS}]
    result = autopsy(classifier, data, examine=["attention", "predictions", "failures"])
    assert {o.status for o in result.outcomes} == {"done"}
    found = result["attention"]
    assert len(found.layers) == 6
    assert result["predictions"].classes.accuracy == 1.0
    report = result.report(tmp_path / "report")
    body = orjson.loads(report[2].read_bytes())["autopsy"]
    assert len(body["attention"]["layers"]) == 6
    assert any(path.name.startswith("attention") for path in report)
