"""Architectures for sequences: attention of every kind, recurrences, scans, memories, alignments, experts.

Longer than other files: a flat list of short models.
"""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo import FEW, Stage, architecture, numbers, tokens, train
from tests.zoo_models import words_loss

WORDS = 11


def write(stage: Stage, model: nn.Module, **options: Any) -> None:
    """Train on sentences, a word per place."""
    train(stage, model, tokens(count=FEW), **{"loss_of": words_loss, **options})


class Translator(nn.Module):
    """Encoder and decoder with masks, padding and positions that are a buffer."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8, padding_idx=0)
        self.core = nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, activation="gelu", batch_first=True)
        self.head = nn.Linear(8, WORDS)
        self.register_buffer("places", torch.randn(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        source, target = self.embed(x) + self.places, self.embed(x.flip(1)) + self.places
        return self.head(self.core(source, target, tgt_mask=mask, tgt_is_causal=True))


@architecture()
def encoder_and_decoder(stage: Stage) -> None:
    write(stage, Translator())


class Gpt(nn.Module):
    """Rotary positions, grouped queries, gated units, tied words: a decoder of today."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.RMSNorm(8), nn.RMSNorm(8)
            self.q, self.kv, self.out = (nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8, bias=False))
            self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: Tensor, *, turn: Tensor) -> Tensor:
            h = self.before(x)
            q = self.q(h).unflatten(-1, (2, 4)).transpose(1, 2)
            k, v = self.kv(h).unflatten(-1, (2, 1, 4)).transpose(1, 3).unbind(2)
            q, k = self.rotate(q, turn), self.rotate(k, turn)
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + self.out(h.transpose(1, 2).flatten(2))
            h = self.after(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

        @staticmethod
        def rotate(x: Tensor, turn: Tensor) -> Tensor:
            return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)

    def __init__(self) -> None:
        super().__init__()
        self.words, self.blocks = nn.Embedding(WORDS, 8), nn.ModuleList([self.Block(), self.Block()])
        self.head = nn.Linear(8, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[1]), torch.tensor([1.0, 0.1]))
        h = self.words(x)
        for block in self.blocks:
            h = block(h, turn=torch.polar(torch.ones_like(angles), angles))
        return self.head(h)


@architecture()
def decoder_of_today(stage: Stage) -> None:
    write(stage, Gpt())


class Relative(nn.Module):
    """Attention by hand: a learned bias per distance, a boolean mask, softmax in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.bias = nn.Embedding(WORDS, 8), nn.Embedding(11, 2)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        h, places = self.embed(x), torch.arange(6)
        q, k, v = (line(h).view(-1, 6, 2, 4) for line in (self.q, self.k, self.v))
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2
        scores += self.bias(places[:, None] - places + 5).permute(2, 0, 1)
        scores.masked_fill_(torch.ones(6, 6, dtype=torch.bool).triu_(1), -math.inf)
        return self.head(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2))


@architecture()
def relative_positions(stage: Stage) -> None:
    write(stage, Relative())


class Perceiver(nn.Module):
    """A few learned queries look at a long input: q, k and v of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, 8))
        self.look = nn.MultiheadAttention(8, 2, kdim=5, vdim=5, add_bias_kv=True, batch_first=True)
        self.think = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, activation=F.silu)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(x.shape[0], -1, -1)
        padding = torch.zeros(x.shape[0], x.shape[1], dtype=torch.bool).index_fill_(1, torch.tensor([6]), 1)
        h, weights = self.look(queries, x, x, key_padding_mask=padding, average_attn_weights=False)
        return self.head(self.think(h).flatten(1)) * weights.sum(-1).mean()


@architecture()
def cross_attention(stage: Stage) -> None:
    train(stage, Perceiver(), numbers(4, 7, 5, count=FEW))


class Linear(nn.Module):
    """Attention without softmax: cumulative sums over the sequence, a positive feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, 24), nn.Linear(8, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(self.embed(x)).tensor_split(3, -1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        state = torch.cumsum(k[..., None] * v[..., None, :], 1)
        out = torch.einsum("bli,blij->blj", q, state)
        return self.head(out / (q * k.cumsum(1)).sum(-1, keepdim=True))


@architecture()
def linear_attention(stage: Stage) -> None:
    write(stage, Linear())


class StateSpace(nn.Module):
    """A diagonal recurrence with complex poles, stepped in a loop over a causal convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.smooth = nn.Conv1d(6, 6, 3, groups=6, padding=2)
        self.poles = nn.Parameter(torch.complex(torch.rand(6) - 1.5, torch.randn(6)))
        self.step, self.head = nn.Linear(6, 6), nn.Linear(6, WORDS)
        self.skip = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        u = F.silu(self.smooth(self.embed(x).transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        size, state, out = F.softplus(self.step(u)), torch.zeros(()), []
        for t in range(x.shape[1]):
            state = torch.exp(size[:, t] * self.poles) * state + size[:, t] * u[:, t]
            out.append(state.real)
        return self.head(torch.stack(out, 1) + self.skip * u)


@architecture()
def state_space_with_complex_poles(stage: Stage) -> None:
    write(stage, StateSpace())


class WaveNet(nn.Module):
    """Dilated causal convolutions, gated, with skips that are added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.filters = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.Conv1d(6, WORDS, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).transpose(1, 2)
        total = torch.zeros_like(h)
        for i, (layer, skip) in enumerate(zip(self.filters, self.skips, strict=True)):
            gate, value = layer(F.pad(h, (2**i, 0))).chunk(2, 1)
            h = h + gate.sigmoid() * value.tanh()
            total += skip(h)
        return self.head(total).transpose(1, 2)


@architecture()
def dilated_convolutions(stage: Stage) -> None:
    write(stage, WaveNet())


class ConvLstm(nn.Module):
    """A recurrent cell of convolutions that keeps its state on itself between batches, cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(32, 3)
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.state or (torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4, 4))
        for frame in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        self.state = h.detach(), c.detach()
        return self.head(h.flatten(1))


@architecture()
def convolutional_lstm_with_kept_state(stage: Stage) -> None:
    train(stage, ConvLstm(), numbers(3, 4, 1, 4, 4, count=FEW))


class Cells(nn.Module):
    """Recurrent cells of every class, one step each, and a projected LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cells = nn.Embedding(WORDS, 6), nn.ModuleList([nn.RNNCell(6, 6), nn.GRUCell(6, 6)])
        self.core = nn.LSTM(6, 8, proj_size=4, batch_first=True)
        self.head = nn.Linear(4, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        h, out = torch.zeros(x.shape[0], 6), []
        for word in self.embed(x).unbind(1):
            for cell in self.cells:
                h = cell(word, h)
            out.append(h)
        return self.head(self.core(torch.stack(out, 1))[0])


@architecture("LSTM with projections is not supported with oneDNN")
def recurrent_cells(stage: Stage) -> None:
    write(stage, Cells())


class Attentive(nn.Module):
    """Encoder and decoder with additive attention and teacher forcing decided by Python's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6, max_norm=1.0, scale_grad_by_freq=True)
        self.encoder = nn.GRU(6, 4, bidirectional=True, batch_first=True)
        self.decoder = nn.GRUCell(14, 8)
        self.keys, self.query, self.score = nn.Linear(8, 5), nn.Linear(8, 5), nn.Linear(5, 1, bias=False)
        self.head = nn.Linear(8, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        seen, _ = self.encoder(self.embed(x))
        h, word, out = seen[:, -1], x[:, 0], []
        for t in range(x.shape[1]):
            weights = self.score(torch.tanh(self.keys(seen) + self.query(h)[:, None])).softmax(1)
            h = self.decoder(torch.cat([self.embed(word), (weights * seen).sum(1)], -1), h)
            out.append(self.head(h))
            word = x[:, t] if random.random() < 0.5 else out[-1].argmax(-1)
        return torch.stack(out, 1)


@architecture()
def additive_attention_with_teacher_forcing(stage: Stage) -> None:
    write(stage, Attentive())


class Pointer(nn.Module):
    """Points at places of its input, one after the other, none twice."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cell = nn.LSTM(2, 6, batch_first=True), nn.LSTMCell(2, 6)
        self.score = nn.Bilinear(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen, (h, c) = self.encoder(x)
        h, c, total = h[0], c[0], torch.zeros(())
        taken, place = torch.zeros(x.shape[:2], dtype=torch.bool), x[:, 0]
        for _ in range(3):
            h, c = self.cell(place, (h, c))
            scores = self.score(seen, h[:, None].expand_as(seen).contiguous())[..., 0]
            best = scores.masked_fill(taken, -1e9).log_softmax(-1).max(-1)
            total = total + best.values.mean()
            taken = taken.scatter(1, best.indices[:, None], value=True)
            place = x[torch.arange(x.shape[0]), best.indices]
        return total


@architecture()
def pointer_network(stage: Stage) -> None:
    train(stage, Pointer(), numbers(3, 5, 2, count=FEW), loss_of=lambda m, x, y: -m(x))


class Memory(nn.Module):
    """A memory that is read and written by content, kept in a tensor made anew in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.control = nn.Embedding(WORDS, 6), nn.GRUCell(10, 8)
        self.heads = nn.ModuleDict({name: nn.Linear(8, 4) for name in ("key", "erase", "add")})
        self.start, self.out = nn.Parameter(torch.randn(5, 4)), nn.Linear(12, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        memory, h, out = self.start.repeat(x.shape[0], 1, 1), torch.zeros(x.shape[0], 8), []
        read = torch.zeros(x.shape[0], 4)
        for word in self.embed(x).unbind(1):
            h = self.control(torch.cat([word, read], -1), h)
            where = F.cosine_similarity(memory, self.heads["key"](h)[:, None], dim=-1).softmax(-1)[..., None]
            memory = memory * (1 - where * self.heads["erase"](h).sigmoid()[:, None])
            memory = memory + where * self.heads["add"](h)[:, None]
            read = (where * memory).sum(1)
            out.append(self.out(torch.cat([h, read], -1)))
        return torch.stack(out, 1)


@architecture()
def memory_that_is_written(stage: Stage) -> None:
    write(stage, Memory())


class Speech(nn.Module):
    """Frames to letters: the loss aligns them, in a library's own backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.GRU(5, 6, bidirectional=True)
        self.head, self.criterion = nn.Linear(12, 4), nn.CTCLoss(zero_infinity=True)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.core(x.transpose(0, 1))[0]).log_softmax(-1)
        letters = torch.tensor([[1, 2, 3], [3, 3, 1]])
        return self.criterion(logits, letters, torch.tensor([8, 8]), torch.tensor([3, 2]))


@architecture()
def connectionist_alignment(stage: Stage) -> None:
    train(stage, Speech(), numbers(2, 8, 5, count=FEW), loss_of=lambda m, x, y: m(x))


class Crf(nn.Module):
    """A conditional random field: the loss is a recursion of logsumexp over a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.scores = nn.Embedding(WORDS, 6), nn.Linear(6, WORDS)
        self.moves = nn.Parameter(torch.randn(WORDS, WORDS) * 0.1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scores = self.scores(self.embed(x))
        total, path = scores[:, 0], scores[:, 0].gather(1, y[:, :1])[:, 0]
        for t in range(1, x.shape[1]):
            total = torch.logsumexp(total[:, :, None] + self.moves, 1) + scores[:, t]
            path = path + self.moves[y[:, t - 1], y[:, t]] + scores[:, t].gather(1, y[:, t, None])[:, 0]
        return (total.logsumexp(1) - path).mean()


@architecture()
def random_field(stage: Stage) -> None:
    write(stage, Crf(), loss_of=lambda m, x, y: m(x, y))


class Adaptive(nn.Module):
    """A softmax in parts, which returns a named tuple, over bags of words."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList([nn.EmbeddingBag(WORDS, 4, mode=mode) for mode in ("sum", "mean", "max")])
        self.head = nn.AdaptiveLogSoftmaxWithLoss(12, WORDS, cutoffs=[3, 6], div_value=2.0)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.head(torch.cat([bag(x) for bag in self.bags], -1), y[:, 0])


@architecture()
def bags_and_adaptive_softmax(stage: Stage) -> None:
    write(stage, Adaptive(), loss_of=lambda m, x, y: m(x, y).loss)


class Ranking(nn.Module):
    """Sparse tables by offsets, pairwise products, wide and deep: a recommender."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(WORDS, 4, sparse=True) for _ in range(2))
        self.dense, self.top = nn.Linear(5, 4), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        offsets = torch.arange(0, 12, 2)
        numbers = (x.abs() * 3).long().clamp_(0, WORDS - 1).flatten()[:12]
        rows = [self.dense(x), *(table(numbers, offsets) for table in self.tables)]
        stacked = torch.stack(rows, 1)
        products = torch.bmm(stacked, stacked.mT)[:, *torch.tril_indices(3, 3, -1)]
        return self.top(torch.cat([rows[0], products], 1))


@architecture()
def recommender_with_sparse_tables(stage: Stage) -> None:
    model = Ranking()
    train(stage, model, numbers(6, 5, count=FEW), torch.optim.SGD(model.parameters(), lr=0.05))


class TopTwo(nn.Module):
    """Experts as one stacked parameter; tokens sorted by expert, with counts that may be zero."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(8, 4, bias=False)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            scores = self.line(x)
            if self.training:
                scores = scores + torch.randn_like(scores) * 0.1
            best = scores.topk(2, -1)
            load = torch.bincount(best.indices.flatten(), minlength=4)
            return {"weights": best.values.softmax(-1), "experts": best.indices, "load": load}

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gate = nn.Embedding(WORDS, 8), self.Gate()
        self.up, self.down = nn.Parameter(torch.randn(4, 8, 6) / 3), nn.Parameter(torch.randn(4, 6, 8) / 3)
        self.head = nn.Linear(8, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).flatten(0, 1)
        routed = self.gate(h)
        order = routed["experts"].flatten().argsort(stable=True)
        parts = h[order // 2].split(routed["load"].tolist())
        out = torch.cat([F.gelu(p @ self.up[i]) @ self.down[i] for i, p in enumerate(parts)])
        out = out * routed["weights"].flatten()[order, None]
        return self.head(h.index_add(0, order // 2, out)).view(*x.shape, -1)


@architecture()
def experts_in_one_parameter(stage: Stage) -> None:
    write(stage, TopTwo())


class Leaving(nn.Module):
    """Stops early: how many layers run depends on the data, and some are dropped by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(4))
        self.exits = nn.ModuleList(nn.Linear(5, 3) for _ in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        outs = []
        for layer, leave in zip(self.layers, self.exits, strict=True):
            if outs and torch.rand(()) < 0.3:
                continue
            x = layer(x).tanh()
            outs.append(leave(x))
            if outs[-1].detach().abs().max() > 1.1:
                break
        return outs


@architecture()
def early_exits_and_layer_drop(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([F.mse_loss(out, y) for out in model(x)]).mean()

    train(stage, Leaving(), numbers(6, 5, count=FEW), loss_of=loss_of)


class Ragged(nn.Module):
    """Sequences of unequal length: packed in any order, and as one nested tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.core, self.head = nn.Linear(5, 6), nn.LSTM(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = [row[: 3 + i % 4] for i, row in enumerate(x)]
        nested = self.line(torch.nested.nested_tensor(rows, layout=torch.jagged))
        pack = nn.utils.rnn.pack_sequence(list(nested.unbind()), enforce_sorted=False)
        return self.head(self.core(pack)[1][0][0])


@architecture("The PyTorch API of nested tensors is in prototype stage")
def nested_and_packed(stage: Stage) -> None:
    train(stage, Ragged(), numbers(5, 6, 5, count=FEW))
