"""Measures diffusers and torch with the widths of Stable Diffusion 3.5 Medium, random weights and f32.

Prints `ready` after a warm-up run. Then computes once for each line of its standard input and prints the time in
seconds.
"""

import argparse
import sys
import time

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

# 77 tokens of CLIP and 256 of T5.
TEXT_TOKENS = 333


def denoiser(blocks, size, _channels_last):
    model = SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        num_layers=blocks,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        out_channels=16,
        # The full model has 384. The size of this table does not affect the time, and 128 is enough for 2048 pixels.
        pos_embed_max_size=128,
        dual_attention_layers=tuple(range(blocks // 2)),
        qk_norm="rms_norm",
    ).eval()
    inputs = {
        "hidden_states": torch.randn(1, 16, size // 8, size // 8),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, 4096),
        "pooled_projections": torch.randn(1, 2048),
    }
    return lambda: model(**inputs)


def vae(_blocks, size, channels_last):
    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    latents = torch.randn(1, 16, size // 8, size // 8)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        latents = latents.to(memory_format=torch.channels_last)
    return lambda: model.decode(latents)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["denoiser", "vae"])
    parser.add_argument("--blocks", type=int, default=4, help="denoiser blocks, half with a second self-attention")
    parser.add_argument("--size", type=int, default=512, help="width and height of the image in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="use the channels-last memory layout in the VAE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = {"denoiser": denoiser, "vae": vae}[args.part](args.blocks, args.size, args.channels_last)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        print(f"{time.perf_counter() - started:.4f}", flush=True)


if __name__ == "__main__":
    main()
