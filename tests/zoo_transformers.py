"""Tiny ``transformers`` models with random weights, made from small configurations: nothing is downloaded.

Chosen for what their modules do, not for their fame: tied embeddings, rotary and relative positions, fused
and hand-written attention, mixtures of experts with integer and empty outputs, recurrences, convolutions,
encoders with decoders, several modalities, hash buckets drawn at random, matching by scipy. A row names the
configuration and the model class; its keywords are those of the configuration.

Longer than other files: one flat table.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.zoo_batches import (
    LENGTH,
    WORDS,
    boxes,
    captions,
    forecast,
    images,
    masks,
    padded,
    pairs,
    past_and_future,
    prompts,
    questions,
    spectrogram,
    text,
    trajectory,
    translation,
    unlabelled,
    unlabelled_images,
    waves,
    words,
)

SMALL = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

Batch = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Language:
    """A transformers model, its configuration, and batches for it."""

    config: str
    model: str
    batch: Batch
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, transformers: types.ModuleType) -> nn.Module:
        """The model, in training mode."""
        options = copy.deepcopy(self.options)  # nested configurations are changed by those who take them
        config = getattr(transformers, self.config)(**options)
        return getattr(transformers, self.model)(config).train()


def row(name: str, head: str, batch: Batch, **options: Any) -> Language:
    """A row of the table: ``Bert``, ``ForMaskedLM`` …"""
    return Language(f"{name}Config", f"{name}{head}", batch, options)


def causal(name: str, head: str = "ForCausalLM", batch: Batch = padded, **options: Any) -> Language:
    """A decoder."""
    return row(name, head, batch, **{**SMALL, **options})


def masked(name: str, batch: Batch = padded, **options: Any) -> Language:
    """An encoder."""
    return row(name, "ForMaskedLM", batch, **{**SMALL, **options})


def seq2seq(
    name: str, batch: Batch = translation, head: str = "ForConditionalGeneration", **options: Any
) -> Language:
    """An encoder with a decoder, in the words of BART."""
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2}
    widths = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    base = {"vocab_size": WORDS, "max_position_embeddings": 32, "pad_token_id": 0, "eos_token_id": 2}
    return row(name, head, batch, **{**base, **sizes, **heads, **widths, **options})


def t5(name: str, **options: Any) -> Language:
    """An encoder with a decoder, in the words of T5."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    base = {"vocab_size": WORDS, "pad_token_id": 0, "decoder_start_token_id": 0}
    return row(name, "ForConditionalGeneration", translation, **{**base, **sizes, **options})


def seen(name: str, batch: Batch = images, head: str = "ForImageClassification", **options: Any) -> Language:
    """An image classifier in the words of ViT."""
    base = {k: SMALL[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    return row(
        name, head, batch, **{**base, "intermediate_size": 24, "image_size": 32, "patch_size": 8, **options}
    )


def heard(name: str, head: str, **options: Any) -> Language:
    """A recogniser of raw sound in the words of wav2vec 2.0."""
    base = {k: SMALL[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    front = {"conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_conv_pos_embeddings": 4}
    groups = {"num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, "intermediate_size": 24}
    return row(name, head, waves, **{**base, **front, **groups, "pad_token_id": 0, **options})


def series(name: str, **options: Any) -> Language:
    """A forecaster of one series with two features of time."""
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
    }
    base = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 2}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return row(name, "ForPrediction", past_and_future, **{**base, **sizes, **heads, **options})


BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage3", "stage4"],
}
SWIN_BACKBONE = {
    "model_type": "swin",
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
DETECTOR = {
    "d_model": 32,
    "decoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 4,
    "num_labels": 3,
}
IMAGE_TOWER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 8,
}
TWO_TOWERS = {
    "text_config": {**SMALL, "projection_dim": 8, "projection_size": 16},
    "vision_config": IMAGE_TOWER,
    "projection_dim": 8,
}
SAM = {
    "vision_config": {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 24,
        "num_pos_feats": 8,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4},
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}


LANGUAGES: dict[str, Language] = {
    # decoders
    "gpt2": causal("GPT2", "LMHeadModel"),
    "gpt-neo": causal("GPTNeo", attention_types=[[["global", "local"], 1]], window_size=4),
    "gpt-neox": causal("GPTNeoX"),
    "gptj": causal("GPTJ", rotary_dim=4),
    "gpt-bigcode": causal("GPTBigCode"),
    "openai-gpt": causal("OpenAIGPT", "LMHeadModel"),
    "codegen": causal("CodeGen", rotary_dim=4, num_attention_heads=4),
    "ctrl": causal("CTRL", "LMHeadModel", dff=24),
    "opt": causal("OPT", ffn_dim=24, word_embed_proj_dim=16),
    "bloom": causal("Bloom"),
    "falcon": causal("Falcon"),
    "mpt": causal("Mpt", n_layers=2, n_heads=2, d_model=16, max_seq_len=32),
    "xglm": causal("XGLM", d_model=16, ffn_dim=24, num_layers=2, attention_heads=2),
    "biogpt": causal("BioGpt"),
    "llama": causal("Llama", num_key_value_heads=1),
    "mistral": causal("Mistral", num_key_value_heads=1, sliding_window=4),
    "qwen3": causal("Qwen3", num_key_value_heads=1, head_dim=8),
    "gemma2": causal("Gemma2", num_key_value_heads=1, head_dim=8, sliding_window=4),
    "gemma3": Language(
        "Gemma3TextConfig", "Gemma3ForCausalLM", padded, {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
    ),
    "phi3": causal("Phi3", num_key_value_heads=1),
    "olmo2": causal("Olmo2", num_key_value_heads=1),
    "cohere": causal("Cohere", num_key_value_heads=1),
    "stablelm": causal("StableLm", num_key_value_heads=1),
    "starcoder2": causal("Starcoder2", num_key_value_heads=1),
    "nemotron": causal("Nemotron", num_key_value_heads=1),
    "granite": causal("Granite", num_key_value_heads=1),
    "glm4": causal("Glm4", num_key_value_heads=1, head_dim=8),
    "diffllama": causal("DiffLlama", num_key_value_heads=2),
    "bitnet": causal("BitNet", num_key_value_heads=1),
    # mixtures of experts
    "mixtral": causal("Mixtral", num_key_value_heads=1, num_local_experts=4, output_router_logits=True),
    "qwen3-moe": causal(
        "Qwen3Moe",
        num_key_value_heads=1,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        decoder_sparse_step=1,
    ),
    "olmoe": causal("Olmoe", num_key_value_heads=1, num_experts=4, num_experts_per_tok=2),
    "deepseek-v3": causal(
        "DeepseekV3",
        num_key_value_heads=2,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        first_k_dense_replace=1,
    ),
    "granitemoe": causal("GraniteMoe", num_key_value_heads=1, num_local_experts=4),
    "jetmoe": causal("JetMoe", num_key_value_heads=2, num_local_experts=4, kv_channels=8),
    "gpt-oss": causal(
        "GptOss",
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4,
    ),
    # recurrences and state spaces
    "mamba": causal("Mamba", state_size=4),
    "mamba2": causal("Mamba2", state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=4, expand=2),
    "falcon-mamba": causal("FalconMamba", state_size=4),
    "rwkv": causal("Rwkv", attention_hidden_size=16, context_length=32),
    "recurrent-gemma": causal(
        "RecurrentGemma", num_key_value_heads=1, lru_width=16, num_hidden_layers=3, attention_window_size=4
    ),
    "jamba": causal(
        "Jamba",
        num_key_value_heads=1,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        num_experts_per_tok=1,
        mamba_d_state=4,
        use_mamba_kernels=False,
    ),
    "bamba": causal(
        "Bamba",
        num_key_value_heads=1,
        attn_layer_indices=[1],
        mamba_d_state=4,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_n_groups=1,
        mamba_chunk_size=4,
    ),
    "lfm2": causal("Lfm2", num_key_value_heads=1, layer_types=["conv", "full_attention"]),
    # encoders
    "bert": masked("Bert"),
    "roberta": masked("Roberta"),
    "albert": masked("Albert", embedding_size=8, num_hidden_groups=1),
    "electra": masked("Electra", embedding_size=8),
    "distilbert": masked("DistilBert", dim=16, n_layers=2, n_heads=2, hidden_dim=24),
    "mobilebert": masked("MobileBert", embedding_size=8, intra_bottleneck_size=8, true_hidden_size=8),
    "convbert": masked("ConvBert", embedding_size=16, head_ratio=1, conv_kernel_size=3),
    "squeezebert": masked(
        "SqueezeBert",
        embedding_size=16,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    "deberta-v2": masked(
        "DebertaV2", relative_attention=True, pos_att_type="c2p|p2c", position_biased_input=False
    ),
    "modernbert": masked("ModernBert", local_attention=4, global_attn_every_n_layers=2),
    "mpnet": masked("MPNet"),
    "roformer": masked("RoFormer", embedding_size=16),
    "nystromformer": masked(
        "Nystromformer", text, num_landmarks=5, segment_means_seq_len=10, conv_kernel_size=3
    ),
    "yoso": masked("Yoso", use_expectation=True),
    "fnet": masked("FNet", text, tpu_short_seq_length=LENGTH),
    "funnel": row(
        "Funnel",
        "ForMaskedLM",
        text,
        vocab_size=WORDS,
        block_sizes=[1, 1],
        num_decoder_layers=1,
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=24,
    ),
    "longformer": masked("Longformer", attention_window=4),
    "big-bird": masked(
        "BigBird",
        functools.partial(padded, 24),
        block_size=2,
        num_random_blocks=1,
        attention_type="block_sparse",
        max_position_embeddings=32,
    ),
    "reformer": row(
        "Reformer",
        "ModelWithLMHead",
        functools.partial(text, 16),
        vocab_size=WORDS,
        hidden_size=16,
        attention_head_size=8,
        num_attention_heads=2,
        attn_layers=["local", "lsh"],
        axial_pos_embds=True,
        axial_pos_shape=[4, 4],
        axial_pos_embds_dim=[8, 8],
        feed_forward_size=24,
        is_decoder=True,
        lsh_attn_chunk_length=4,
        local_attn_chunk_length=4,
        num_buckets=2,
        num_hashes=2,
    ),
    "xlnet": row("XLNet", "LMHeadModel", text, vocab_size=WORDS, d_model=16, n_layer=2, n_head=2, d_inner=24),
    "canine": row(
        "Canine",
        "ForSequenceClassification",
        lambda: {"input_ids": words(16), "labels": torch.tensor([0, 1])},
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        local_transformer_stride=4,
        num_hash_buckets=16,
        num_hash_functions=2,
    ),
    "ibert": masked("IBert", quant_mode=True),
    "esm": masked("Esm", mask_token_id=3, emb_layer_norm_before=True, position_embedding_type="rotary"),
    # encoders with decoders
    "bart": seq2seq("Bart"),
    "marian": seq2seq("Marian", head="MTModel"),
    "pegasus-x": seq2seq("PegasusX", block_size=4, num_global_tokens=2),
    "led": seq2seq(
        "LED", attention_window=[4, 4], max_encoder_position_embeddings=32, max_decoder_position_embeddings=32
    ),
    "nllb-moe": seq2seq(
        "NllbMoe", num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=8
    ),
    "prophetnet": row(
        "ProphetNet",
        "ForConditionalGeneration",
        translation,
        vocab_size=WORDS,
        hidden_size=16,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=2,
        num_decoder_attention_heads=2,
        ngram=2,
        max_position_embeddings=32,
        decoder_start_token_id=1,
    ),
    "t5": t5("T5"),
    "longt5": t5("LongT5", local_radius=3, global_block_size=4, encoder_attention_type="transient-global"),
    "switch-transformers": t5(
        "SwitchTransformers",
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=8,
    ),
    # images
    "vit": seen("ViT"),
    "deit": seen("DeiT"),
    "beit": seen("Beit", use_relative_position_bias=True),
    "dinov2": seen("Dinov2"),
    "vit-mae": seen(
        "ViTMAE",
        unlabelled_images,
        "ForPreTraining",
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=24,
    ),
    "swin": row(
        "Swin",
        "ForImageClassification",
        images,
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 2],
        num_heads=[1, 2],
        window_size=2,
    ),
    "swinv2": row(
        "Swinv2",
        "ForImageClassification",
        images,
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 2],
        num_heads=[1, 2],
        window_size=2,
    ),
    "convnext": row(
        "ConvNextV2", "ForImageClassification", images, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2
    ),
    "resnet": row(
        "ResNet", "ForImageClassification", images, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]
    ),
    "segformer": row(
        "Segformer",
        "ForImageClassification",
        images,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[4, 2],
        hidden_sizes=[8, 16],
        num_attention_heads=[1, 2],
        patch_sizes=[7, 3],
        strides=[4, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
    ),
    "poolformer": row(
        "PoolFormer",
        "ForImageClassification",
        images,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        patch_sizes=[7, 3],
        strides=[4, 2],
        padding=[2, 1],
        num_encoder_blocks=2,
    ),
    "cvt": row(
        "Cvt",
        "ForImageClassification",
        images,
        embed_dim=[8, 16],
        num_heads=[1, 2],
        depth=[1, 2],
        patch_sizes=[7, 3],
        patch_stride=[4, 2],
        patch_padding=[2, 1],
        mlp_ratio=[2.0, 2.0],
        attention_drop_rate=[0.0, 0.0],
        drop_rate=[0.0, 0.0],
        drop_path_rate=[0.0, 0.1],
        qkv_bias=[True, True],
        cls_token=[False, True],
        qkv_projection_method=["dw_bn", "dw_bn"],
        kernel_qkv=[3, 3],
        padding_kv=[1, 1],
        stride_kv=[2, 2],
        padding_q=[1, 1],
        stride_q=[1, 1],
    ),
    "levit": row(
        "Levit",
        "ForImageClassification",
        functools.partial(images, 64),
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[1, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "imagegpt": causal(
        "ImageGPT", "ForImageClassification", lambda: {"input_ids": words(), "labels": torch.tensor([0, 1])}
    ),
    "vitdet": seen(
        "VitDet", unlabelled_images, "Model", window_block_indices=[0], window_size=2, num_channels=3
    ),
    "timesformer": seen(
        "Timesformer",
        lambda: {"pixel_values": torch.randn(1, 2, 3, 32, 32), "labels": torch.tensor([1])},
        "ForVideoClassification",
        num_frames=2,
    ),
    # detection and segmentation: matching by scipy, queries
    "yolos": seen(
        "Yolos",
        lambda: {
            "pixel_values": torch.randn(1, 3, 32, 32),
            "labels": [{"class_labels": torch.tensor([1]), "boxes": torch.rand(1, 4)}],
        },
        "ForObjectDetection",
        image_size=[32, 32],
        num_detection_tokens=4,
    ),
    "detr": row(
        "Detr",
        "ForObjectDetection",
        boxes,
        **DETECTOR,
        encoder_layers=1,
        backbone_config=BACKBONE,
        backbone=None,
        use_timm_backbone=False,
    ),
    "deformable-detr": row(
        "DeformableDetr",
        "ForObjectDetection",
        boxes,
        **DETECTOR,
        encoder_layers=1,
        num_feature_levels=2,
        encoder_n_points=2,
        decoder_n_points=2,
        backbone_config=BACKBONE,
        backbone=None,
        use_timm_backbone=False,
    ),
    "mask2former": row(
        "Mask2Former",
        "ForUniversalSegmentation",
        masks,
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=24,
        encoder_feedforward_dim=24,
        num_queries=4,
        num_labels=3,
        train_num_points=16,
        backbone_config=SWIN_BACKBONE,
    ),
    "sam": Language("SamConfig", "SamModel", prompts, SAM),
    # sound
    "wav2vec2": heard(
        "Wav2Vec2", "ForCTC", feat_extract_norm="layer", mask_time_length=2, mask_time_prob=0.3
    ),
    "hubert": heard("Hubert", "ForCTC", mask_time_length=2),
    "wavlm": heard("WavLM", "ForCTC", mask_time_length=2, num_buckets=8, max_bucket_distance=8),
    "wav2vec2-conformer": heard(
        "Wav2Vec2Conformer",
        "ForCTC",
        position_embeddings_type="rotary",
        conv_depthwise_kernel_size=3,
        mask_time_length=2,
    ),
    "sew-d": heard(
        "SEWD", "ForCTC", squeeze_factor=1, position_buckets=4, max_position_embeddings=32, mask_time_length=2
    ),
    "whisper": seq2seq(
        "Whisper", spectrogram, num_mel_bins=8, max_source_positions=10, max_target_positions=32
    ),
    "audio-spectrogram-transformer": row(
        "AST",
        "ForAudioClassification",
        lambda: {"input_values": torch.randn(2, 16, 16), "labels": torch.tensor([0, 1])},
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        patch_size=8,
        frequency_stride=4,
        time_stride=4,
        max_length=16,
        num_mel_bins=16,
    ),
    "encodec": row(
        "Encodec",
        "Model",
        lambda: {"input_values": torch.randn(2, 1, 64)},
        num_filters=4,
        hidden_size=8,
        codebook_dim=8,
        codebook_size=8,
        upsampling_ratios=[2, 2],
        num_lstm_layers=1,
        target_bandwidths=[24.0],
        use_causal_conv=False,
    ),
    "dac": row(
        "Dac",
        "Model",
        lambda: {"input_values": torch.randn(2, 1, 64)},
        encoder_hidden_size=4,
        decoder_hidden_size=16,
        downsampling_ratios=[2, 2],
        upsampling_ratios=[2, 2],
        n_codebooks=2,
        codebook_size=8,
        codebook_dim=4,
        hidden_size=16,
    ),
    "univnet": row(
        "UnivNet",
        "Model",
        lambda: {"input_features": torch.randn(2, 12, 8)},
        num_mel_bins=8,
        model_in_channels=4,
        model_hidden_channels=4,
        kernel_predictor_hidden_channels=4,
    ),
    "vits": row(
        "Vits",
        "Model",
        unlabelled,
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=24,
        flow_size=16,
        spectrogram_bins=8,
        upsample_initial_channel=16,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        depth_separable_num_layers=1,
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=2,
        posterior_encoder_num_wavenet_layers=2,
        wavenet_dilation_rate=1,
        duration_predictor_num_flows=2,
    ),
    # several modalities
    "clip": Language("CLIPConfig", "CLIPModel", pairs, TWO_TOWERS),
    "siglip": Language("SiglipConfig", "SiglipModel", pairs, TWO_TOWERS),
    "groupvit": Language(
        "GroupViTConfig",
        "GroupViTModel",
        pairs,
        {
            "text_config": SMALL,
            "vision_config": {
                **IMAGE_TOWER,
                "depths": [1, 1, 1],
                "num_group_tokens": [4, 2, 0],
                "num_output_groups": [4, 2, 0],
                "num_hidden_layers": 3,
            },
            "projection_dim": 8,
            "projection_intermediate_dim": 16,
        },
    ),
    "vilt": row(
        "Vilt",
        "ForQuestionAnswering",
        questions,
        **{**SMALL, "image_size": 32, "patch_size": 8, "max_image_length": -1},
    ),
    "blip": Language(
        "BlipConfig",
        "BlipForConditionalGeneration",
        captions,
        {
            "text_config": {**SMALL, "encoder_hidden_size": 16, "is_decoder": True, "sep_token_id": 2},
            "vision_config": IMAGE_TOWER,
            "projection_dim": 8,
        },
    ),
    "lxmert": row(
        "Lxmert",
        "Model",
        lambda: {
            "input_ids": words(),
            "visual_feats": torch.randn(2, 3, 12),
            "visual_pos": torch.rand(2, 3, 4),
        },
        vocab_size=WORDS,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        l_layers=1,
        x_layers=1,
        r_layers=1,
        visual_feat_dim=12,
    ),
    "layoutlm": masked(
        "LayoutLM",
        lambda: {**text(), "bbox": torch.randint(0, 16, (2, LENGTH, 1)).expand(2, LENGTH, 4)},
        max_2d_position_embeddings=32,
    ),
    "perceiver": row(
        "Perceiver",
        "ForMaskedLM",
        text,
        vocab_size=WORDS,
        d_model=16,
        d_latents=12,
        num_latents=4,
        num_blocks=2,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=2,
        max_position_embeddings=LENGTH,
        qk_channels=8,
        v_channels=12,
    ),
    # series and decisions
    "time-series-transformer": series("TimeSeriesTransformer"),
    "informer": series("Informer"),
    "autoformer": series("Autoformer", moving_average=3, label_length=3),
    "patchtst": row(
        "PatchTST",
        "ForPrediction",
        forecast,
        num_input_channels=2,
        context_length=16,
        prediction_length=4,
        patch_length=4,
        patch_stride=4,
        d_model=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        ffn_dim=24,
    ),
    "patchtsmixer": row(
        "PatchTSMixer",
        "ForPrediction",
        forecast,
        num_input_channels=2,
        context_length=16,
        prediction_length=4,
        patch_length=4,
        patch_stride=4,
        d_model=16,
        num_layers=2,
    ),
    "decision-transformer": row(
        "DecisionTransformer",
        "Model",
        trajectory,
        state_dim=4,
        act_dim=2,
        hidden_size=16,
        n_layer=2,
        n_head=2,
        max_ep_len=16,
    ),
}
