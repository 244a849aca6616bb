"""Writes the reference values of the samplers, schedules, guidance and noise: sampling.safetensors.

    python sampling_golden.py crates/lumenfall-diffusion/tests/golden

The schedulers, guiders and pipeline are those of diffusers; golden.py must have written the model before. DPM-Solver++(2M) in the form of k-diffusion, ancestral Euler for flow models,
two schedules of ComfyUI, and the random numbers have no reference there and are computed here from their definitions.
"""

import argparse
import logging
import math
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
)
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    SkipLayerGuidance,
)
from diffusers.schedulers import scheduling_flow_match_lcm
from safetensors.torch import save_file

COUNTS = [1, 2, 8, 28]
SAMPLED = [1, 2, 8]
STRENGTH = 0.6
VALUES = 64
SHIFT = 3.0
SEED = 7
FLOW = {
    "use_flow_sigmas": True,
    "flow_shift": SHIFT,
    "prediction_type": "flow_prediction",
}
MASK = 2**32 - 1


def velocity(x, timestep):
    """A nonlinear function of each value, its right neighbour and the timestep."""
    return torch.tanh(0.7 * x + 0.3 * torch.roll(x, -1) + timestep / 1000)


def schedules():
    """Yields the name of each schedule with its sigmas and timesteps for each number of steps."""
    euler = {
        "shifted": {},
        "karras": {"use_karras_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
        "terminal": {"shift_terminal": 0.1},
        "terminal_karras": {"shift_terminal": 0.1, "use_karras_sigmas": True},
        "dynamic_exponential": {
            "use_dynamic_shifting": True,
            "time_shift_type": "exponential",
        },
        "dynamic_linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    }
    for n in COUNTS:
        for name, options in euler.items():
            if n == 1 and "terminal" in name:
                continue  # diffusers divides 0 by 0
            scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT, **options)
            scheduler.set_timesteps(n, mu=0.83 if "dynamic" in name else None)
            yield f"{name}.{n}", scheduler.sigmas, scheduler.timesteps
        dynamic = FLOW | {"use_dynamic_shifting": True}
        for name, scheduler in {
            "dpm_solver": DPMSolverMultistepScheduler(**FLOW),
            "uni_pc": UniPCMultistepScheduler(**FLOW),
            "dpm_solver_dynamic": DPMSolverMultistepScheduler(**dynamic),
            "uni_pc_dynamic": UniPCMultistepScheduler(**dynamic),
            "uni_pc_terminal": UniPCMultistepScheduler(**FLOW, shift_terminal=0.1),
        }.items():
            if n == 1 and "terminal" in name:
                continue
            scheduler.set_timesteps(n, mu=0.83 if "dynamic" in name else None)
            yield f"{name}.{n}", scheduler.sigmas, scheduler.timesteps.float()
        for name, sigmas in {
            "sgm_uniform": sgm_uniform(n),
            "simple": simple(n),
        }.items():
            yield f"{name}.{n}", sigmas, sigmas[:-1] * 1000


def shifted(time):
    return SHIFT * time / (1 + (SHIFT - 1) * time)


def sgm_uniform(n):
    times = torch.linspace(1000, 1000 * shifted(0.001), n + 1)[:-1] / 1000
    return torch.cat([shifted(times), torch.zeros(1)])


def simple(n):
    table = shifted(torch.arange(1, 1001) / 1000)
    return torch.cat(
        [
            torch.stack([table[-(1 + int(i * 1000 / n))] for i in range(n)]),
            torch.zeros(1),
        ]
    )


def run_diffusers(scheduler, n, latent, skipped, noises=None):
    """Returns the latents after each step of a scheduler of diffusers, from step `skipped` on."""
    order = scheduler.order
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(skipped * order)
    latent, latents = latent[None], []
    for index, timestep in enumerate(scheduler.timesteps[skipped * order :]):
        predicted = velocity(latent, timestep)
        # The LCM scheduler draws its noise itself.
        noise = None if noises is None else noises[index, None]
        with mock.patch.object(
            scheduling_flow_match_lcm, "randn_tensor", return_value=noise
        ):
            latent = scheduler.step(predicted, timestep, latent).prev_sample
        # Heun completes each step but the last with a second prediction, which has an odd index.
        if order == 1 or index % 2 == 1 or timestep == scheduler.timesteps[-1]:
            latents.append(latent[0])
    return torch.stack(latents)


def run_euler(sigmas, latent, velocity):
    """Euler's method."""
    for sigma, following in zip(sigmas, sigmas[1:]):
        latent = latent + (following - sigma) * velocity(latent, sigma * 1000)
    return latent


def run_dpmpp_2m(sigmas, latent, velocity=velocity):
    """sample_dpmpp_2m of k-diffusion."""
    latents, previous = [], None
    for i in range(len(sigmas) - 1):
        denoised = latent - sigmas[i] * velocity(latent, sigmas[i] * 1000)
        h = sigmas[i].log() - sigmas[i + 1].log()
        blended = denoised
        if previous is not None and sigmas[i + 1] > 0:
            r = (sigmas[i - 1].log() - sigmas[i].log()) / h
            blended = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * previous
        latent = sigmas[i + 1] / sigmas[i] * latent - torch.expm1(-h) * blended
        previous = denoised
        latents.append(latent)
    return torch.stack(latents)


def run_ancestral(sigmas, latent, noises, velocity=velocity):
    """sample_euler_ancestral_RF of ComfyUI with eta 1."""
    latents = []
    for i in range(len(sigmas) - 1):
        sigma, following = sigmas[i], sigmas[i + 1]
        denoised = latent - sigma * velocity(latent, sigma * 1000)
        if following == 0:
            latent = denoised
        else:
            down = following * (1 + (following / sigma - 1) * 1.0)
            kept = down / sigma
            scale = (1 - following) / (1 - down)
            added = (following**2 - down**2 * scale**2) ** 0.5
            latent = scale * (kept * latent + (1 - kept) * denoised) + noises[i] * added
        latents.append(latent)
    return torch.stack(latents)


def samplers(latent, noises):
    """Yields the name of each run with the latents after its steps."""
    runs = [(str(n), n, 0) for n in SAMPLED] + [("strength", 8, int(8 - 8 * STRENGTH))]
    for label, n, skipped in runs:
        schedulers = {
            "euler": (FlowMatchEulerDiscreteScheduler(shift=SHIFT), None),
            "heun": (FlowMatchHeunDiscreteScheduler(shift=SHIFT), None),
            "lcm": (FlowMatchLCMScheduler(shift=SHIFT), noises),
            "dpmpp_2m_flow": (DPMSolverMultistepScheduler(**FLOW), None),
            "uni_pc": (UniPCMultistepScheduler(**FLOW), None),
        }
        for name, (scheduler, noise) in schedulers.items():
            yield f"{name}.{label}", run_diffusers(scheduler, n, latent, skipped, noise)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
        scheduler.set_timesteps(n)
        sigmas = scheduler.sigmas[skipped:]
        yield f"dpmpp_2m.{label}", run_dpmpp_2m(sigmas, latent)
        yield f"euler_ancestral.{label}", run_ancestral(sigmas, latent, noises)


def new_guiders():
    """Returns the guiders by their names."""
    projected = {
        "guidance_scale": 4.5,
        "eta": 0.3,
        "adaptive_projected_guidance_rescale": 2.5,
    }
    layers = {
        "guidance_scale": 4.5,
        "skip_layer_guidance_layers": [7, 8, 9],
        "skip_layer_guidance_stop": 0.75,
    }
    return {
        "plain": ClassifierFreeGuidance(guidance_scale=4.5),
        "interval": ClassifierFreeGuidance(guidance_scale=4.5, start=0.25, stop=0.75),
        "rescale": ClassifierFreeGuidance(guidance_scale=4.5, guidance_rescale=0.7),
        "zero_star": ClassifierFreeZeroStarGuidance(
            guidance_scale=4.5, zero_init_steps=1
        ),
        "projected": AdaptiveProjectedGuidance(**projected),
        "momentum": AdaptiveProjectedGuidance(
            **projected, adaptive_projected_guidance_momentum=-0.5
        ),
        "skip_layers": SkipLayerGuidance(**layers),
        "skip_layers_rescale": SkipLayerGuidance(**layers, guidance_rescale=0.7),
    }


def guiders(cond, uncond, skip):
    """Yields the name of each guider with its results for the steps of four predictions."""
    for name, guider in new_guiders().items():
        results = []
        for step in range(4):
            guider.set_state(step=step, num_inference_steps=4, timestep=torch.tensor(0))
            guider.prepare_inputs({"x": (cond[step, None], uncond[step, None])})
            predictions = [cond[step, None], uncond[step, None]]
            if isinstance(guider, SkipLayerGuidance):
                predictions.append(skip[step, None])
            results.append(guider.forward(*predictions).pred[0])
        yield name, torch.stack(results)


def images(folder):
    """Yields the inputs of the golden model, and its latents after 8 steps of diffusers' pipeline with each scheduler."""
    generator = torch.Generator().manual_seed(21)
    context, pooled = (
        torch.randn(2, 1, 10, 64, generator=generator),
        torch.randn(2, 1, 40, generator=generator),
    )
    latent, noises = (
        torch.randn(1, 16, 4, 6, generator=generator),
        torch.randn(8, 1, 16, 4, 6, generator=generator),
    )
    yield from {
        "context": context,
        "pooled": pooled,
        "latent": latent,
        "noises": noises,
    }.items()
    transformer = SD3Transformer2DModel.from_pretrained(folder / "model/transformer")
    skip_layers = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.5}
    for name, scheduler, options in (
        ("euler", FlowMatchEulerDiscreteScheduler(shift=SHIFT), {}),
        (
            "karras",
            FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_karras_sigmas=True),
            {},
        ),
        ("heun", FlowMatchHeunDiscreteScheduler(shift=SHIFT), {}),
        ("dpmpp_2m_flow", DPMSolverMultistepScheduler(**FLOW), {}),
        ("uni_pc", UniPCMultistepScheduler(**FLOW), {}),
        ("lcm", FlowMatchLCMScheduler(shift=SHIFT), {"guidance_scale": 1.0}),
        ("skip_layers", FlowMatchEulerDiscreteScheduler(shift=SHIFT), skip_layers),
    ):
        parts = dict.fromkeys(
            (
                "vae",
                "text_encoder",
                "tokenizer",
                "text_encoder_2",
                "tokenizer_2",
                "text_encoder_3",
                "tokenizer_3",
            )
        )
        pipeline = StableDiffusion3Pipeline(
            transformer=transformer, scheduler=scheduler, **parts
        )
        pipeline.set_progress_bar_config(disable=True)
        with mock.patch.object(
            scheduling_flow_match_lcm, "randn_tensor", side_effect=list(noises)
        ):
            result = pipeline(
                prompt_embeds=context[0],
                pooled_prompt_embeds=pooled[0],
                negative_prompt_embeds=context[1],
                negative_pooled_prompt_embeds=pooled[1],
                latents=latent,
                height=32,
                width=48,
                num_inference_steps=8,
                output_type="latent",
                **{"guidance_scale": 4.5} | options,
            )
        yield name, result.images

    def predict(prompt, latent, timestep):
        return transformer(
            hidden_states=latent,
            timestep=timestep[None],
            encoder_hidden_states=context[prompt],
            pooled_projections=pooled[prompt],
        ).sample

    def guided(latent, timestep):
        conditional, unconditional = (predict(prompt, latent, timestep) for prompt in (0, 1))
        return unconditional + 4.5 * (conditional - unconditional)

    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    scheduler.set_timesteps(8)
    sigmas = scheduler.sigmas
    yield "dpmpp_2m", run_dpmpp_2m(sigmas, latent, guided)[-1]
    yield "euler_ancestral", run_ancestral(sigmas, latent, noises, guided)[-1]
    for name, guider in new_guiders().items():
        if isinstance(guider, SkipLayerGuidance):
            continue  # the pipeline has its own

        def of_guider(latent, timestep, guider=guider):
            step = int((sigmas * 1000 - timestep).abs().argmin())
            guider.set_state(step=step, num_inference_steps=8, timestep=timestep)
            predictions = [predict(prompt, latent, timestep) for prompt in (0, 1)]
            guider.prepare_inputs({"x": predictions})
            return guider.forward(*predictions).pred

        yield f"guidance.{name}", run_euler(sigmas, latent, of_guider)


def prompted(folder):
    """Yields the latents of diffusers' whole pipeline after 8 steps from a prompt and a seed, or from given latents."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder / "model")
    pipeline.set_progress_bar_config(disable=True)
    euler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    skip_layers = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.5}
    latents = torch.randn(
        1, 16, 4, 6, generator=torch.Generator().manual_seed(SEED + 1)
    )
    yield "own_latents", latents
    for name, scheduler, options in (
        ("euler", euler, {}),
        ("heun", FlowMatchHeunDiscreteScheduler(shift=SHIFT), {}),
        ("dpmpp_2m_flow", DPMSolverMultistepScheduler(**FLOW), {}),
        ("uni_pc", UniPCMultistepScheduler(**FLOW), {}),
        ("lcm", FlowMatchLCMScheduler(shift=SHIFT), {"guidance_scale": 1.0}),
        ("skip_layers", euler, skip_layers),
        ("latents", euler, {"latents": latents}),
    ):
        pipeline.scheduler = scheduler
        own = torch.Generator().manual_seed(SEED)

        # The pipeline does not pass its generator to the scheduler.
        def draw(shape, own=own, **_):
            return torch.randn(shape, generator=own)

        with mock.patch.object(scheduling_flow_match_lcm, "randn_tensor", draw):
            result = pipeline(
                "a red circle",
                negative_prompt="blue",
                height=32,
                width=48,
                num_inference_steps=8,
                generator=own,
                max_sequence_length=32,
                output_type="latent",
                **{"guidance_scale": 4.5} | options,
            )
        yield name, result.images


def philox(counter, key):
    """Philox4x32-10 of a counter of four words and a key of two words."""
    counter, key = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & MASK,
            (first >> 32) ^ counter[3] ^ key[1],
            first & MASK,
        ]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return counter


def portable_noise(seed, count):
    values = []
    for pair in range((count + 1) // 2):
        words = philox([pair & MASK, pair >> 32, 0, 0], [seed & MASK, seed >> 32])
        u = (((words[0] << 32 | words[1]) >> 11) + 1) / 2**53
        v = ((words[2] << 32 | words[3]) >> 11) / 2**53
        radius = math.sqrt(-2 * math.log(u))
        values += [radius * math.cos(math.tau * v), radius * math.sin(math.tau * v)]
    return torch.tensor(values[:count], dtype=torch.float32)


def cuda_noise(seed, counts, max_threads):
    """torch's CUDA kernel, thread by thread, for consecutive calls of randn."""
    offset, results = 0, []
    for count in counts:
        threads = min(-(-count // 256) * 256, max_threads)
        values = np.zeros(count, np.float32)
        for thread in range(threads):
            starts = range(
                thread, -(-count // (threads * 4)) * threads * 4, threads * 4
            )
            for calls, start in enumerate(starts):
                position = offset // 4 + calls
                words = philox(
                    [position & MASK, position >> 32, thread, 0],
                    [seed & MASK, seed >> 32],
                )
                normals = []
                for x, y in (words[:2], words[2:]):
                    u, v = (x + 0.5) / 2**32, (y + 0.5) / 2**32 * math.tau
                    radius = math.sqrt(-2 * math.log(u))
                    normals += [radius * math.sin(v), radius * math.cos(v)]
                for unrolled, value in enumerate(normals):
                    if start + threads * unrolled < count:
                        values[start + threads * unrolled] = value
        offset += ((count - 1) // (threads * 4) + 1) * 4
        results.append(torch.from_numpy(values))
    return results


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(VALUES, generator=generator)
    noises = torch.randn(max(SAMPLED), VALUES, generator=generator)
    predictions = torch.randn(3, 4, VALUES, generator=generator)
    tensors = {"latent": latent, "noises": noises, "predictions": predictions}
    for name, sigmas, timesteps in schedules():
        tensors[f"schedule.{name}"], tensors[f"timesteps.{name}"] = sigmas, timesteps
    tensors |= {
        f"sampler.{name}": latents for name, latents in samplers(latent, noises)
    }
    tensors |= {f"guidance.{name}": results for name, results in guiders(*predictions)}
    tensors |= {f"image.{name}": value for name, value in images(folder)}
    tensors |= {f"prompt.{name}": value for name, value in prompted(folder)}
    for seed in (0, 2**64 - 5):
        tensors[f"portable.{seed}"] = portable_noise(seed, 200)
        tensors[f"cuda.{seed}.first"], tensors[f"cuda.{seed}.second"] = cuda_noise(
            seed, [2100, 300], 256
        )
    save_file(
        {name: tensor.float().contiguous() for name, tensor in tensors.items()},
        folder / "sampling.safetensors",
    )


if __name__ == "__main__":
    main()
