"""Writes the golden model in the other layouts that the pipeline reads, with the public packages safetensors and gguf."""

import argparse
import hashlib
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file


def load(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def swap_halves(tensor):
    return torch.cat(tensor.chunk(2)[::-1]).contiguous()


def original_denoiser(tensors):
    """Converts the denoiser to Stability AI's names, the reverse of diffusers' convert_sd3_to_diffusers.py."""
    result = {"pos_embed": tensors["pos_embed.pos_embed"]}
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))

    def move(new, old, change=lambda tensor: tensor):
        for suffix in ("weight", "bias"):
            if f"{old}.{suffix}" in tensors:
                result[f"{new}.{suffix}"] = change(tensors[f"{old}.{suffix}"]).contiguous()

    def fuse(new, block, names):
        for suffix in ("weight", "bias"):
            result[f"{new}.{suffix}"] = torch.cat([tensors[f"{block}.{name}.{suffix}"] for name in names])

    move("x_embedder.proj", "pos_embed.proj")
    for new, old in (("t", "timestep"), ("y", "text")):
        move(f"{new}_embedder.mlp.0", f"time_text_embed.{old}_embedder.linear_1")
        move(f"{new}_embedder.mlp.2", f"time_text_embed.{old}_embedder.linear_2")
    move("context_embedder", "context_embedder")
    move("final_layer.linear", "proj_out")
    move("final_layer.adaLN_modulation.1", "norm_out.linear", swap_halves)
    for i in range(layers):
        old, image, text = f"transformer_blocks.{i}", f"joint_blocks.{i}.x_block", f"joint_blocks.{i}.context_block"
        for attention in ("attn", "attn2"):
            if f"{old}.{attention}.to_q.weight" in tensors:
                fuse(f"{image}.{attention}.qkv", f"{old}.{attention}", ("to_q", "to_k", "to_v"))
                move(f"{image}.{attention}.proj", f"{old}.{attention}.to_out.0")
                move(f"{image}.{attention}.ln_q", f"{old}.{attention}.norm_q")
                move(f"{image}.{attention}.ln_k", f"{old}.{attention}.norm_k")
        fuse(f"{text}.attn.qkv", f"{old}.attn", ("add_q_proj", "add_k_proj", "add_v_proj"))
        move(f"{text}.attn.proj", f"{old}.attn.to_add_out")
        move(f"{text}.attn.ln_q", f"{old}.attn.norm_added_q")
        move(f"{text}.attn.ln_k", f"{old}.attn.norm_added_k")
        for stream, feed_forward in ((image, "ff"), (text, "ff_context")):
            move(f"{stream}.mlp.fc1", f"{old}.{feed_forward}.net.0.proj")
            move(f"{stream}.mlp.fc2", f"{old}.{feed_forward}.net.2")
        move(f"{image}.adaLN_modulation.1", f"{old}.norm1.linear")
        last = swap_halves if i + 1 == layers else lambda tensor: tensor
        move(f"{text}.adaLN_modulation.1", f"{old}.norm1_context.linear", last)
    return result


def original_vae(tensors):
    levels = 1 + max(int(name.split(".")[2]) for name in tensors if "up_blocks" in name)
    result = {}
    for name, tensor in tensors.items():
        half, *rest = name.split(".")
        parts = ".".join(rest)
        for old, new in (
            ("conv_norm_out", "norm_out"),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
            ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
            ("mid_block.attentions.0.to_k", "mid.attn_1.k"),
            ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
            ("down_blocks.", "down."),
            ("up_blocks.", "up."),
            (".resnets.", ".block."),
            ("conv_shortcut", "nin_shortcut"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
        ):
            parts = parts.replace(old, new)
        if parts.startswith("up."):
            _, level, layer = parts.split(".", 2)
            parts = f"up.{levels - 1 - int(level)}.{layer}"
        # The original attention consists of 1x1 convolutions.
        if "attn_1" in parts and tensor.dim() == 2:
            tensor = tensor[:, :, None, None]
        result[f"{half}.{parts}"] = tensor.contiguous()
    return result


def llama_cpp_t5(tensors):
    names = {
        "layer.0.SelfAttention.q": "attn_q",
        "layer.0.SelfAttention.k": "attn_k",
        "layer.0.SelfAttention.v": "attn_v",
        "layer.0.SelfAttention.o": "attn_o",
        "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
        "layer.0.layer_norm": "attn_norm",
        "layer.1.DenseReluDense.wi_0": "ffn_gate",
        "layer.1.DenseReluDense.wi_1": "ffn_up",
        "layer.1.DenseReluDense.wo": "ffn_down",
        "layer.1.layer_norm": "ffn_norm",
    }
    result = {"token_embd.weight": tensors["shared.weight"]}
    for name, tensor in tensors.items():
        if name.startswith("encoder.block."):
            _, _, block, layer = name.removesuffix(".weight").split(".", 3)
            result[f"enc.blk.{block}.{names[layer]}.weight"] = tensor
    return result | {"enc.output_norm.weight": tensors["encoder.final_layer_norm.weight"]}


def write_gguf(path, architecture, tensors, quantised=()):
    writer = gguf.GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        values = tensor.numpy().astype(np.float32)
        if name in quantised:
            data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def scaled_fp8(tensors):
    """Stores matrices as fp8 with one scale, as the common bundles with scaled T5 do."""
    result = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and "DenseReluDense" in name:
            scale = tensor.abs().max() / 448
            result[name] = (tensor / scale).to(torch.float8_e4m3fn)
            result[name.removesuffix("weight") + "scale_weight"] = scale.reshape(1)
        else:
            result[name] = tensor
    return result


def q8_0_hash(tensors):
    """Returns the hash of all matrices in Q8_0, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if tensor.dim() == 2 and tensor.shape[1] % 32 == 0:
            values = tensor.numpy().astype(np.float32)
            digest.update(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0).tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the golden model, such as crates/lumenfall-diffusion/tests/golden/model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(exist_ok=True)
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    transformer, vae, clip_l, clip_g, t5 = (load(arguments.model / part) for part in parts)
    denoiser = original_denoiser(transformer)

    bundle = {f"model.diffusion_model.{name}": tensor for name, tensor in denoiser.items()}
    bundle |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae(vae).items()}
    bundle |= {f"text_encoders.clip_l.transformer.{name}": tensor for name, tensor in clip_l.items()}
    bundle |= {f"text_encoders.clip_g.transformer.{name}": tensor for name, tensor in clip_g.items()}
    bundle["text_encoders.clip_l.logit_scale"] = torch.tensor(4.6)
    save_file(bundle, out / "bundle.safetensors")

    write_gguf(out / "t5xxl.gguf", "t5encoder", llama_cpp_t5(t5))
    save_file(scaled_fp8(t5), out / "t5xxl_fp8_scaled.safetensors")
    # Like the public files, this one keeps the embedders and norms in f32.
    matrices = [name for name, tensor in denoiser.items() if name.startswith("joint_blocks") and tensor.dim() == 2]
    quantised = [name for name in matrices if denoiser[name].shape[-1] % 32 == 0]
    write_gguf(out / "denoiser-Q8_0.gguf", "sd3", denoiser, quantised)
    demo = Path(__file__).parent.parent / "crates/lumenfall-diffusion/demo/transformer"
    (out / "demo-q8_0.sha256").write_text(q8_0_hash(load(demo)) + "\n")


if __name__ == "__main__":
    main()
