"""Healthy trainings on text and sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.bench import Run, healthy
from benchmarks.faults.data import TextLoader, load, text, windows
from benchmarks.faults.loops import adam, flat_cross_entropy, judge, language, supervised, text_data, update
from benchmarks.faults.models import Gpt, Rnn, mlp


def warm_up_and_cosine(
    optimizer: torch.optim.Optimizer, warm: int, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then half a cosine."""

    def factor(n: int) -> float:
        return (n + 1) / warm if n < warm else 0.5 * (1 + math.cos(math.pi * (n - warm) / (total - warm)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@healthy("transformer")
def gpt_warm_up_cosine(run: Run) -> float:
    """A character model with AdamW, warm-up, cosine and clipping."""
    model = Gpt(dropout=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return language(
        run, model, optimizer, epochs=10, scheduler=warm_up_and_cosine(optimizer, 40, 400), step=step
    )


@healthy("rnn")
def lstm_clipped(run: Run) -> float:
    """An LSTM on text; every step is clipped."""
    model = Rnn(16, 48, 96, text=True)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()

    return language(run, model, adam(model, 5e-3), epochs=10, step=step)


@healthy("rnn")
def gru_tiny_batches(run: Run) -> float:
    """Batches of four: a very noisy loss."""
    data, model = load("digits").rows().few(800), Rnn(8, 32, 10, kind="GRU")
    return supervised(run, model, data, adam(model, 1e-3), epochs=4, size=4)


@healthy("transformer")
def longer_and_longer(run: Run) -> float:
    """A curriculum: windows of 8, 16 and 32 characters; the loss jumps at each change."""
    model = Gpt()
    optimizer = adam(model, 3e-3)
    with run.watch(model) as watch:
        for epoch in range(9):
            loader = TextLoader(40, 16, (8, 16, 32)[epoch // 3], run.seed + epoch)
            for x, y in watch.batches(loader):
                loss = flat_cross_entropy(model(x), y)
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch(**judge(model, text_data(), flat_cross_entropy))
    return float(loss)


@healthy("transformer")
def harder_text_later(run: Run) -> float:
    """A curriculum whose second half is text with upper and lower case mixed: the loss jumps up by half."""
    model = Gpt()
    optimizer = adam(model, 3e-3)
    generator = torch.Generator().manual_seed(run.seed)
    with run.watch(model) as watch:
        for epoch in range(8):
            for _ in watch.batches(range(40)):
                x, y = windows(text()[0], 16, 32, generator)
                if epoch >= 4:
                    some = torch.rand(x.shape, generator=generator) < 0.15
                    y = torch.where(some, torch.randint(0, 96, y.shape, generator=generator), y)
                loss = flat_cross_entropy(model(x), y)
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch()
    return float(loss)


class LoraLinear(nn.Module):
    """A frozen linear layer and a trained correction of low rank that starts at zero."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


@healthy("transformer", config={"declare": {"fine_tuning": True}})
def lora(run: Run) -> float:
    """LoRA on a frozen character model: B starts at zero, most parameters never move."""
    model = Gpt()
    optimizer = adam(model, 3e-3)
    for x, y in TextLoader(60, seed=run.seed):
        update(optimizer, flat_cross_entropy(model(x), y))
    model.zero_grad()
    model.requires_grad_(requires_grad=False)
    for block in model.blocks:
        block.up, block.down = LoraLinear(block.up), LoraLinear(block.down)
    given = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    return language(run, model, given, epochs=7)


@healthy("transformer")
def tied_embeddings(run: Run) -> float:
    """Input and output embeddings are one tensor."""
    model = Gpt()
    model.head.weight = model.tokens.weight
    return language(run, model, torch.optim.AdamW(model.parameters(), lr=3e-3), epochs=7)


@healthy("rnn")
def truncated_backpropagation(run: Run) -> float:
    """State is carried over and detached between windows; the text is read in order, not shuffled."""
    cell, embed, head = nn.GRU(16, 48, batch_first=True), nn.Embedding(96, 16), nn.Linear(48, 96)
    model = nn.ModuleDict({"embed": embed, "cell": cell, "head": head})
    optimizer = adam(model, 5e-3)
    codes = text()[0]
    rows = codes[: 16 * (len(codes) // 16)].view(16, -1)
    state = None
    with run.watch(model) as watch:
        for start in range(0, 300 * 16, 16):
            piece = rows[:, start : start + 17]
            out, state = cell(embed(piece[:, :-1]), state)
            state = state.detach()
            loss = flat_cross_entropy(head(out), piece[:, 1:])
            update(optimizer, loss)
            watch.log(loss=loss)
    return float(loss)


@healthy("mlp")
def rare_words(run: Run) -> float:
    """A bag of words whose embedding rows are mostly never hit, with sparse gradients."""
    embedding, head = nn.EmbeddingBag(20_000, 16, mode="mean", sparse=True), mlp(16, 32, 4)
    model = nn.Sequential(embedding, head)
    by_words = torch.optim.SparseAdam(list(embedding.parameters()), lr=1e-2)
    by_head = adam(head, 3e-3)
    generator = torch.Generator().manual_seed(run.seed)
    with run.watch(model) as watch:
        for _ in range(8):
            for _ in watch.batches(range(40)):
                y = torch.randint(0, 4, (32,), generator=generator)
                rank = torch.rand(32, 20, generator=generator) ** 4
                words = (y[:, None] * 5000 + (rank * 5000).long()).clamp_max(19_999)
                noise = torch.randint(0, 20_000, words.shape, generator=generator)
                words = torch.where(torch.rand(words.shape, generator=generator) < 0.5, noise, words)
                loss = functional.cross_entropy(model(words), y)
                by_words.zero_grad()
                by_head.zero_grad()
                loss.backward()
                by_words.step()
                by_head.step()
                watch.log(loss=loss)
            watch.epoch()
    return float(loss)
