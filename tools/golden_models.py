"""Creates the tiny Stable Diffusion 3.5 models of the golden values.

All their weights are random, because the usual initial zeros and ones of gates and norms would hide mistakes. The models
differ in all dimensions, because a single model would hide a dimension that is used in place of an equal one.
"""

import shutil
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import tiny_tokenizers

TABLES = ("_embedding.weight", "shared.weight", "embed_tokens.weight", "relative_attention_bias.weight")


@dataclass
class Configuration:
    """The dimensions of a model, and the inputs of its golden values."""

    seed: int
    words: list
    transformer: dict
    vae: dict
    clip_l: dict
    clip_g: dict
    t5: dict
    shift: float
    # The type of the stored weights. Values are computed in f32.
    dtype: torch.dtype
    # The first is the prompt of the images, the last exceeds the length of all encoders.
    prompts: list
    negative: str
    t5_length: int
    long_t5_length: int
    # Heights and widths, and the timesteps of the denoiser.
    latents: dict
    timesteps: dict
    images: dict
    txt2img: dict
    img2img: dict


FIRST = Configuration(
    seed=10,
    words=(
        "a an and at background big black blue bottom brown center centre circle color colour corner create cross cyan "
        "diamond draw drawing for gray green grey huge illustration image in is it large left little make me middle no "
        "not object of on one orange paint painting photo picture pink plain please purple red right shape show side "
        "simple small something square star that the this tiny to top triangle white with yellow"
    ).split(),
    transformer={
        "sample_size": 12,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 40,
        "pos_embed_max_size": 12,
        "dual_attention_layers": (0, 1),
    },
    vae={
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 2,
        "latent_channels": 16,
        "norm_num_groups": 4,
        "sample_size": 96,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
    },
    clip_l={
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    clip_g={
        "hidden_size": 24,
        "intermediate_size": 48,
        "projection_dim": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    t5={"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4},
    shift=3.0,
    dtype=torch.float32,
    prompts=[
        "a red circle on a white background",
        "",
        "A RED Circle, on a White background!!",
        "the artist's drawing: 3 small stars (and 12 crosses), isn't it?",
        "un café déjà vu, naïve Zürich — 東京 🌟",
        "  two\n lines\tand   spaces ",
        " ".join(["a small green square at the top left and a large blue star in the middle"] * 8),
    ],
    negative="blue square",
    t5_length=32,
    long_t5_length=256,
    latents={"square": (12, 12), "wide": (8, 20)},
    timesteps={"square": 750.0, "wide": 58.5},
    images={"square": (48, 48), "wide": (32, 80)},
    txt2img={
        "square": {"height": 96, "width": 96, "seed": 1, "guidance": 4.5, "t5": True, "steps": 4},
        "wide": {"height": 96, "width": 160, "seed": 2**32 + 5, "guidance": 4.5, "t5": True, "steps": 4},
        "no_t5": {"height": 96, "width": 96, "seed": 3, "guidance": 4.5, "t5": False, "steps": 4},
        "no_guidance": {"height": 96, "width": 96, "seed": 4, "guidance": 1.0, "t5": True, "steps": 4},
    },
    img2img={
        "square": {"height": 96, "width": 96, "seed": 5, "steps": 5, "strength": 0.6, "guidance": 4.5},
        "wide": {"height": 64, "width": 112, "seed": 6, "steps": 5, "strength": 0.6, "guidance": 4.5},
    },
)

# No dimension is a multiple of 16, few are multiples of 8, and no two are equal without need.
SECOND = Configuration(
    seed=20,
    words="a red star on blue circle".split(),
    transformer={
        "sample_size": 10,
        "in_channels": 12,
        "out_channels": 12,
        "num_layers": 5,
        "attention_head_dim": 12,
        "num_attention_heads": 3,
        "joint_attention_dim": 56,
        "caption_projection_dim": 36,
        "pooled_projection_dim": 42,
        "pos_embed_max_size": 14,
        "dual_attention_layers": (0, 1, 2),
    },
    vae={
        "block_out_channels": (4, 6, 10),
        "layers_per_block": 1,
        "latent_channels": 12,
        "norm_num_groups": 2,
        "sample_size": 40,
        "scaling_factor": 0.9,
        "shift_factor": -0.2,
    },
    clip_l={
        "hidden_size": 20,
        "intermediate_size": 36,
        "projection_dim": 18,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
    },
    clip_g={
        "hidden_size": 28,
        "intermediate_size": 44,
        "projection_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    t5={
        "d_model": 56,
        "d_kv": 6,
        "d_ff": 40,
        "num_layers": 3,
        "num_heads": 5,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 20,
    },
    shift=1.7,
    dtype=torch.float16,
    prompts=["a red star on a blue circle", "", " ".join(["a blue circle on a red star"] * 14)],
    negative="blue",
    t5_length=11,
    long_t5_length=45,
    latents={"tall": (14, 6)},
    timesteps={"tall": 331.0},
    images={"tall": (40, 24)},
    txt2img={
        "tall": {"height": 56, "width": 24, "seed": 7, "guidance": 3.0, "t5": True, "steps": 7},
        "no_t5": {"height": 32, "width": 40, "seed": 8, "guidance": 6.5, "t5": False, "steps": 3},
    },
    img2img={"wide": {"height": 24, "width": 48, "seed": 9, "steps": 9, "strength": 0.7, "guidance": 2.5}},
)


def new_model(configuration):
    transformer = SD3Transformer2DModel(patch_size=2, qk_norm="rms_norm", **configuration.transformer)
    levels = len(configuration.vae["block_out_channels"])
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **configuration.vae,
    )
    return transformer, vae


def new_text_encoders(configuration, tokenizers):
    def clip(tokenizer, activation, dimensions):
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=77,
            hidden_act=activation,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **dimensions,
        )
        return CLIPTextModelWithProjection(config)

    t5 = T5Config(vocab_size=len(tokenizers[2]), feed_forward_proj="gated-gelu", **configuration.t5)
    return (
        clip(tokenizers[0], "quick_gelu", configuration.clip_l),
        clip(tokenizers[1], "gelu", configuration.clip_g),
        T5EncoderModel(t5),
    )


@torch.no_grad()
def randomise(model, generator):
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point():
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if name == "pos_embed.pos_embed":
            weight += 0.1 * noise
        elif name.endswith(TABLES):
            weight.copy_(0.5 * noise)
        elif weight.dim() >= 2:
            gain = 1.5 if "norm" in name else 1.0
            weight.copy_(gain * noise * weight[0].numel() ** -0.5)
        elif name.endswith("weight"):
            weight.copy_(1 + 0.2 * noise)
        else:
            weight.copy_(0.1 * noise)


def save_model(configuration, folder):
    """Writes a model in the layout of diffusers."""

    def save_tokenizers():
        tiny_tokenizers.save_all(folder, 77, 512, configuration.words)

    save_tokenizers()
    tokenizers = tiny_tokenizers.load_all(folder)
    torch.manual_seed(configuration.seed)
    generator = torch.Generator().manual_seed(configuration.seed)
    transformer, vae = new_model(configuration)
    encoders = new_text_encoders(configuration, tokenizers)
    for model in (transformer, vae, *encoders):
        randomise(model, generator)
    with torch.no_grad():
        # Keeps most pixels inside 0..255, because clamping would hide mistakes.
        vae.decoder.conv_out.weight *= 0.3
    for model in (transformer, vae, *encoders):
        model.to(configuration.dtype)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=configuration.shift),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1],
        text_encoder_3=encoders[2],
        tokenizer_3=tokenizers[2],
    )
    pipeline.save_pretrained(folder)
    # As in the full model, the third encoder is in two files with an index.
    t5 = folder / "text_encoder_3"
    size = (t5 / "model.safetensors").stat().st_size
    shutil.rmtree(t5)
    encoders[2].save_pretrained(t5, max_shard_size=size * 6 // 10)
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        shutil.rmtree(folder / name)
    save_tokenizers()
