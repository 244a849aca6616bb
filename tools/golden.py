"""Writes the golden values for the tests of the Rust pipeline, computed by diffusers in f32.

The model is a tiny Stable Diffusion 3.5. All its weights are random, because the usual initial zeros and ones of gates
and norms would hide mistakes. README.md describes each tensor.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import tiny_tokenizers

PROMPTS = [
    "a red circle on a white background",
    "",
    "A RED Circle, on a White background!!",
    "the artist's drawing: 3 small stars (and 12 crosses), isn't it?",
    "un café déjà vu, naïve Zürich — 東京 🌟",
    "  two\n lines\tand   spaces ",
    " ".join(["a small green square at the top left and a large blue star in the middle"] * 8),
]
PROMPT, NEGATIVE = PROMPTS[0], "blue square"
T5_LENGTH = 32
TABLES = ("_embedding.weight", "shared.weight", "embed_tokens.weight", "relative_attention_bias.weight")


def new_model():
    transformer = SD3Transformer2DModel(
        sample_size=12,
        patch_size=2,
        in_channels=16,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=40,
        out_channels=16,
        pos_embed_max_size=12,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=96,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5305,
        shift_factor=0.0609,
    )
    return transformer, vae


def new_text_encoders(tokenizers):
    def clip(tokenizer, width, activation):
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=77,
            hidden_act=activation,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return CLIPTextModelWithProjection(config)

    t5 = T5Config(
        vocab_size=len(tokenizers[2]),
        d_model=64,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return clip(tokenizers[0], 16, "quick_gelu"), clip(tokenizers[1], 24, "gelu"), T5EncoderModel(t5)


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


def save_model(folder, seed):
    tiny_tokenizers.save_all(folder, 77, 512)
    tokenizers = tiny_tokenizers.load_all(folder)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    transformer, vae = new_model()
    encoders = new_text_encoders(tokenizers)
    for model in (transformer, vae, *encoders):
        randomise(model, generator)
    with torch.no_grad():
        # Keeps most pixels inside 0..255, because clamping would hide mistakes.
        vae.decoder.conv_out.weight *= 0.3
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
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
    tiny_tokenizers.save_all(folder, 77, 512)


class Scenarios:
    def __init__(self, folder, pipeline):
        self.folder, self.pipeline, self.parameters = folder, pipeline, {}

    def save(self, name, tensors, parameters):
        tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
        save_file(tensors, self.folder / f"{name}.safetensors")
        self.parameters[name] = parameters

    def text(self):
        pipe, tensors = self.pipeline, {}
        for i, prompt in enumerate(PROMPTS):
            ids = {}
            for which, tokenizer, length in (
                ("clip_l", pipe.tokenizer, 77),
                ("clip_g", pipe.tokenizer_2, 77),
                ("t5", pipe.tokenizer_3, T5_LENGTH),
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
        for i in (0, len(PROMPTS) - 1):
            tensors[f"{i}.prompt_embeds"], tensors[f"{i}.pooled_prompt_embeds"] = self.encode(pipe, PROMPTS[i])
        tensors["no_t5.prompt_embeds"], tensors["no_t5.pooled_prompt_embeds"] = self.encode(self.without_t5(), PROMPT)
        # The long prompt with the default length of 256 has relative positions beyond the last bucket.
        ids = pipe.tokenizer_3(PROMPTS[-1], padding="max_length", max_length=256, truncation=True, return_tensors="pt")
        tensors["long.t5.ids"] = ids.input_ids
        tensors["long.t5.output"] = pipe.text_encoder_3(ids.input_ids)[0]
        self.save("text", tensors, {"prompts": PROMPTS, "no_t5": PROMPT, "long": PROMPTS[-1], "t5_length": T5_LENGTH})

    def encode(self, pipe, prompt):
        embeds, _, pooled, _ = pipe.encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH
        )
        return embeds, pooled

    def without_t5(self):
        return StableDiffusion3Pipeline(**self.pipeline.components | {"text_encoder_3": None, "tokenizer_3": None})

    def denoiser(self):
        model, tensors = self.pipeline.transformer, {}
        generator = torch.Generator().manual_seed(11)
        sizes = {"square": (12, 12), "wide": (8, 20)}
        timesteps = {"square": 750.0, "wide": 58.5}
        for name, (height, width) in sizes.items():
            inputs = {
                "latents": torch.randn(2, 16, height, width, generator=generator),
                "context": torch.randn(2, 77 + T5_LENGTH, 64, generator=generator),
                "pooled": torch.randn(2, 40, generator=generator),
                "timestep": torch.tensor([timesteps[name]] * 2),
            }
            tensors |= {f"{name}.{key}": value for key, value in inputs.items()}
            hooks = []
            for key, module in (("temb", model.time_text_embed), ("patches", model.pos_embed)):
                hooks.append(module.register_forward_hook(keep(tensors, f"{name}.{key}")))
            for i, block in enumerate(model.transformer_blocks):
                hooks.append(block.register_forward_hook(keep(tensors, f"{name}.block{i}.context", f"{name}.block{i}.hidden")))
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
        sizes = {"square": (48, 48), "wide": (32, 80)}
        for name, (height, width) in sizes.items():
            latents = torch.randn(1, 16, height // 8, width // 8, generator=generator)
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

    def txt2img(self):
        runs = {
            "square": {"height": 96, "width": 96, "seed": 1, "guidance": 4.5, "t5": True},
            "wide": {"height": 96, "width": 160, "seed": 2**32 + 5, "guidance": 4.5, "t5": True},
            "no_t5": {"height": 96, "width": 96, "seed": 3, "guidance": 4.5, "t5": False},
            "no_guidance": {"height": 96, "width": 96, "seed": 4, "guidance": 1.0, "t5": True},
        }
        tensors = {}
        for name, run in runs.items():
            run |= {"steps": 4, "prompt": PROMPT, "negative": NEGATIVE, "t5_length": T5_LENGTH}
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
                    max_sequence_length=T5_LENGTH,
                    output_type="np",
                ).images
            keep_schedule(tensors, name, pipe.scheduler)
            if name == "square":
                tensors[f"{name}.decoded"] = torch.from_numpy(images[0]).permute(2, 0, 1)
            tensors[f"{name}.picture"] = torch.from_numpy((images[0] * 255).round().astype(np.uint8))
        self.save("txt2img", tensors, runs)

    def img2img(self):
        runs = {"square": {"height": 96, "width": 96, "seed": 5}, "wide": {"height": 64, "width": 112, "seed": 6}}
        pipe = StableDiffusion3Img2ImgPipeline(**self.pipeline.components)
        tensors = {}
        for name, run in runs.items():
            run |= {"steps": 5, "strength": 0.6, "guidance": 4.5, "prompt": PROMPT, "negative": NEGATIVE}
            run |= {"t5_length": T5_LENGTH}
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
                    max_sequence_length=T5_LENGTH,
                    output_type="np",
                ).images[0]
            keep_schedule(tensors, name, pipe.scheduler)
            # Like the pipeline, this samples first the posterior and then the noise from one generator.
            generator = torch.Generator().manual_seed(run["seed"])
            preprocessed = pipe.image_processor.preprocess(image, height=run["height"], width=run["width"])
            encoded = pipe.vae.encode(preprocessed).latent_dist.sample(generator)
            encoded = (encoded - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
            noise = torch.randn(encoded.shape, generator=generator)
            sigma = pipe.scheduler.sigmas[run["steps"] - int(run["steps"] * run["strength"])]
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
    shutil.rmtree(folder, ignore_errors=True)
    save_model(folder / "model", seed=10)
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder / "model", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenarios = Scenarios(folder, pipeline)
    for make in ("text", "denoiser", "vae", "txt2img", "img2img", "scheduler", "rng"):
        getattr(scenarios, make)()
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        weights = {key: value.to(dtype) for key, value in pipeline.text_encoder.state_dict().items()}
        save_file(weights, folder / f"text_encoder.{name}.safetensors")
    write_8_bit_formats(folder)
    write_gguf(folder)
    text = json.dumps(scenarios.parameters, indent=1, ensure_ascii=False)
    (folder / "golden.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
