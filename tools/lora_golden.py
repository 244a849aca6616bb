"""Writes LoRAs of the golden model, and the latents of images that use them: lora/.

    python lora_golden.py crates/lumenfall-diffusion/tests/golden

golden.py must have written the model before. peft and LyCORIS create the LoRAs and apply them, in diffusers' pipeline.
All values have 16 bits, so that each file contains exactly what was computed with.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from lycoris import LycorisNetwork, create_lycoris
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

PROMPT, NEGATIVE = "a red circle on a white background", "blue square"
T5_LENGTH = 32
# Each kind of layer of the denoiser, with different ranks and alphas.
DENOISER = {
    "pos_embed.proj": (2, 3),
    "context_embedder": (2, 2),
    "time_text_embed.timestep_embedder.linear_1": (1, 2),
    "time_text_embed.text_embedder.linear_2": (1, 1),
    "norm_out.linear": (2, 1),
    "proj_out": (2, 2),
    **{
        f"transformer_blocks.{i}.{name}": (rank, alpha)
        for i in range(3)
        for name, rank, alpha in (
            ("norm1.linear", 2, 1),
            ("norm1_context.linear", 1, 1),
            ("attn.to_q", 2, 1),
            ("attn.to_k", 3, 3),
            ("attn.to_v", 4, 2),
            ("attn.to_out.0", 2, 2),
            ("attn.add_q_proj", 2, 2),
            ("attn.add_k_proj", 1, 2),
            ("attn.add_v_proj", 2, 3),
            ("attn.to_add_out", 1, 1),
            ("attn2.to_q", 1, 2),
            ("attn2.to_k", 2, 2),
            ("attn2.to_v", 2, 1),
            ("attn2.to_out.0", 2, 2),
            ("ff.net.0.proj", 2, 2),
            ("ff.net.2", 2, 1),
            ("ff_context.net.0.proj", 1, 2),
            ("ff_context.net.2", 1, 1),
        )
        # The last block has no text after its attention, and no second attention.
        if not (i == 2 and ("attn2" in name or "ff_context" in name or "add_out" in name))
    },
}
CLIP = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def patterns(layers, **options):
    return LoraConfig(
        target_modules=list(layers),
        rank_pattern={f"^{name}$": rank for name, (rank, _) in layers.items()},
        alpha_pattern={f"^{name}$": alpha for name, (_, alpha) in layers.items()},
        **options,
    )


@torch.no_grad()
def randomise(model, generator, gain):
    """Replaces the adapters' values, which have no effect at first, by 16-bit random ones."""
    for name, weight in model.named_parameters():
        magnitude = "magnitude" in name or "dora_scale" in name
        if not magnitude and not any(part in name for part in ("lora_", "lokr_")):
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if magnitude:
            weight.copy_(weight * (1 + 0.2 * noise))
        else:
            weight.copy_(gain * noise * weight[0].numel() ** -0.5)
        weight.copy_(weight.half().float())


def half(tensors):
    return {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}


def swap_halves(tensor):
    return torch.cat(tensor.chunk(2)[::-1])


def original_names(state):
    """Converts a LoRA of the denoiser to the names and the fused layers of the original model."""
    result = {}

    def move(new, old, change=lambda up: up):
        if f"{old}.lora_A.weight" in state:
            down, up = state[f"{old}.lora_A.weight"], state[f"{old}.lora_B.weight"]
            result[new] = (down, change(up).contiguous(), *DENOISER[old])

    move("x_embedder.proj", "pos_embed.proj")
    move("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1")
    move("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2")
    move("context_embedder", "context_embedder")
    move("final_layer.linear", "proj_out")
    move("final_layer.adaLN_modulation.1", "norm_out.linear", swap_halves)
    for i in range(3):
        old, image, text = f"transformer_blocks.{i}", f"joint_blocks.{i}.x_block", f"joint_blocks.{i}.context_block"
        fused = [
            (f"{image}.attn.qkv", [f"{old}.attn.to_{x}" for x in "qkv"]),
            (f"{image}.attn2.qkv", [f"{old}.attn2.to_{x}" for x in "qkv"]),
            (f"{text}.attn.qkv", [f"{old}.attn.add_{x}_proj" for x in "qkv"]),
        ]
        for new, names in fused:
            if names[0] in DENOISER:
                # A layer has one alpha, so the others' scales go into the second matrix, in f32.
                scaled = {key: tensor.float() for key, tensor in state.items() if key.startswith(tuple(names))}
                for name in names:
                    rank, alpha = DENOISER[name]
                    scaled[f"{name}.lora_B.weight"] = scaled[f"{name}.lora_B.weight"] * (alpha / rank)
                down = torch.cat([scaled[f"{name}.lora_A.weight"] for name in names])
                up = torch.block_diag(*[scaled[f"{name}.lora_B.weight"] for name in names])
                result[new] = (down, up, len(down), len(down))
        move(f"{image}.attn.proj", f"{old}.attn.to_out.0")
        move(f"{image}.attn2.proj", f"{old}.attn2.to_out.0")
        move(f"{text}.attn.proj", f"{old}.attn.to_add_out")
        for stream, name in ((image, "ff"), (text, "ff_context")):
            move(f"{stream}.mlp.fc1", f"{old}.{name}.net.0.proj")
            move(f"{stream}.mlp.fc2", f"{old}.{name}.net.2")
        move(f"{image}.adaLN_modulation.1", f"{old}.norm1.linear")
        move(f"{text}.adaLN_modulation.1", f"{old}.norm1_context.linear", swap_halves if i == 2 else lambda up: up)
    return result


def kohya(prefix, layers):
    tensors = {}
    for name, (down, up, _, alpha) in layers.items():
        name = prefix + name.replace(".", "_")
        if down.dim() == 4:
            up = up.reshape(*up.shape[:2], 1, 1)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


class Golden:
    def __init__(self, folder):
        self.model, self.folder = folder / "model", folder / "lora"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.latents = {}
        self.generator = torch.Generator().manual_seed(30)

    def pipeline(self):
        pipeline = StableDiffusion3Pipeline.from_pretrained(self.model, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, name, pipeline):
        self.latents[name] = pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            height=96,
            width=96,
            num_inference_steps=4,
            guidance_scale=4.5,
            generator=torch.Generator().manual_seed(1),
            max_sequence_length=T5_LENGTH,
            output_type="latent",
        ).images[0]

    def save(self, name, tensors, metadata=None):
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, self.folder / f"{name}.safetensors", metadata
        )

    def peft(self):
        """A LoRA of every kind of layer of the denoiser and of both CLIP encoders, and the same in kohya's names."""
        source = self.pipeline()
        source.transformer.add_adapter(patterns(DENOISER))
        clip = LoraConfig(r=2, lora_alpha=3, target_modules=CLIP)
        parts = {"": source.transformer, "text_encoder": source.text_encoder, "text_encoder_2": source.text_encoder_2}
        for part, model in parts.items():
            if part:
                model.add_adapter(clip)
            randomise(model, self.generator, 0.3)
        denoiser, clip_l, clip_g = (half(get_peft_model_state_dict(model)) for model in parts.values())
        StableDiffusion3Pipeline.save_lora_weights(
            self.folder,
            transformer_lora_layers=denoiser,
            text_encoder_lora_layers=clip_l,
            text_encoder_2_lora_layers=clip_g,
            weight_name="peft.safetensors",
            transformer_lora_adapter_metadata=metadata(source.transformer),
            text_encoder_lora_adapter_metadata=metadata(source.text_encoder),
            text_encoder_2_lora_adapter_metadata=metadata(source.text_encoder_2),
        )
        tensors = kohya("lora_unet_", original_names(denoiser))
        for number, state in ((1, clip_l), (2, clip_g)):
            names = {key.rsplit(".lora_", 1)[0] for key in state}
            layers = {name: (state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"], 2, 3) for name in names}
            tensors |= kohya(f"lora_te{number}_", layers)
        self.save("kohya", tensors)

    def rank_stabilized(self):
        """A second LoRA, of some layers, whose scale is alpha / sqrt(rank)."""
        source = self.pipeline()
        config = LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["to_q", "to_add_out"])
        source.transformer.add_adapter(config)
        randomise(source.transformer, self.generator, 0.3)
        StableDiffusion3Pipeline.save_lora_weights(
            self.folder,
            transformer_lora_layers=half(get_peft_model_state_dict(source.transformer)),
            weight_name="rslora.safetensors",
            transformer_lora_adapter_metadata=metadata(source.transformer),
        )

    def draw_peft(self):
        pipeline = self.pipeline()
        for name in ("peft", "rslora"):
            pipeline.load_lora_weights(self.folder, weight_name=f"{name}.safetensors", adapter_name=name)
        for name, strengths in (
            ("peft", {"peft": 1.0}),
            ("negative", {"peft": -0.5}),
            ("both", {"peft": 0.8, "rslora": -0.6}),
        ):
            pipeline.set_adapters(list(strengths), list(strengths.values()))
            self.draw(name, pipeline)
        pipeline.disable_lora()
        self.draw("none", pipeline)

    def t5(self):
        """A LoRA of T5, in kohya's names."""
        pipeline = self.pipeline()
        pipeline.text_encoder_3.add_adapter(
            LoraConfig(r=2, lora_alpha=1, target_modules=["q", "v", "o", "wi_0", "wi_1", "wo"])
        )
        randomise(pipeline.text_encoder_3, self.generator, 0.3)
        state = half(get_peft_model_state_dict(pipeline.text_encoder_3))
        names = {key.rsplit(".lora_", 1)[0] for key in state}
        layers = {name: (state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"], 2, 1) for name in names}
        self.save("t5", kohya("lora_te3_", layers))
        self.draw("t5", pipeline)

    def dora(self):
        """peft's DoRA, with a magnitude for each output."""
        pipeline = self.pipeline()
        config = LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["to_k", "to_out.0", "ff.net.2"])
        pipeline.transformer.add_adapter(config)
        randomise(pipeline.transformer, self.generator, 0.3)
        state = half(get_peft_model_state_dict(pipeline.transformer))
        tensors = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
        self.save("dora", tensors, {"lora_alpha": "3", "r": "2"})
        self.draw("dora", pipeline)

    def lokr(self, name, **options):
        """LyCORIS' Kronecker products, as SimpleTuner writes them."""
        pipeline = self.pipeline()
        LycorisNetwork.apply_preset({"target_module": ["JointTransformerBlock"]})
        network = create_lycoris(pipeline.transformer, 1.0, algo="lokr", linear_alpha=options["linear_dim"], **options)
        network.apply_to()
        network.eval()
        randomise(network, self.generator, 0.4)
        self.save(name, half(network.state_dict()))
        self.draw(name, pipeline)


def metadata(model):
    """Returns the settings of a model's adapter, without the path of the model."""
    settings = model.peft_config["default"].to_dict() | {"base_model_name_or_path": None}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    torch.set_num_threads(1)
    golden = Golden(parser.parse_args().folder)
    golden.peft()
    golden.rank_stabilized()
    golden.draw_peft()
    golden.t5()
    golden.dora()
    golden.lokr("lokr", linear_dim=100, factor=4, full_matrix=True)
    golden.lokr("lokr_rows", linear_dim=2, factor=4, dora_wd=True, wd_on_output=True)
    golden.lokr("lokr_columns", linear_dim=2, factor=4, dora_wd=True, wd_on_output=False)
    save_file(golden.latents, golden.folder / "latents.safetensors")


if __name__ == "__main__":
    main()
