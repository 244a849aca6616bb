"""Writes a tiny autoencoder with random weights, and what diffusers decodes with it: tiny_decoder/.

    python tiny_decoder_golden.py crates/lumenfall-diffusion/tests/golden

`diffusers.safetensors` has the names of `AutoencoderTiny`, `original.safetensors` those of the author's decoder, a `torch.nn.Sequential`.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from safetensors.torch import save_file
from torch import nn

WIDTH = 8


class Clamp(nn.Module):
    def forward(self, x):
        return 3 * torch.tanh(x / 3)


def original(channels):
    """The decoder of https://github.com/madebyollin/taesd."""

    def conv(inputs, outputs, bias=True):
        return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)

    def blocks(count):
        return [AutoencoderTinyBlock(WIDTH, WIDTH, "relu") for _ in range(count)]

    layers = [Clamp(), conv(channels, WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [*blocks(3), nn.Upsample(scale_factor=2), conv(WIDTH, WIDTH, bias=False)]
    return nn.Sequential(*layers, *blocks(1), conv(WIDTH, 3))


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder / "tiny_decoder"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    widths = (WIDTH,) * 4
    vae = AutoencoderTiny(
        latent_channels=16, encoder_block_out_channels=widths, decoder_block_out_channels=widths
    ).eval()
    for parameter in vae.parameters():
        # Rounded to 16 bits, as in the files.
        parameter.copy_((1.5 * parameter).half())
    decoder = original(16)
    names = dict(zip(vae.decoder.state_dict(), decoder.state_dict(), strict=True))
    decoder.load_state_dict({names[name]: value for name, value in vae.decoder.state_dict().items()})
    latent = 2 * torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    decoded = vae.decode(latent).sample
    assert torch.equal(decoded, 2 * decoder(latent) - 1)
    for name, values in {
        "diffusers": {name: value.half() for name, value in vae.state_dict().items()},
        "original": {name: value.half() for name, value in decoder.state_dict().items()},
        "values": {"latent": latent, "decoded": decoded},
    }.items():
        save_file({name: value.contiguous() for name, value in values.items()}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
