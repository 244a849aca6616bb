"""Writes the latents of images with diffusers' first-block cache: first_block_cache.safetensors.

    python first_block_cache_golden.py crates/lumenfall-diffusion/tests/golden

golden.py must have written the model before. diffusers' cache fails at the last block of SD3, which returns no text tokens, and the
pipeline of SD3 computes both prompts in one batch, for which it would decide together. Here the last block returns its text tokens, which
nothing uses, and each prompt has a forward pass and a cache context of its own.
"""

import argparse
import logging
from pathlib import Path

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    StableDiffusion3Pipeline,
)
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from diffusers.hooks.hooks import CacheContext, _set_cache_context
from safetensors.torch import save_file

SHIFT = 3.0
SEED = 7
STEPS = 12


def add_cache(transformer, threshold):
    """Adds the cache to a transformer, and returns the list of forward passes: whether each left out blocks."""
    last, forward = transformer.transformer_blocks[-1], transformer.forward
    last_forward = last.forward
    calls = []

    def keep_text(hidden_states, encoder_hidden_states, **further):
        calls[-1] = False
        _, hidden_states = last_forward(hidden_states=hidden_states, encoder_hidden_states=encoder_hidden_states, **further)
        return encoder_hidden_states, hidden_states

    def forward_each(hidden_states, timestep, encoder_hidden_states, pooled_projections, skip_layers=None, **further):
        names = ["skip"] if skip_layers else ["uncond", "cond"][-len(hidden_states) :]
        outputs = []
        for index, name in enumerate(names):
            _set_cache_context(transformer, CacheContext(name))
            one = slice(index, index + 1)
            calls.append(True)
            outputs += forward(
                hidden_states=hidden_states[one],
                timestep=timestep[one],
                encoder_hidden_states=encoder_hidden_states[one],
                pooled_projections=pooled_projections[one],
                skip_layers=skip_layers,
                **further,
            )
        return (torch.cat(outputs),)

    last.forward = keep_text
    apply_first_block_cache(transformer, FirstBlockCacheConfig(threshold=threshold))
    transformer.forward = forward_each
    return calls


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    euler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    skip_layers = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.8}
    tensors = {}
    for name, scheduler, threshold, options in (
        ("euler", euler, 0.75, {}),
        ("heun", FlowMatchHeunDiscreteScheduler(shift=SHIFT), 0.2, {}),
        ("skip_layers", euler, 0.9, skip_layers),
        ("no_guidance", euler, 0.95, {"guidance_scale": 1.0}),
    ):
        pipeline = StableDiffusion3Pipeline.from_pretrained(folder / "model")
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = scheduler
        calls = add_cache(pipeline.transformer, threshold)
        result = pipeline(
            "a red circle",
            negative_prompt="blue",
            height=32,
            width=48,
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(SEED),
            max_sequence_length=32,
            output_type="latent",
            **{"guidance_scale": 4.5} | options,
        )
        print(f"{name}: {sum(calls)} of {len(calls)} forward passes left out blocks")
        tensors[name] = result.images
        tensors[f"{name}.threshold"] = torch.tensor([threshold])
        tensors[f"{name}.skipped"] = torch.tensor([float(sum(calls))])
    save_file(
        {name: tensor.float().contiguous() for name, tensor in tensors.items()},
        folder / "first_block_cache.safetensors",
    )


if __name__ == "__main__":
    main()
