"""Cases that differ in the model: what its modules are made of, share, return and hide.

Longer than other files: a flat list of short cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.zoo import Stage, case, numbers, tokens, train

if TYPE_CHECKING:
    from collections.abc import Iterator


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


@case()
def perceptron(stage: Stage) -> None:
    train(stage, mlp(), numbers(6, 5))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.act(self.norm(self.one(x))))
        y += x
        return self.act(y)


def small_resnet() -> nn.Sequential:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 3)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), Residual(4), Residual(4), *head)


@case()
def inplace_relu(stage: Stage) -> None:
    train(stage, small_resnet(), numbers(4, 1, 8, 8))


@case()
def channels_last(stage: Stage) -> None:
    model = small_resnet().to(memory_format=torch.channels_last)
    batches = [(x.to(memory_format=torch.channels_last), y) for x, y in numbers(4, 1, 8, 8)]
    train(stage, model, batches)


@case()
def batch_norm_and_dropout(stage: Stage) -> None:
    layers = [nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.AlphaDropout(0.1)]
    train(stage, nn.Sequential(*layers, nn.Linear(16, 3)), numbers(8, 5))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(self.embed(x))))


def words_loss(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


@case()
def tied_weights(stage: Stage) -> None:
    train(stage, Tied(), tokens(), loss_of=words_loss)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(5, 5)
        self.again = self.cell
        self.act = nn.ReLU()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.act(self.cell(x)) + self.again(x)
        return self.head(x)


@case()
def shared_modules(stage: Stage) -> None:
    train(stage, Shared(), numbers(6, 5))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.core = kind(6, 5, 2, batch_first=True, dropout=0.2, **options)
        self.head = nn.Linear(5 * (1 + self.core.bidirectional), 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.embed(x))[0])


@case()
def rnn(stage: Stage) -> None:
    train(stage, Recurrent(nn.RNN), tokens(), loss_of=words_loss)


@case()
def lstm(stage: Stage) -> None:
    train(stage, Recurrent(nn.LSTM, bidirectional=True), tokens(), loss_of=words_loss)


@case()
def gru(stage: Stage) -> None:
    train(stage, Recurrent(nn.GRU), tokens(), loss_of=words_loss)


class Packed(Recurrent):
    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.arange(x.shape[0], 0, -1)
        pack = nn.utils.rnn.pack_padded_sequence(self.embed(x), lengths, batch_first=True)
        out, _ = nn.utils.rnn.pad_packed_sequence(
            self.core(pack)[0], batch_first=True, total_length=x.shape[1]
        )
        return self.head(out)


@case()
def packed_sequence(stage: Stage) -> None:
    train(stage, Packed(nn.LSTM), tokens(), loss_of=words_loss)


class CellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(4):
            state = self.cell(x, state)
        return self.head(state[0])


@case()
def lstm_cell(stage: Stage) -> None:
    train(stage, CellLoop(), numbers(6, 5))


class Attending(nn.Module):
    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.weights = weights
        self.embed = nn.Embedding(11, 8)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(h + self.attend(h, h, h, need_weights=self.weights)[0])


@case()
def attention_with_weights(stage: Stage) -> None:
    train(stage, Attending(weights=True), tokens(), loss_of=words_loss)


@case()
def attention_fused(stage: Stage) -> None:
    train(stage, Attending(weights=False), tokens(), loss_of=words_loss)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)))


@case()
def transformer_encoder(stage: Stage) -> None:
    train(stage, Encoder(), tokens(), loss_of=words_loss)


@case()
def transformer_encoder_fast_path(stage: Stage) -> None:
    """The fused inference kernel runs in eval() without gradients; a hook on a layer would switch it off."""
    model = Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with stage.watch(model) as watch:
        for x, y in tokens():
            loss = words_loss(model.train(), x, y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            optimizer.zero_grad()
            watch.log(loss=loss)
            with torch.no_grad():
                stage.write("fast path", model.eval()(x))
            stage.step(loss)
    stage.end(model, optimizer)


class DictOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        logits = self.body(x)
        return {"loss": F.mse_loss(logits, y), "logits": logits, "hidden": None, "name": "text", "count": 3}


@case()
def dict_output(stage: Stage) -> None:
    train(stage, DictOut(), numbers(6, 5), loss_of=lambda model, x, y: model(x, y)["loss"])


@dataclass
class Answer:
    mean: Tensor
    parts: tuple[Tensor, ...]
    note: str = "fine"


class DataclassOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Answer:
        mean = self.body(x)
        return Answer(mean, (mean.exp(), mean.detach()))


@case()
def dataclass_output(stage: Stage) -> None:
    train(stage, DataclassOut(), numbers(6, 5), loss_of=lambda m, x, y: F.mse_loss(m(x).mean, y))


class Streaming(nn.Module):
    """Inner modules return a generator and a tuple; whoever iterates the generator first would empty it."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lines = nn.ModuleList(nn.Linear(5, 3) for _ in range(2))

        def forward(self, x: Tensor) -> Iterator[Tensor]:
            return (line(x) for line in self.lines)

    class Both(nn.Module):
        def forward(self, parts: Iterator[Tensor]) -> tuple[Tensor, None, list[Tensor]]:
            one, two = parts
            return one + two, None, [one, two]

    def __init__(self) -> None:
        super().__init__()
        self.parts = self.Parts()
        self.both = self.Both()

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.parts(x))[0]


@case()
def tuple_and_generator_outputs(stage: Stage) -> None:
    train(stage, Streaming(), numbers(6, 5))


@case()
def sparse_embedding(stage: Stage) -> None:
    model = nn.Sequential(nn.Embedding(11, 8, sparse=True), nn.Linear(8, 11))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(stage, model, tokens(), optimizer, words_loss)


class Router(nn.Module):
    """A mixture of experts: integer, boolean and empty outputs, and experts that get no sample at all."""

    class Choose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            scores = self.line(x).softmax(-1)
            scores = torch.cat([scores[:, :3], scores[:, 3:] * 0], dim=1)
            best, index = scores.max(-1)
            return best, index, index == 0

    def __init__(self) -> None:
        super().__init__()
        self.choose = self.Choose()
        self.experts = nn.ModuleList(nn.Linear(5, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        best, index, _ = self.choose(x)
        out = x.new_zeros(x.shape[0], 3)
        for i, expert in enumerate(self.experts):
            rows = (index == i).nonzero()[:, 0]
            out = out.index_add(0, rows, expert(x[rows]) * best[rows, None])
        return out


@case()
def mixture_of_experts(stage: Stage) -> None:
    train(stage, Router(), numbers(6, 5))


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.2))
        self.head = nn.Linear(8, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, self.first(x), use_reentrant=self.reentrant))


@case()
def checkpoint_reentrant(stage: Stage) -> None:
    train(stage, Checkpointed(reentrant=True), numbers(6, 5))


@case()
def checkpoint_without_reentrance(stage: Stage) -> None:
    train(stage, Checkpointed(reentrant=False), numbers(6, 5))


class Meddling(nn.Module):
    """Writes into the outputs of its own layers: in place, through views, and after detaching."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(5, 6)
        self.two = nn.Linear(6, 6)
        self.flat = nn.Flatten()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        h += 1
        h[:, 0].zero_()
        h.relu_()
        k = self.flat(self.two(h).view(-1, 2, 3))
        k[:, :2].mul_(0.5)
        k.detach().clamp_(-2, 2)
        return self.head(k)


@case()
def outputs_changed_in_place(stage: Stage) -> None:
    train(stage, Meddling(), numbers(6, 5))


class OwnParameter(nn.Module):
    """A module that returns its own parameter, and one that returns its input as it is."""

    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.randn(5))

        def forward(self) -> Tensor:
            return self.value

    def __init__(self) -> None:
        super().__init__()
        self.query = self.Query()
        self.same = nn.Identity()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.same(x) * self.query())


@case()
def module_returning_its_parameter(stage: Stage) -> None:
    train(stage, OwnParameter(), numbers(6, 5))


@case()
def weight_norm_and_spectral_norm(stage: Stage) -> None:
    parametrized = nn.utils.parametrizations
    one, two = nn.Linear(5, 8), nn.Linear(8, 8)
    model = nn.Sequential(
        parametrized.weight_norm(one), nn.ReLU(), parametrized.spectral_norm(two), nn.Linear(8, 3)
    )
    train(stage, model, numbers(6, 5))


@case("Lazy modules are a new feature")
def lazy_modules(stage: Stage) -> None:
    """Watched before anything has a shape; the optimizer is made after the first pass, as torch asks."""
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))
    batches = numbers(6, 5)
    with stage.watch(model) as watch:
        model(batches[0][0])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def double_precision(stage: Stage) -> None:
    batches = [(x.double(), y.double()) for x, y in numbers(6, 5)]
    train(stage, mlp().double(), batches)


class ComplexLine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5, dtype=torch.complex64))
        self.line = nn.Linear(5, 5, dtype=torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        return (self.line(x.to(torch.complex64)) @ self.weight.T.conj()).abs()


@case()
def complex_parameters(stage: Stage) -> None:
    model = ComplexLine()
    train(stage, model, numbers(6, 5), torch.optim.SGD(model.parameters(), lr=0.01))


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return Cube.apply(self.line(x))


@case()
def custom_function(stage: Stage) -> None:
    model = Custom()
    train(stage, model, numbers(6, 5), torch.optim.SGD(model.parameters(), lr=0.001))


class WithLoss(nn.Module):
    """The loss module is part of the model, as in many research repositories."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.body(x), y.argmax(1))


@case()
def loss_inside_the_model(stage: Stage) -> None:
    train(stage, WithLoss(), numbers(6, 5), loss_of=lambda model, x, y: model(x, y))


@case()
def loss_module_outside(stage: Stage) -> None:
    criterion = nn.SmoothL1Loss()
    train(stage, mlp(), numbers(6, 5), loss_of=lambda model, x, y: criterion(model(x), y))


@case()
def siamese(stage: Stage) -> None:
    train(stage, mlp(), numbers(6, 5), loss_of=lambda m, x, y: F.mse_loss(m(x) - m(x.flip(0)), y))


@case()
def autoencoder(stage: Stage) -> None:
    down = [nn.Conv2d(1, 4, 3, stride=2), nn.GELU(), nn.GroupNorm(2, 4)]
    model = nn.Sequential(*down, nn.ConvTranspose2d(4, 1, 3, stride=2), nn.Sigmoid())
    batches = [(x, x.sigmoid()) for x, _ in numbers(4, 1, 9, 9)]
    train(stage, model, batches)


@case()
def loss_becomes_nan(stage: Stage) -> None:
    batches = numbers(6, 5)
    batches[7] = (batches[7][0] * float("inf"), batches[7][1])
    train(stage, mlp(), batches)


@case()
def half_precision_weights(stage: Stage) -> None:
    """bfloat16 and float32 side by side, and gradients that overflow a float16 square."""
    model = nn.Sequential(nn.Linear(5, 8, dtype=torch.bfloat16), nn.Linear(8, 3, dtype=torch.bfloat16))

    def loss_of(m: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(m(x.bfloat16()).float(), y) * 1e5

    train(stage, model, numbers(6, 5), torch.optim.SGD(model.parameters(), lr=1e-7), loss_of)
