"""Architectures for grids: signals, images, volumes, fields. One block of each kind is enough.

Longer than other files: a flat list of short models.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo import FEW, Stage, architecture, numbers, train
from tests.zoo_models import Residual


def fit(stage: Stage, model: nn.Module, *shape: int, out: int = 3, **options: Any) -> None:
    """Train on batches of noise of that shape."""
    train(stage, model, numbers(*shape, out=out, count=FEW), **options)


def rebuild(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """The loss of autoencoders."""
    return F.mse_loss(model(x), x)


def head(width: int) -> list[nn.Module]:
    """From a map of any size to three numbers."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)]


@architecture()
def convolution_of_signals(stage: Stage) -> None:
    layers = [nn.Conv1d(2, 4, 3, padding="same", padding_mode="circular"), nn.ELU(inplace=True)]
    pools = [nn.MaxPool1d(2), nn.Conv1d(4, 4, 3, dilation=2), nn.Softplus(), nn.LPPool1d(2, 2)]
    fit(stage, nn.Sequential(*layers, *pools, nn.Flatten(), nn.Linear(8, 3)), 4, 2, 16)


@architecture()
def convolution_of_volumes(stage: Stage) -> None:
    layers = [nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU6(inplace=True), nn.Dropout3d(0.2)]
    model = nn.Sequential(*layers, nn.AvgPool3d(2), nn.Conv3d(4, 2, 2), nn.Flatten(), nn.Linear(2, 3))
    fit(stage, model, 3, 1, 4, 4, 4)


@architecture()
def transposed_convolutions(stage: Stage) -> None:
    model = nn.Sequential(
        nn.ConvTranspose1d(2, 4, 3, stride=2),
        nn.Unflatten(2, (3, 3)),
        nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2),
        nn.Unflatten(3, (3, 2)),
        nn.ConvTranspose3d(4, 1, 2),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    model(torch.randn(1, 2, 4))
    fit(stage, model, 4, 2, 4)


class Normed(nn.Module):
    """Every normalisation, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(4, momentum=None),
                nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
                nn.GroupNorm(2, 4),
                nn.GroupNorm(1, 4, affine=False),
                nn.LayerNorm([4, 6, 6]),
                nn.LayerNorm([6, 6], elementwise_affine=False),
                nn.RMSNorm([6, 6]),
                nn.LocalResponseNorm(2),
                nn.BatchNorm2d(4, affine=False, track_running_stats=False),
            ]
        )
        self.mix = nn.Conv2d(4, 4, 1)
        self.head = nn.Sequential(*head(4))

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = norm(self.mix(x))
        return self.head(x)


@architecture()
def norms_of_all_kinds(stage: Stage) -> None:
    fit(stage, Normed(), 4, 4, 6, 6)


class Activated(nn.Module):
    """Every activation function, in place where it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = nn.ModuleList(nn.Linear(6, 6) for _ in range(20))
        self.acts = nn.ModuleList(
            [
                nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True), nn.PReLU(6), nn.RReLU(inplace=True),
                nn.ELU(), nn.CELU(inplace=True), nn.SELU(inplace=True), nn.GELU("tanh"), nn.Mish(),
                nn.SiLU(inplace=True), nn.Hardtanh(inplace=True), nn.Hardswish(inplace=True),
                nn.Hardsigmoid(inplace=True), nn.Softshrink(), nn.Hardshrink(1e-3), nn.Tanhshrink(),
                nn.Softsign(), nn.LogSigmoid(), nn.Threshold(-9.0, 0.0, inplace=True), nn.Softmax(-1),
            ]
        )  # fmt: skip
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for line, act in zip(self.lines, self.acts, strict=True):
            x = x + act(line(x))
        return self.head(F.glu(x))


@architecture()
def activations_of_all_kinds(stage: Stage) -> None:
    fit(stage, Activated(), 5, 6)


class Dense(nn.Module):
    """Each layer sees the outputs of all before it; the concatenations are read by the norms in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                f"dense{i}": nn.Sequential(
                    nn.BatchNorm2d(2 + 2 * i), nn.ReLU(inplace=True), nn.Conv2d(2 + 2 * i, 2, 3, padding=1)
                )
                for i in range(3)
            }
        )
        self.head = nn.Sequential(*head(8))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers.values():
            seen.append(layer(torch.cat(seen, 1)))
        return self.head(torch.cat(seen, 1))


@architecture()
def dense_net(stage: Stage) -> None:
    fit(stage, Dense(), 4, 2, 6, 6)


class Inception(nn.Module):
    """Branches of different depth, and a second classifier halfway that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(4, 2, 1),
                nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, (1, 3), padding=(0, 1))),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 2, 1)),
            ]
        )
        self.side, self.head = nn.Sequential(*head(4)), nn.Sequential(*head(6))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).relu_()
        out = self.head(torch.cat([branch(x) for branch in self.branches], 1))
        return (out, self.side(x)) if self.training else out


@architecture()
def inception_with_a_side_loss(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        out, side = model(x)
        return F.mse_loss(out, y) + 0.3 * F.mse_loss(side, y)

    fit(stage, Inception(), 4, 1, 6, 6, loss_of=loss_of)


class Mobile(nn.Module):
    """Depthwise convolution, squeeze and excitation, stochastic depth by Python's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(4, 8, 1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(inplace=True))
        self.excite = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Hardsigmoid())
        self.project = nn.Conv2d(8, 4, 1)
        self.head = nn.Sequential(*head(4))

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.depthwise(self.expand(x)), inplace=True)
        h *= self.excite(self.squeeze(h))
        keep = torch.empty(x.shape[0], 1, 1, 1).bernoulli_(0.8)
        return self.head(x + self.project(h) * keep)


@architecture()
def inverted_bottleneck(stage: Stage) -> None:
    fit(stage, Mobile(), 4, 4, 6, 6)


class UNet(nn.Module):
    """Down and up again, with skips, attention at the bottom and the time step of a diffusion."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 8))
        self.down = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)])
        self.norm = nn.GroupNorm(2, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 1, 3, padding=1)])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.tensor([1.0, 10.0])
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        skip = F.silu(self.down[0](x))
        h = self.norm(self.down[1](skip)) + time[:, :, None, None]
        flat = h.flatten(2).transpose(1, 2)
        h = h + self.attend(flat, flat, flat, need_weights=False)[0].transpose(1, 2).view_as(h)
        return self.up[1](torch.cat([skip, self.up[0](h)], 1))


@architecture()
def diffusion_u_net(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        t, noise = torch.rand(x.shape[0]), torch.randn_like(x)
        share = t.view(-1, 1, 1, 1)
        return F.mse_loss(model((1 - share) * x + share * noise, t), noise)

    fit(stage, UNet(), 3, 1, 8, 8, loss_of=loss_of)


class Segmenter(nn.Module):
    """Pooling whose places are needed again on the way up: an integer output of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.fractional = nn.FractionalMaxPool2d(2, output_ratio=0.7)

    def forward(self, x: Tensor) -> Tensor:
        h, places = self.pool(self.down(x))
        return self.fractional(self.up(self.unpool(h, places))).flatten(1)[:, :3]


@architecture()
def max_unpooling(stage: Stage) -> None:
    fit(stage, Segmenter(), 4, 1, 8, 8)


class Vae(nn.Module):
    """A variational autoencoder: samples inside the forward pass, returns several things."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6))
        self.decode = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.encode(x).chunk(2, -1)
        chosen = torch.distributions.Normal(mean, spread.exp())
        prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        return self.decode(chosen.rsample()), torch.distributions.kl_divergence(chosen, prior).sum(-1)


@architecture()
def variational_autoencoder(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        out, divergence = model(x)
        return F.mse_loss(out, x) + 0.1 * divergence.mean()

    fit(stage, Vae(), 5, 8, loss_of=loss_of)


class Codebook(nn.Module):
    """Nearest neighbours by index, gradients straight through, and a book that is a moving average."""

    book: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("book", torch.randn(6, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.cdist(x.detach(), self.book).argmin(-1)
        nearest = self.book[chosen]
        if self.training:
            with torch.no_grad():
                self.book.index_add_(0, chosen, x - nearest, alpha=0.1)
        return x + (nearest - x).detach(), chosen, F.mse_loss(x, nearest)


class VqVae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.book, self.decode = nn.Linear(8, 4), Codebook(), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code, _, commitment = self.book(self.encode(x))
        return self.decode(code), commitment


@architecture()
def vector_quantised_autoencoder(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        out, commitment = model(x)
        return F.mse_loss(out, x) + commitment

    fit(stage, VqVae(), 5, 8, loss_of=loss_of)


class Masked(nn.Module):
    """A masked autoencoder: half of the places are dropped by a random permutation and put back by gather."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.embed, self.encoder = (
            nn.Linear(3, 8),
            nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        )
        self.blank = nn.Parameter(torch.zeros(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 6, 8))
        self.decoder = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        order = torch.rand(x.shape[0], 6).argsort(1)
        keep = order[:, :3, None].expand(-1, -1, 8)
        h = self.encoder((self.embed(x) + self.place).gather(1, keep))
        whole = self.blank.expand(x.shape[0], 6, 8).scatter(1, keep, h)
        return self.decoder(whole + self.place)


@architecture()
def masked_autoencoder(stage: Stage) -> None:
    fit(stage, Masked(), 4, 6, 3, loss_of=rebuild)


class Mixer(nn.Module):
    """Tokens and channels in turns, through transposed views."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Unfold(2, stride=2)
        self.norm, self.over_tokens = nn.LayerNorm(4), nn.Linear(9, 9)
        self.over_channels = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.fold = nn.Fold((6, 6), 2, stride=2)
        self.head = nn.Sequential(*head(1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).transpose(1, 2)
        h = h + self.over_tokens(self.norm(h).transpose(1, 2)).transpose(1, 2)
        h = h + self.over_channels(h)
        return self.head(self.fold(h.transpose(1, 2)))


@architecture()
def mlp_mixer(stage: Stage) -> None:
    fit(stage, Mixer(), 4, 1, 6, 6)


class VisionTransformer(nn.Module):
    """A learned token in front, one linear layer for queries, keys and values, attention as a function."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
            self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
            self.scale = nn.Parameter(torch.full((8,), 1e-2))
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            n, length, _ = x.shape
            q, k, v = self.qkv(self.first(x)).view(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind()
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
            x = x + self.scale * self.proj(out.transpose(1, 2).reshape(n, length, 8))
            return x + self.mlp(self.second(x))

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 2, stride=2)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 10, 8))
        self.blocks = nn.Sequential(self.Block(), self.Block())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(x.shape[0], -1, -1), h], 1) + self.place
        return self.head(self.blocks(h)[:, 0])


@architecture()
def vision_transformer(stage: Stage) -> None:
    fit(stage, VisionTransformer(), 3, 1, 6, 6)


class SpatialTransformer(nn.Module):
    """The network moves its own input about."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(nn.Flatten(), nn.Linear(36, 6))
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), *head(4))

    def forward(self, x: Tensor) -> Tensor:
        theta = 0.1 * self.where(x).view(-1, 2, 3) + torch.eye(2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return self.body(F.grid_sample(x, grid, align_corners=False))


@architecture()
def spatial_transformer(stage: Stage) -> None:
    fit(stage, SpatialTransformer(), 4, 1, 6, 6)


@architecture()
def super_resolution(stage: Stage) -> None:
    layers = [nn.ReflectionPad2d(1), nn.Conv2d(1, 4, 3), Residual(4), nn.Conv2d(4, 4, 1), nn.PixelShuffle(2)]
    model = nn.Sequential(
        *layers, nn.PixelUnshuffle(2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ZeroPad2d(-2)
    )
    train(
        stage,
        model,
        [
            (x[:, :, ::2, ::2], x.expand(-1, 4, -1, -1)[:, :, :4, :4])
            for x, _ in numbers(3, 1, 8, 8, count=FEW)
        ],
    )


class Spectral(nn.Module):
    """A Fourier neural operator: complex weights on the low frequencies of a real field."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, 3, dtype=torch.complex64) / 2)
        self.lift, self.line, self.drop = nn.Conv1d(1, 2, 1), nn.Conv1d(2, 2, 1), nn.Conv1d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        waves = torch.fft.rfft(h)
        low = torch.einsum("bik,iok->bok", waves[..., :3], self.weight)
        h = F.gelu(self.line(h) + torch.fft.irfft(F.pad(low, (0, waves.shape[-1] - 3)), n=x.shape[-1]))
        return self.drop(h)


@architecture()
def fourier_operator(stage: Stage) -> None:
    fit(stage, Spectral(), 4, 1, 12, loss_of=rebuild)


class Sine(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.line = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return (6.0 * self.line(x)).sin()


@architecture()
def field_with_a_differential_equation(stage: Stage) -> None:
    """A coordinate network whose loss holds second derivatives with respect to the inputs."""

    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
        return (bend[:, 0] + u[:, 0]).square().mean() + slope.square().mean()

    fit(stage, nn.Sequential(Sine(2, 8), Sine(8, 8), nn.Linear(8, 1)), 6, 2, loss_of=loss_of)


class Radiance(nn.Module):
    """A field of colour and density, summed along rays by a cumulative product."""

    def __init__(self) -> None:
        super().__init__()
        self.density = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 9))
        self.colour = nn.Sequential(nn.Linear(8, 3), nn.Sigmoid())

    def forward(self, rays: Tensor) -> Tensor:
        depth = torch.linspace(0.1, 1, 5) + torch.rand(5) * 0.1
        points = rays[:, None] * depth[:, None]
        solid, h = self.density(torch.cat([points.sin(), points.cos()], -1)).split([1, 8], -1)
        alpha = 1 - torch.exp(-solid[..., 0].relu() * 0.2)
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-6], 1), 1)[:, :-1]
        return ((alpha * light)[..., None] * self.colour(h)).sum(1)


@architecture()
def radiance_field(stage: Stage) -> None:
    fit(stage, Radiance(), 5, 3)


class Capsules(nn.Module):
    """Routing by agreement: an inner loop over detached weights."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Conv2d(1, 8, 3, stride=2)
        self.votes = nn.Parameter(torch.randn(8, 3, 4, 4) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(x).flatten(2).view(x.shape[0], 8, 4)
        votes = torch.einsum("bni,noij->bnoj", u, self.votes)
        logits = torch.zeros(x.shape[0], 8, 3)
        for _ in range(3):
            out = (logits.softmax(-1)[..., None] * votes).sum(1)
            out = F.normalize(out, dim=-1) * out.norm(dim=-1, keepdim=True).tanh()
            logits = logits + torch.einsum("bnoj,boj->bno", votes.detach(), out.detach())
        return out.norm(dim=-1)


@architecture()
def capsules_with_routing(stage: Stage) -> None:
    fit(stage, Capsules(), 4, 1, 6, 6)


class Kan(nn.Module):
    """Learned curves on the edges instead of weights: bumps on a grid that is a buffer."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, 5), persistent=False)
        self.curves = nn.Parameter(torch.randn(5, 4, 3) / math.sqrt(20))

    def forward(self, x: Tensor) -> Tensor:
        bumps = torch.exp(-(x[..., None] - self.grid).square())
        return torch.einsum("big,gio->bo", bumps, self.curves)


@architecture()
def curves_on_edges(stage: Stage) -> None:
    fit(stage, Kan(), 6, 4)
