"""``torchwatch postmortem`` with a model on the table, as a user runs it."""

import re
import subprocess
import sys

import orjson
import pytest
import torch
from torch import nn

from torchwatch import AutopsyInputs, Watcher, autopsy
from torchwatch.__main__ import main
from torchwatch.errors import UsageError

SCRIPT = """
import torch
from sklearn.datasets import load_digits
from torch import nn

from torchwatch import AutopsyInputs


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def data():
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def build():
    x, y = data()
    site = {{"site": ["<script>alert(1)</script>" if i % 2 else "b" for i in range(len(y) - 1200)]}}
    return AutopsyInputs(
        {model}, [(x[1200:], y[1200:], site)], train_data=[(x[:1200], y[:1200])],
        class_names=["<b>zero</b>", *"123456789"],
    )


def nothing():
    return 3


def broken():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    return AutopsyInputs(Broken(), data())


def empty():
    return AutopsyInputs(model(), [])


def unlabelled():
    return AutopsyInputs(model(), [(data()[0],)])


def holes():
    x, y = data()
    x[5, 7] = float("nan")
    return AutopsyInputs(model(), (x[:100], y[:100]))


def mismatched():
    x, y = data()
    return AutopsyInputs(model(), (x[:50], torch.zeros(50, 3)))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a small network on the digits, its checkpoint, and the script that rebuilds it."""
    folder = tmp_path_factory.mktemp("trained")
    script = folder / "train.py"
    script.write_text(SCRIPT.format(model="model()"))
    space: dict = {}
    exec(compile(script.read_text(), "train.py", "exec"), space)
    model, (x, y) = space["model"](), space["data"]()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with Watcher(model, folder / "run.jsonl", recipe=f"{script}:build", sinks=[]) as watch:
        for _ in range(4):
            for rows in torch.randperm(1200).split(100):
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            watch.epoch()
    torch.save({"state_dict": model.state_dict(), "config": None}, folder / "best.pt")
    return folder


def postmortem(folder, out, *arguments):
    return main(["postmortem", str(folder / "run.jsonl"), "--out", str(out), *arguments])


def test_everything_from_build_and_checkpoint_to_the_page(trained, tmp_path, capsys):
    build = f"{trained / 'train.py'}:build"
    code = postmortem(
        trained, tmp_path, "--build", build, "--checkpoint", str(trained / "best.pt"), "--samples", "200",
        "--examine", "predictions,baselines,failures,relearning,verdict", "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    body = orjson.loads((tmp_path / "report.json").read_bytes())
    assert set(body) >= {"issues", "incidents", "health_score", "autopsy"}
    assert body["autopsy"]["about"]["samples"] == 200
    assert body["autopsy"]["verdict"]["hypotheses"][0]["name"] == "training"  # four epochs
    assert body["autopsy"]["predictions"]["classes"]["accuracy"] > 0.75
    assert "ablation" in {e["examination"] for e in body["not_examined"]}
    page = (tmp_path / "report.html").read_text()
    assert 'id="autopsy-verdict"' in page
    assert "<script>" not in page
    assert "<b>zero" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert (tmp_path / "relearning_skill.png").stat().st_size > 5_000
    said = capsys.readouterr()
    assert str(tmp_path / "relearning_skill.png") in said.out
    assert "examining on cpu" in said.err


def test_the_recipe_is_shown_and_runs_only_when_asked(trained, tmp_path, capsys):
    assert postmortem(trained, tmp_path / "a") == 0
    text = (tmp_path / "a" / "report.md").read_text()
    assert f"{trained / 'train.py'}:build" in text.replace("\\", "")
    assert f"torchwatch postmortem {trained / 'run.jsonl'} --use-recipe" in text
    assert orjson.loads((tmp_path / "a" / "report.json").read_bytes())["autopsy"] is None
    assert postmortem(trained, tmp_path / "b", "--use-recipe", "--examine", "failures", "--json") == 0
    body = orjson.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert "failures" in body["autopsy"]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("nothing", "must return AutopsyInputs"),
        ("broken", "RuntimeError: mat1 and mat2 shapes"),
        ("empty", "no samples"),
        ("mismatched", "fit no task"),
        ("bild", "build"),
    ],
)
def test_what_cannot_be_examined_is_one_sentence_and_code_two(trained, tmp_path, capsys, function, says):
    assert postmortem(trained, tmp_path / "out", "--build", f"{trained / 'train.py'}:{function}") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in last
    assert not (tmp_path / "out").exists()


def test_without_targets_or_with_holes_the_others_still_run(trained, tmp_path):
    for function in ("unlabelled", "holes"):
        spec = f"{trained / 'train.py'}:{function}"
        out = tmp_path / function
        arguments = ("--build", spec, "--examine", "predictions,failures,data_quality", "--samples", "100")
        assert postmortem(trained, out, *arguments) == 0
        body = orjson.loads((out / "report.json").read_bytes())["autopsy"]
        assert "data_quality" in body
    left = orjson.loads((tmp_path / "unlabelled" / "report.json").read_bytes())["autopsy"]["not_examined"]
    assert any("hold no targets" in e["reason"] for e in left)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--checkpoint", "x.pt"], "--checkpoint needs a model"),
        (["--build", "a.py:b", "--use-recipe"], "either --build or --use-recipe"),
        (["--use-recipe", "--examine", "ablatoin"], "did you mean 'ablation'"),
        (["--use-recipe", "--device", "quantum"], "--device cpu"),
        (["--use-recipe", "--checkpoint", "missing.pt"], "missing.pt"),
    ],
)
def test_wrong_options_are_one_sentence_and_code_two(trained, tmp_path, capsys, arguments, says):
    assert postmortem(trained, tmp_path / "out", *arguments) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_checkpoint_that_does_not_fit_names_its_keys(trained, tmp_path, capsys):
    state = torch.load(trained / "best.pt", weights_only=True)["state_dict"]
    state["extra.weight"] = state.pop("2.weight")
    torch.save(state, tmp_path / "other.pt")
    assert (
        postmortem(trained, tmp_path / "o", "--use-recipe", "--checkpoint", str(tmp_path / "other.pt")) == 2
    )
    said = capsys.readouterr().err
    assert "2.weight" in said
    assert "extra.weight" in said


def test_an_out_that_cannot_be_written_is_said_before_anything_is_examined(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert postmortem(trained, tmp_path / "file" / "deep", "--use-recipe") == 2
    said = capsys.readouterr().err
    assert "the report cannot be written to" in said
    assert "examining" not in said


class Payload:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_pickle_is_refused_without_trust(trained, tmp_path, capsys):
    torch.save({"state_dict": {}, "extra": Payload()}, tmp_path / "evil.pt")
    assert postmortem(trained, tmp_path / "o", "--use-recipe", "--checkpoint", str(tmp_path / "evil.pt")) == 2
    said = capsys.readouterr()
    assert "--trust-checkpoint" in said.err
    assert "this ran" not in said.out


def test_ctrl_c_still_writes_what_was_done(trained, tmp_path, monkeypatch):
    from torchwatch.examinations import conduct

    real = conduct._examined

    def until_failures(examination, *rest):
        if examination.name == "failures":
            raise KeyboardInterrupt
        return real(examination, *rest)

    monkeypatch.setattr(conduct, "_examined", until_failures)
    assert postmortem(trained, tmp_path, "--use-recipe", "--examine", "baselines,failures") == 130
    body = orjson.loads((tmp_path / "report.json").read_bytes())["autopsy"]
    assert "baselines" in body
    assert body["not_examined"][0]["reason"] == "interrupted by Ctrl-C"


def test_without_a_model_no_torch_is_loaded(trained, tmp_path):
    program = (
        "import sys; from torchwatch.__main__ import main; "
        f"assert main(['postmortem', {str(trained / 'run.jsonl')!r}, '--out', {str(tmp_path)!r}]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_from_python_without_a_run(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    result = autopsy(nn.Linear(4, 1), (x, x[:, :1]), examine=["predictions", "relearning", "verdict"])
    paths = result.report(tmp_path / "out")
    assert [p.name for p in paths[:3]] == ["report.html", "report.md", "report.json"]
    assert orjson.loads(paths[2].read_bytes())["autopsy"]["verdict"]["hypotheses"]
    assert "Autopsy of Linear" in paths[0].read_text()
    assert paths[0].stat().st_mode & 0o077 == 0


def test_wrong_calls_are_said():
    with pytest.raises(UsageError, match="needs data"):
        autopsy(nn.Linear(1, 1))
    with pytest.raises(UsageError, match="no argument 'sampels'"):
        autopsy(nn.Linear(1, 1), [], sampels=3)
    with pytest.raises(UsageError, match="not both"):
        autopsy(AutopsyInputs(nn.Linear(1, 1), []), [])
