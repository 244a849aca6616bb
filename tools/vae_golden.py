"""Writes the reference values of an autoencoder with more channels than the golden model, computed by diffusers in f32.

The weights are those of `Weights::random()` in lumenfall-diffusion, so that no file has to contain them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

MASK = 2**64 - 1


def random_values(name, shape):
    state = 0x9E37_79B9_7F4A_7C15
    for byte in name.encode():
        state = (state ^ byte) * 0x0100_0000_01B3 & MASK
    values = np.empty(shape.numel(), np.float32)
    for i in range(len(values)):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) & MASK
        values[i] = state >> 40
    bound = np.sqrt(np.float32(3) / np.float32(max(shape[1:].numel(), 1)))
    return torch.from_numpy((values / np.float32(2**23) - np.float32(1)) * bound).reshape(shape)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the file `vae_wide.safetensors`")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    weights = {name: random_values(name, tensor.shape) for name, tensor in vae.state_dict().items()}
    vae.load_state_dict(weights)
    latents = torch.randn(1, 16, 19, 26, generator=torch.Generator().manual_seed(0))
    image = torch.randn(1, 3, 38, 52, generator=torch.Generator().manual_seed(1))
    tensors = {
        "latents": latents,
        "decoded": vae.decode(latents).sample,
        "image": image,
        "mean": vae.encode(image).latent_dist.mean,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "vae_wide.safetensors")


if __name__ == "__main__":
    main()
