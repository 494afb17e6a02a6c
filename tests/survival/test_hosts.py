"""Inside other people's loops: LoRA by peft, Accelerate, Lightning, the Hugging Face Trainer.

These packages are heavy to import, so that the tests of this file are slow ones.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.survival.conduct import BOTH, CONFIGS, EVERYTHING, survive
from tests.zoo import ITERATIONS, numbers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.zoo import Stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what these packages say is theirs
]
QUIET = (".*",)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def lora(stage: Stage, *, late: bool, names: list[str]) -> None:
    """The base is frozen; adapters are put in before the watcher is entered, or after."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["body.0", "body.3"], modules_to_save=["head"], r=2, lora_dropout=0.1)
    base = Net()
    watched = base if late else get_peft_model(base, config)  # type: ignore[arg-type]
    with stage.watch(watched) as watch:
        model = get_peft_model(base, config) if late else watched  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for i, (x, y) in enumerate(numbers(6, 5)):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            if i % 5 == 4:
                with model.disable_adapter(), torch.no_grad():  # type: ignore[operator]
                    stage.write("without the adapter", model(x))
            stage.step(loss)
        names[:] = [n for n, p in model.named_parameters() if p.requires_grad]
    stage.end(model, optimizer)
    merged = model.merge_and_unload()  # type: ignore[operator]
    stage.write("merged", merged(torch.ones(2, 5)))


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_lora(late: bool, config: str, tmp_path: Path) -> None:
    names: list[str] = []
    survival = survive(
        functools.partial(lora, late=late, names=names), tmp_path / "run.jsonl", CONFIGS[config], warns=QUIET
    )
    layout = survival.layouts[-1]
    trained = {p.name for p in layout.parameters if p.optimizer is not None}
    assert {p.name for p in layout.parameters if p.trainable} == trained
    assert len(trained) == len(names) == 6
    assert any("lora_A" in name for name in trained)
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    for step in survival.steps:
        moved = (
            {p.name for p, n in zip(layout.parameters, step.update_ratios, strict=True) if n == n and n > 0}
            if step.update_ratios is not None
            else trained
        )
        assert moved <= trained


def batches(count: int = ITERATIONS) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(6 * count, 5), torch.randn(6 * count, 3)), batch_size=6)


def accelerated(stage: Stage, *, precision: str, accumulate: int) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=accumulate)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model, optimizer, loader = accelerator.prepare(model, optimizer, batches())
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(loader):
            with accelerator.accumulate(model):
                loss = F.mse_loss(model(x).float(), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                    stage.gradients(model)
                optimizer.step()
                optimizer.zero_grad()
            watch.log(loss=loss)
            if i % accumulate == accumulate - 1:
                stage.step(loss)
    stage.end(accelerator.unwrap_model(model), optimizer.optimizer)


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize(("precision", "accumulate"), [("no", 1), ("bf16", 1), ("no", 3)])
def test_accelerate(precision: str, accumulate: int, config: str, tmp_path: Path) -> None:
    survival = survive(
        functools.partial(accelerated, precision=precision, accumulate=accumulate),
        tmp_path / "run.jsonl",
        CONFIGS[config],
        warns=QUIET,
    )
    assert len(survival.steps) == ITERATIONS // accumulate
    assert all(step.grad_norm > 0 and step.grad_norm_preclip for step in survival.steps)


def lit(stage: Stage, *, manual: bool, trainer: dict[str, Any]) -> None:
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.automatic_optimization = not manual
            self.seen = 0

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            loss = F.mse_loss(self.net(x).float(), y)
            self.log("train_loss", loss)
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            stage.write("training loss", loss)
            return None if manual else loss

        def validation_step(self, batch: Any, index: int) -> None:
            x, y = batch
            self.log("val_loss", F.mse_loss(self.net(x * 1000).float(), y))

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            stage.gradients(self.net)

    module, train, val = Lit(), batches(), batches(2)
    fit = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, devices=1,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=".", **trainer,
    )  # fmt: skip
    with stage.watch(module):
        fit.fit(module, train, val)
    for _ in range(fit.global_step):
        stage.step(0.0)
    stage.end(module.net, *fit.optimizers)


LIGHTNING: dict[str, dict[str, Any]] = {
    "automatic": {},
    "manual": {"manual": True},
    "accumulation": {"trainer": {"accumulate_grad_batches": 3}},
    "clipping": {"trainer": {"gradient_clip_val": 0.1}},
    "bf16": {"trainer": {"precision": "bf16-mixed"}},
    "simple-profiler": {"trainer": {"profiler": "simple"}},
    "pytorch-profiler": {"trainer": {"profiler": "pytorch"}},
}


@pytest.fixture
def _lightning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Imported before anything is compared, since importing it draws random numbers; and silent."""
    import lightning

    assert lightning.__version__
    monkeypatch.chdir(tmp_path)
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.CRITICAL)


@pytest.mark.usefixtures("_lightning")
@pytest.mark.parametrize("way", LIGHTNING)
def test_lightning(way: str, tmp_path: Path) -> None:
    """Its automatic optimisation steps with a closure; validation between the steps does not count."""
    given = {"manual": False, "trainer": {}} | LIGHTNING[way]
    survival = survive(functools.partial(lit, **given), tmp_path / "run.jsonl", EVERYTHING, warns=QUIET)
    assert len(survival.steps) == 2 * ITERATIONS // (3 if way == "accumulation" else 1)
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    absmax = [step.activations["absmax"][0] for step in survival.steps if step.activations]
    assert absmax
    assert max(absmax) < 100


def trained_by_trainer(stage: Stage, *, accumulate: int, folder: str) -> None:
    import transformers

    class Data(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.words = torch.randint(11, (6 * ITERATIONS, 7))

        def __len__(self) -> int:
            return len(self.words)

        def __getitem__(self, index: int) -> Any:
            return {"input_ids": self.words[index], "labels": self.words[index]}

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    arguments = transformers.TrainingArguments(
        output_dir=folder, per_device_train_batch_size=6, num_train_epochs=1, report_to=[], use_cpu=True,
        gradient_accumulation_steps=accumulate, save_strategy="no", disable_tqdm=True, logging_steps=4,
        max_grad_norm=0.5, log_level="error",
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Data())
    with stage.watch(model):
        trainer.train()
    for _ in range(trainer.state.global_step):
        stage.step(0.0)
    stage.write("history", [(h.get("loss"), h.get("grad_norm")) for h in trainer.state.log_history])
    stage.end(model, trainer.optimizer.optimizer)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trainer_of_transformers(accumulate: int, tmp_path: Path) -> None:
    """The loss is in the model's output; clipping is the trainer's."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    loop = functools.partial(trained_by_trainer, accumulate=accumulate, folder=str(tmp_path / "out"))
    survival = survive(loop, tmp_path / "run.jsonl", EVERYTHING, warns=QUIET)
    assert len(survival.steps) == ITERATIONS // accumulate
    assert all(step.grad_norm > 0 and step.grad_norm_preclip for step in survival.steps)
    assert {step.loss_source for step in survival.steps} == {"output"}
