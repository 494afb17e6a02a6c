"""Tiny ``timm`` image models with random weights: one of each family that differs in what its modules do.

The smallest model of a family, made smaller still by its own options where it would be slow. The table's
options are keywords of ``timm.create_model``; ``size`` is the width and height of the images.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Picture:
    """A timm model and the size of its square images."""

    model: str | Callable[[types.ModuleType], nn.Module]
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, timm: types.ModuleType) -> nn.Module:
        """The model, in training mode."""
        if callable(self.model):
            return self.model(timm).train()
        return timm.create_model(self.model, pretrained=False, num_classes=3, **self.options).train()

    def batch(self) -> dict[str, Tensor]:
        """Keyword arguments of the model: two images of noise."""
        return {"x": torch.randn(2, 3, self.size, self.size)}


def picture(model: str, size: int = 64, **options: Any) -> Picture:
    """A row of the table."""
    return Picture(model, size, options)


def built(make: Callable[[types.ModuleType], nn.Module]) -> Picture:
    """A row whose model no keyword of ``create_model`` makes small."""
    return Picture(make)


TWO = {"depths": (1, 1), "embed_dim": 12}
FOUR = (1, 1, 1, 1)
WIDTHS = (8, 16, 24, 32)

PICTURES = {
    # convolutions, normalised and gated in every way
    "resnet": picture("test_resnet"),
    "resnetv2": picture("resnetv2_18", layers=(1, 1), channels=(16, 32)),
    "seresnet-blur": built(
        lambda t: t.models.resnet.ResNet(
            t.models.resnet.BasicBlock,
            FOUR,
            num_classes=3,
            channels=WIDTHS,
            aa_layer=t.layers.BlurPool2d,
            block_args={"attn_layer": "se"},
        )
    ),
    "res2net": picture("res2net50_14w_8s", layers=FOUR, channels=WIDTHS),
    "resnest": picture("resnest14d", layers=FOUR, channels=WIDTHS),
    "sknet": picture("skresnet18", layers=FOUR, channels=(32, 32, 64, 64)),
    "densenet": picture("densenet121", growth_rate=8, block_config=(2, 2)),
    "dla": picture("dla46x_c"),
    "dpn": picture("dpn48b", k_sec=(1, 1, 1, 1)),
    "vovnet": picture("ese_vovnet19b_slim_dw"),
    "cspnet": picture("cs3darknet_focus_s"),
    "nfnet": picture("test_nfnet"),
    "byobnet": picture("test_byobnet"),
    "inception-next": picture("inception_next_atto"),
    "efficientnet": picture("test_efficientnet"),
    "efficientnet-evonorm": picture("test_efficientnet_evos"),
    "mobilenetv3": picture("mobilenetv3_small_050"),
    "ghostnet": picture("ghostnet_050"),
    "starnet": picture("starnet_s050"),
    "fasternet": picture("fasternet_t0"),
    "convnext": picture("test_convnext"),
    "convnextv2": picture("test_convnext3"),
    "convmixer": built(lambda t: t.models.convmixer.ConvMixer(16, 2, num_classes=3)),
    "focalnet": built(lambda t: t.models.focalnet.FocalNet(num_classes=3, depths=FOUR, embed_dim=8)),
    "mambaout": picture("test_mambaout"),
    "tresnet": picture("tresnet_m", layers=(1, 1, 1, 1), width_factor=0.25),
    # attention, and mixtures of both
    "vit": picture("test_vit", 32, img_size=32),
    "vit-registers": picture("test_vit2", 32, img_size=32),
    "vit-relative": picture("test_vit_relpos", 32, img_size=32),
    "vit-hybrid": picture("vit_tiny_r_s16_p8_224", img_size=64, depth=2, embed_dim=24),
    "vit-sam": picture("samvit_base_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=2),
    "naflexvit": picture("naflexvit_base_patch16_gap", 32, depth=2, embed_dim=24, num_heads=2),
    "beit": picture("beit_base_patch16_224", 32, img_size=32, depth=2, embed_dim=24, num_heads=2),
    "deit": picture("deit_tiny_distilled_patch16_224", 32, img_size=32, depth=2, embed_dim=24),
    "cait": picture("cait_xxs24_224", 32, img_size=32, depth=2, embed_dim=24, num_heads=2),
    "coatnet": picture("test_coatnet", img_size=64),
    "maxvit": picture("test_maxvit", img_size=64),
    "convit": picture("convit_tiny", 32, img_size=32, depth=2, embed_dim=24, num_heads=2),
    "crossvit": built(
        lambda t: t.models.crossvit.CrossVit(
            64, num_classes=3, embed_dim=(12, 24), depth=((1, 1, 1),), num_heads=(2, 2)
        )
    ),
    "davit": picture("davit_tiny", depths=(1, 1), embed_dims=(12, 24), num_heads=(1, 2)),
    "edgenext": picture("edgenext_xx_small"),
    "efficientformer": picture("efficientformerv2_s0", img_size=64),
    "efficientvit-mit": picture("efficientvit_b0"),
    "eva02": picture("eva02_tiny_patch14_224", 28, img_size=28, depth=2, embed_dim=24, num_heads=2),
    "gcvit": built(
        lambda t: t.models.gcvit.GlobalContextVit(
            img_size=64, num_classes=3, depths=FOUR, num_heads=(1, 2, 2, 2), embed_dim=8
        )
    ),
    "hiera": picture("hiera_tiny_224", img_size=64, embed_dim=16, stages=(1, 1, 1, 1)),
    "levit": picture("levit_128s", img_size=64, depth=(1, 1, 1)),
    "mlp-mixer": built(lambda t: t.models.mlp_mixer.MlpMixer(3, 64, num_blocks=2, embed_dim=24)),
    "gmlp": built(
        lambda t: t.models.mlp_mixer.MlpMixer(
            3,
            64,
            num_blocks=2,
            embed_dim=24,
            mlp_ratio=4,
            block_layer=t.models.mlp_mixer.SpatialGatingBlock,
            mlp_layer=t.layers.GatedMlp,
        )
    ),
    "mobilevit": picture("mobilevitv2_050"),
    "mvitv2": built(
        lambda t: t.models.mvitv2.MultiScaleVit(
            t.models.mvitv2.MultiScaleVitCfg(depths=FOUR, embed_dim=8), img_size=64, num_classes=3
        )
    ),
    "nest": built(
        lambda t: t.models.nest.Nest(
            64, num_classes=3, embed_dims=(8, 16, 24), num_heads=(1, 2, 2), depths=(1, 1, 1)
        )
    ),
    "pit": picture("pit_ti_224", img_size=64, depth=(1, 1, 1)),
    "poolformer": built(lambda t: t.models.metaformer.MetaFormer(num_classes=3, depths=FOUR, dims=WIDTHS)),
    "caformer": built(
        lambda t: t.models.metaformer.MetaFormer(
            num_classes=3,
            depths=(1, 1),
            dims=(32, 64),
            token_mixers=[t.models.metaformer.SepConv, t.models.metaformer.Attention],
            norm_layers=[t.models.metaformer.LayerNorm2dNoBias, t.models.metaformer.LayerNormNoBias],
        )
    ),
    "pvt": picture("pvt_v2_b0"),
    "sequencer": picture("sequencer2d_s", img_size=64, layers=(1, 1, 1, 1), embed_dims=(16, 24, 24, 24)),
    "swiftformer": picture("swiftformer_xs"),
    "swin": picture("swin_tiny_patch4_window7_224", 32, img_size=32, window_size=4, num_heads=(1, 2), **TWO),
    "swinv2": picture("swinv2_tiny_window8_256", 32, img_size=32, window_size=4, num_heads=(1, 2), **TWO),
    "swinv2-cr": picture("swinv2_cr_tiny_224", img_size=64, window_size=4, num_heads=(1, 2), **TWO),
    "tiny-vit": picture("tiny_vit_5m_224", depths=FOUR),
    "tnt": picture("tnt_s_patch16_224", 32, img_size=32, depth=2, embed_dim=24, inner_dim=8),
    "twins": picture("twins_svt_small", img_size=64, embed_dims=(8, 16, 24, 32), depths=(2, 2, 2, 2)),
    "visformer": picture("visformer_tiny", img_size=64, embed_dim=48, depth=(1, 1, 1)),
    "volo": built(
        lambda t: t.models.volo.VOLO(
            layers=FOUR, img_size=64, num_classes=3, embed_dims=(16, 32, 32, 32), num_heads=(1, 2, 2, 2)
        )
    ),
    "xcit": picture("xcit_nano_12_p8_224", 32, img_size=32, depth=2, embed_dim=24),
}
