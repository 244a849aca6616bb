"""Writes a LoRA of the demonstration model that swaps red and blue.

    python demo_lora.py crates/lumenfall-diffusion/demo docs/swap.safetensors

It is not trained. The latents of two images that differ in red and blue only are swapped by a reflection of the latent
space, which changes noise to other noise. The LoRA reflects the denoiser's input and output.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import save_file

# The values of red, green and blue of an image of one colour.
COLOUR = (0.8, -0.6, -0.8)
PATCH = 4


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(args.model / "vae")
    image = torch.tensor(COLOUR).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    latents = vae.encode(torch.cat([image, image.flip(1)])).latent_dist.mean.mean((2, 3))
    axis = latents[0] - latents[1]
    axis /= axis.norm()
    denoiser = SD3Transformer2DModel.from_pretrained(args.model / "transformer")
    # The input is a convolution of patches [channels, 2, 2]; the output has the patches [2, 2, channels].
    inputs = torch.einsum("c,pq->pcq", axis, torch.eye(PATCH)).flatten(1)
    outputs = torch.einsum("c,pq->pqc", axis, torch.eye(PATCH)).flatten(1)
    embedding, output = denoiser.pos_embed.proj.weight.flatten(1), denoiser.proj_out
    tensors = {
        "pos_embed.proj.lora_A.weight": inputs.view(PATCH, -1, 2, 2),
        "pos_embed.proj.lora_B.weight": -2 * (embedding @ inputs.T).view(*embedding.shape[:1], PATCH, 1, 1),
        "proj_out.lora_A.weight": outputs @ output.weight,
        "proj_out.lora_B.weight": -2 * outputs.T,
        "proj_out.diff_b": -2 * outputs.T @ (outputs @ output.bias),
    }
    save_file({f"transformer.{name}": tensor.contiguous() for name, tensor in tensors.items()}, args.file)


if __name__ == "__main__":
    main()
