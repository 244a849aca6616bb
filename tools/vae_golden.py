"""Writes reference values of autoencoders, computed by diffusers in f32.

`vae_wide.safetensors` is of an autoencoder with more channels than the golden model. Its weights are those of
`Weights::random()` in lumenfall-diffusion, so that no file has to contain them. `photographs.safetensors` contains parts of
photographs, and their latents and reconstructions by the golden model.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from skimage import data
from sklearn.datasets import load_sample_image

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


def wide(folder):
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
    save(tensors, folder / "vae_wide.safetensors")


def photographs(folder):
    vae = AutoencoderKL.from_pretrained(folder / "model" / "vae", torch_dtype=torch.float32).eval()
    parts = {
        "astronaut": data.astronaut()[64:128, 192:240],
        "china": load_sample_image("china.jpg")[150:198, 240:304],
        "flower": load_sample_image("flower.jpg")[180:244, 300:364],
    }
    tensors = {}
    for name, pixels in parts.items():
        image = torch.from_numpy(pixels.astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]
        posterior = vae.encode(image).latent_dist
        tensors |= {
            f"{name}.pixels": torch.from_numpy(pixels.copy()),
            f"{name}.mean": posterior.mean,
            f"{name}.logvar": posterior.logvar,
            f"{name}.decoded": vae.decode(posterior.mean).sample,
        }
    save(tensors, folder / "photographs.safetensors")


def save(tensors, path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the golden values")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    wide(folder)
    photographs(folder)


if __name__ == "__main__":
    main()
