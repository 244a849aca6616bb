"""Writes the golden values for the tests of the Rust pipeline, computed by diffusers in f32 with two tiny models.

README.md describes each tensor.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline, StableDiffusion3Pipeline
from PIL import Image
from safetensors.torch import save_file

from golden_models import FIRST, SECOND, save_model


class Scenarios:
    def __init__(self, configuration, folder):
        save_model(configuration, folder / "model")
        self.pipeline = StableDiffusion3Pipeline.from_pretrained(folder / "model", torch_dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.configuration, self.folder, self.parameters = configuration, folder, {}

    def save(self, name, tensors, parameters):
        tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
        save_file(tensors, self.folder / f"{name}.safetensors")
        self.parameters[name] = parameters

    def save_parameters(self):
        text = json.dumps(self.parameters, indent=1, ensure_ascii=False)
        (self.folder / "golden.json").write_text(text + "\n")

    def text(self):
        pipe, tensors = self.pipeline, {}
        prompts, t5_length = self.configuration.prompts, self.configuration.t5_length
        for i, prompt in enumerate(prompts):
            ids = {}
            for which, tokenizer, length in (
                ("clip_l", pipe.tokenizer, 77),
                ("clip_g", pipe.tokenizer_2, 77),
                ("t5", pipe.tokenizer_3, t5_length),
            ):
                ids[which] = tokenizer(
                    prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
                ).input_ids
                tensors[f"{i}.{which}.ids"] = ids[which]
            for which, encoder in (("clip_l", pipe.text_encoder), ("clip_g", pipe.text_encoder_2)):
                out = encoder(ids[which], output_hidden_states=True)
                tensors[f"{i}.{which}.penultimate"] = out.hidden_states[-2]
                tensors[f"{i}.{which}.pooled"] = out.text_embeds
            tensors[f"{i}.t5.output"] = pipe.text_encoder_3(ids["t5"])[0]
        for i in (0, len(prompts) - 1):
            tensors[f"{i}.prompt_embeds"], tensors[f"{i}.pooled_prompt_embeds"] = self.encode(pipe, prompts[i])
        no_t5 = self.encode(self.without_t5(), prompts[0])
        tensors["no_t5.prompt_embeds"], tensors["no_t5.pooled_prompt_embeds"] = no_t5
        # The long prompt has relative positions beyond the last bucket.
        long = self.configuration.long_t5_length
        ids = pipe.tokenizer_3(prompts[-1], padding="max_length", max_length=long, truncation=True, return_tensors="pt")
        tensors["long.t5.ids"] = ids.input_ids
        tensors["long.t5.output"] = pipe.text_encoder_3(ids.input_ids)[0]
        self.save("text", tensors, {"prompts": prompts, "t5_length": t5_length, "long_t5_length": long})

    def encode(self, pipe, prompt):
        embeds, _, pooled, _ = pipe.encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False, max_sequence_length=self.configuration.t5_length
        )
        return embeds, pooled

    def without_t5(self):
        return StableDiffusion3Pipeline(**self.pipeline.components | {"text_encoder_3": None, "tokenizer_3": None})

    def denoiser(self):
        model, tensors = self.pipeline.transformer, {}
        generator = torch.Generator().manual_seed(11)
        sizes, timesteps = self.configuration.latents, self.configuration.timesteps
        config, text_length = model.config, 77 + self.configuration.t5_length
        for name, (height, width) in sizes.items():
            inputs = {
                "latents": torch.randn(2, config.in_channels, height, width, generator=generator),
                "context": torch.randn(2, text_length, config.joint_attention_dim, generator=generator),
                "pooled": torch.randn(2, config.pooled_projection_dim, generator=generator),
                "timestep": torch.tensor([timesteps[name]] * 2),
            }
            tensors |= {f"{name}.{key}": value for key, value in inputs.items()}
            hooks = []
            for key, module in (("temb", model.time_text_embed), ("patches", model.pos_embed)):
                hooks.append(module.register_forward_hook(keep(tensors, f"{name}.{key}")))
            for i, block in enumerate(model.transformer_blocks):
                hooks.append(
                    block.register_forward_hook(keep(tensors, f"{name}.block{i}.context", f"{name}.block{i}.hidden"))
                )
            tensors[f"{name}.output"] = model(
                hidden_states=inputs["latents"],
                timestep=inputs["timestep"],
                encoder_hidden_states=inputs["context"],
                pooled_projections=inputs["pooled"],
            ).sample
            tensors[f"{name}.pos_embed"] = model.pos_embed.cropped_pos_embed(height, width)
            for hook in hooks:
                hook.remove()
        self.save("denoiser", tensors, {"sizes": sizes, "timesteps": timesteps})

    def vae(self):
        vae, tensors = self.pipeline.vae, {}
        generator = torch.Generator().manual_seed(12)
        sizes, scale = self.configuration.images, self.pipeline.vae_scale_factor
        for name, (height, width) in sizes.items():
            shape = (1, vae.config.latent_channels, height // scale, width // scale)
            latents = torch.randn(shape, generator=generator)
            image = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
            posterior = vae.encode(image).latent_dist
            tensors |= {
                f"{name}.latents": latents,
                f"{name}.decoded": vae.decode(latents).sample,
                f"{name}.picture": image,
                f"{name}.mean": posterior.mean,
                f"{name}.logvar": posterior.logvar,
                f"{name}.sample": posterior.sample(torch.Generator().manual_seed(13)),
            }
        self.save("vae", tensors, {"sizes": sizes, "sample_seed": 13})

    def texts(self):
        configuration = self.configuration
        return {
            "prompt": configuration.prompts[0],
            "negative": configuration.negative,
            "t5_length": configuration.t5_length,
        }

    def txt2img(self):
        runs, tensors = self.configuration.txt2img, {}
        for name, run in runs.items():
            run |= self.texts()
            pipe = self.pipeline if run["t5"] else self.without_t5()
            with recorded(pipe.scheduler, tensors, name):
                images = pipe(
                    run["prompt"],
                    negative_prompt=run["negative"],
                    height=run["height"],
                    width=run["width"],
                    num_inference_steps=run["steps"],
                    guidance_scale=run["guidance"],
                    generator=torch.Generator().manual_seed(run["seed"]),
                    max_sequence_length=run["t5_length"],
                    output_type="np",
                ).images
            keep_schedule(tensors, name, pipe.scheduler)
            if name == "square":
                tensors[f"{name}.decoded"] = torch.from_numpy(images[0]).permute(2, 0, 1)
            tensors[f"{name}.picture"] = torch.from_numpy((images[0] * 255).round().astype(np.uint8))
        self.save("txt2img", tensors, runs)

    def img2img(self):
        pipe = StableDiffusion3Img2ImgPipeline(**self.pipeline.components)
        runs, tensors = self.configuration.img2img, {}
        for name, run in runs.items():
            run |= self.texts()
            image = gradient(run["height"], run["width"])
            with recorded(pipe.scheduler, tensors, name):
                output = pipe(
                    run["prompt"],
                    negative_prompt=run["negative"],
                    image=image,
                    height=run["height"],
                    width=run["width"],
                    strength=run["strength"],
                    num_inference_steps=run["steps"],
                    guidance_scale=run["guidance"],
                    generator=torch.Generator().manual_seed(run["seed"]),
                    max_sequence_length=run["t5_length"],
                    output_type="np",
                ).images[0]
            keep_schedule(tensors, name, pipe.scheduler)
            # Like the pipeline, this samples first the posterior and then the noise from one generator.
            generator = torch.Generator().manual_seed(run["seed"])
            preprocessed = pipe.image_processor.preprocess(image, height=run["height"], width=run["width"])
            encoded = pipe.vae.encode(preprocessed).latent_dist.sample(generator)
            encoded = (encoded - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
            noise = torch.randn(encoded.shape, generator=generator)
            sigma = pipe.scheduler.sigmas[int(run["steps"] - run["steps"] * run["strength"])]
            start = sigma * noise + (1 - sigma) * encoded
            torch.testing.assert_close(start, tensors[f"{name}.initial"])
            tensors |= {
                f"{name}.input": torch.from_numpy(np.array(image)),
                f"{name}.preprocessed": preprocessed,
                f"{name}.encoded": encoded,
                f"{name}.noise": noise,
                f"{name}.picture": torch.from_numpy((output * 255).round().astype(np.uint8)),
            }
        self.save("img2img", tensors, runs)

    def scheduler(self):
        counts, tensors = [1, 2, 4, 20, 28, 40], {}
        for n in counts:
            scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
            scheduler.set_timesteps(n)
            tensors[f"{n}.sigmas"], tensors[f"{n}.timesteps"] = scheduler.sigmas, scheduler.timesteps
        self.save("scheduler", tensors, {"shift": 3.0, "steps": counts})

    def rng(self):
        sizes, seeds, tensors = [1, 15, 16, 17, 100, 1000], [0, 42, 2**32 + 5, 2**63 - 1], {}
        for seed in seeds:
            for size in sizes:
                tensors[f"{seed}.{size}"] = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        pairs = [[16, 16], [17, 20], [5, 16], [15, 3], [100, 33]]
        for first, second in pairs:
            generator = torch.Generator().manual_seed(7)
            tensors[f"then.{first}.{second}.first"] = torch.randn(first, generator=generator)
            tensors[f"then.{first}.{second}.second"] = torch.randn(second, generator=generator)
        self.save("rng", tensors, {"seeds": seeds, "sizes": sizes, "then_seed": 7, "then": pairs})


def keep(tensors, *names):
    """Returns a hook that stores a module's outputs under these names."""

    def hook(_module, _inputs, output):
        for name, value in zip(names, output if isinstance(output, tuple) else (output,)):
            if value is not None:
                tensors[name] = value

    return hook


class recorded:
    """A context manager that stores the inputs and outputs of each scheduler step."""

    def __init__(self, scheduler, tensors, name):
        self.scheduler, self.tensors, self.name, self.count = scheduler, tensors, name, 0

    def __enter__(self):
        step = self.scheduler.step

        def recording_step(prediction, timestep, sample, **kwargs):
            prefix = f"{self.name}.step{self.count}"
            self.count += 1
            result = step(prediction, timestep, sample, **kwargs)
            # The input of later steps is the output of the previous step.
            self.tensors.setdefault(f"{self.name}.initial", sample)
            self.tensors[f"{prefix}.prediction"] = prediction
            self.tensors[f"{prefix}.latents"] = result[0]
            return result

        self.scheduler.step = recording_step

    def __exit__(self, *_):
        del self.scheduler.step


def keep_schedule(tensors, name, scheduler):
    tensors[f"{name}.sigmas"] = scheduler.sigmas
    tensors[f"{name}.timesteps"] = scheduler.timesteps


def gradient(height, width):
    """Returns an image without symmetries."""
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 5 + y / 9)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


@torch.no_grad()
def write_8_bit_formats(folder):
    """Writes all finite codes of the 8-bit formats, with torch's values of them."""
    tensors = {}
    for name, dtype in (("f8_e4m3", torch.float8_e4m3fn), ("f8_e5m2", torch.float8_e5m2)):
        codes = torch.arange(256, dtype=torch.uint8).view(dtype)
        codes = codes[codes.float().isfinite()]
        tensors |= {name: codes, f"{name}.values": codes.float()}
    save_file(tensors, folder / "formats.safetensors")


def write_gguf(folder):
    """Writes a GGUF file with a tensor of each format, and the values that the package `gguf` computes of them."""
    rng = np.random.default_rng(11)
    shape = (2, 512)
    plain = rng.standard_normal(shape, dtype=np.float32)
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(folder / "formats.gguf", "sd3")
    # Readers have to skip arrays of text and of numbers, which tokenizers consist of.
    writer.add_array("tokenizer.ggml.tokens", ["a", "longer token", "東京"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0])
    # ComfyUI-GGUF stores tensors of more than four dimensions, or of short rows, in another shape.
    writer.add_array("comfy.gguf.orig_shape.reshaped", [8, 2, 4])
    writer.add_tensor("reshaped", np.arange(64, dtype=np.float32))
    values = {}
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        values[name] = gguf.quants.quantize(plain, types[name])
    # The package cannot quantise to these formats. Any bytes are valid codes; the scales must be finite.
    for name, scales in (("Q2_K", (80, 82)), ("Q3_K", (108,)), ("Q4_K", (0, 2)), ("Q5_K", (0, 2)), ("Q6_K", (208,))):
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[types[name]]
        blocks = rng.integers(0, 256, (plain.size // block_values, block_bytes), dtype=np.uint8)
        for at in scales:
            scale = rng.standard_normal((len(blocks), 1)).astype(np.float16)
            blocks[:, at : at + 2] = scale.view(np.uint8)
        values[name] = blocks.reshape(shape[0], -1)
    expected = {}
    for name, data in values.items():
        writer.add_tensor(name, data, raw_dtype=types[name])
        expected[name] = torch.from_numpy(gguf.quants.dequantize(data, types[name]).reshape(shape).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "formats.gguf.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    # With one thread, the order of sums does not depend on the machine.
    torch.set_num_threads(1)
    first = Scenarios(FIRST, new_folder(folder))
    for make in (first.text, first.denoiser, first.vae, first.txt2img, first.img2img, first.scheduler, first.rng):
        make()
    first.save_parameters()
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        weights = {key: value.to(dtype) for key, value in first.pipeline.text_encoder.state_dict().items()}
        save_file(weights, folder / f"text_encoder.{name}.safetensors")
    second = Scenarios(SECOND, new_folder(folder / "second"))
    for make in (second.text, second.denoiser, second.vae, second.txt2img, second.img2img):
        make()
    second.save_parameters()
    write_8_bit_formats(folder)
    write_gguf(folder)


def new_folder(folder):
    """Deletes the model of an earlier run. The values of other programs stay."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
