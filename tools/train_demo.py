"""Trains the demonstration model, which has the architecture of Stable Diffusion 3.5, in less than two hours on a CPU.

The stages are tokenizers and images, text encoders, VAE, latents and denoiser. Each stage writes a file to the --state
folder and is skipped if the file exists, so an interrupted run can be resumed.
"""

import argparse
import copy
import math
import os
import time
from pathlib import Path

# Waiting threads sleep, because spinning would double the time of a step on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import tiny_tokenizers
from evaluate import draw_with_diffusers, evaluate
from shapes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, caption, random_scene, render

TEXT_LENGTH = 24
TRAIN_SHIFT = 1.5


def log(state, line):
    line = f"{time.strftime('%H:%M:%S')} {line}"
    print(line, flush=True)
    with open(state / "train.log", "a") as file:
        file.write(line + "\n")


def step_rng(seed, step):
    """Returns the generator of a step, so that a resumed run draws the same numbers as an uninterrupted one."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def rate(step, steps, peak, warm_up, hold):
    """Returns the learning rate: linear warm-up, constant until the fraction `hold` of the run, cosine down to 2 %."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = max((step / steps - hold) / (1 - hold), 0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


class Trainer:
    """Optimizes with AdamW, averages the weights and saves both."""

    def __init__(self, model, path, peak, warm_up, hold, ema):
        self.model, self.path = model, path
        self.peak, self.warm_up, self.hold, self.ema_decay = peak, warm_up, hold, ema
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
        self.step = 0
        if path.exists():
            saved = torch.load(path)
            model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]

    def update(self, loss, steps):
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step, steps, self.peak, self.warm_up, self.hold)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.model.parameters()):
                average.lerp_(weight, 1 - decay)
        self.step += 1

    def save(self):
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        saved = {name: part.state_dict() for name, part in parts.items()} | {"step": self.step}
        torch.save(saved, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)


# Images and captions


def make_images(state, seed, count):
    """Returns the training images of the denoiser with two captions each."""
    path = state / "images.pt"
    if not path.exists():
        rng = np.random.default_rng(seed)
        images, captions = [], []
        for _ in range(count):
            scene = random_scene(rng, held_out=False)
            images.append(render(scene, rng))
            captions.append([caption(scene, rng)[0] for _ in range(2)])
        torch.save({"images": torch.from_numpy(np.stack(images)), "captions": captions}, path)
        log(state, f"images: {count}")
    return torch.load(path)


def to_tensor(images):
    """Converts uint8 [n, h, w, 3] to float [n, 3, h, w] in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


# Text encoders


def new_text_encoders(tokenizers):
    def clip(tokenizer, width, activation):
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=width // 16,
            max_position_embeddings=TEXT_LENGTH,
            hidden_act=activation,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return CLIPTextModelWithProjection(config)

    config = T5Config(
        vocab_size=len(tokenizers[2]),
        d_model=96,
        d_kv=24,
        d_ff=192,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return clip(tokenizers[0], 32, "quick_gelu"), clip(tokenizers[1], 64, "gelu"), T5EncoderModel(config)


def encode_text(tokenizers, encoders, captions):
    """The pipeline's encode_prompt: context [n, 48, 96] and pooled [n, 96]."""
    penultimate, pooled = [], []
    for tokenizer, encoder in zip(tokenizers[:2], encoders[:2]):
        ids = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
        out = encoder(ids.input_ids, output_hidden_states=True)
        penultimate.append(out.hidden_states[-2])
        pooled.append(out.text_embeds)
    ids = tokenizers[2](captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
    t5 = encoders[2](ids.input_ids)[0]
    # The sum of the CLIP widths equals T5's width, so no padding is necessary.
    return torch.cat([torch.cat(penultimate, -1), t5], 1), torch.cat(pooled, -1)


ATTRIBUTES = {
    "colour": [None, *COLOURS],
    "shape": [None, *SHAPES],
    "background": [None, *BACKGROUNDS],
    "size": list(SIZES),
    "position": [None, *POSITIONS],
}


def train_text(state, seed, tokenizers, steps, batch=48):
    """Trains the encoders to predict the attributes in a caption from each of their outputs. This includes captions of
    held-out pairs: only the denoiser never sees images of them."""
    torch.manual_seed(seed)
    encoders = new_text_encoders(tokenizers)
    path = state / "text.pt"
    if not path.exists():
        outputs = {"clip context": 96, "pooled": 96, "t5 context": 96}
        heads = nn.ModuleDict(
            {
                f"{output} {name}": nn.Linear(width, len(values))
                for output, width in outputs.items()
                for name, values in ATTRIBUTES.items()
            }
        )
        parameters = [p for module in (*encoders, heads) for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=2e-3)
        rng = np.random.default_rng(seed + 1)
        for step in range(steps):
            pairs = [caption(random_scene(rng, held_out=True), rng) for _ in range(batch)]
            context, pooled = encode_text(tokenizers, encoders, [text for text, _ in pairs])
            features = {
                "clip context": context[:, :TEXT_LENGTH].mean(1),
                "pooled": pooled,
                "t5 context": context[:, TEXT_LENGTH:].mean(1),
            }
            loss, right = 0.0, []
            for name, values in ATTRIBUTES.items():
                target = torch.tensor([values.index(getattr(mentioned, name)) for _, mentioned in pairs])
                for output, feature in features.items():
                    guess = heads[f"{output} {name}"](feature)
                    loss = loss + F.cross_entropy(guess, target)
                    right.append((guess.argmax(-1) == target).float().mean().item())
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps, 2e-3, 20, 0.5)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if (step + 1) % 100 == 0:
                log(state, f"text {step + 1}: loss {loss.item():.3f}, right {np.mean(right):.3f}, worst {min(right):.3f}")
        torch.save([encoder.state_dict() for encoder in encoders], path)
    for encoder, saved in zip(encoders, torch.load(path)):
        encoder.load_state_dict(saved)
        encoder.requires_grad_(False).eval()
    return encoders


# VAE


def new_vae():
    """Creates a VAE with other initial values than in diffusers, with which it learns only a flat background."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    for name, module in vae.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            gain = 1.0
            if name.endswith(("conv1", "conv_out")):
                gain = 1.4
            if name.endswith(("conv2", "to_out.0")):
                gain = 0.2
            nn.init.normal_(module.weight, std=gain * module.weight[0].numel() ** -0.5)
            nn.init.zeros_(module.bias)
    return vae


def difference(y, x, sharpness):
    """Returns the loss, which gives the same weight to subjects that are small or similar to their background."""
    weight = 1 / x.std((1, 2, 3), keepdim=True).clamp(min=0.1)
    error = (y - x) * (weight / weight.mean())
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (error * (y - x)).mean() + 0.5 * error.abs().mean() + sharpness * edges


def vae_batch(images, generator, batch):
    """Returns images, some with inverted colours or swapped channels, so that the VAE also supports users' images."""
    x = to_tensor(images[torch.randint(len(images), (batch,), generator=generator)])
    x[:2] = x[:2, torch.randperm(3, generator=generator)]
    x[1] = -x[1]
    return x


def train_vae(state, seed, images, steps, batch=8):
    torch.manual_seed(seed)
    vae = new_vae()
    trainer = Trainer(vae, state / "vae.pt", peak=1e-3, warm_up=50, hold=0.5, ema=0.995)
    while trainer.step < steps:
        step = trainer.step
        generator = step_rng(seed + 2, step)
        x = vae_batch(images, generator, batch)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample(generator)).sample
        # The sharpness is ignored until the images are recognisable.
        loss = difference(y, x, sharpness=0.3 if step > steps * 0.15 else 0.0) + 1e-4 * posterior.kl().mean() / 64
        trainer.update(loss, steps)
        if trainer.step % 100 == 0:
            psnr = 10 * math.log10(4 / F.mse_loss(y.detach(), x).item())
            log(state, f"vae {trainer.step}: loss {loss.item():.4f}, psnr {psnr:.1f} dB")
        if trainer.step % 200 == 0 or trainer.step == steps:
            trainer.save()
    return trainer.average.requires_grad_(True).eval()


@torch.no_grad()
def encode_images(state, vae, images):
    """Returns the normalised latents of all images, with the shift and the factor of the normalisation."""
    path = state / "latents.pt"
    if not path.exists():
        raw = torch.cat([vae.encode(to_tensor(part)).latent_dist.mean for part in images.split(250)])
        shift, scale = raw.mean().item(), 1 / raw.std().item()
        torch.save({"latents": (raw - shift) * scale, "shift": shift, "scale": scale}, path)
        log(state, f"latents: shift {shift:.4f}, scale {scale:.4f}")
    return torch.load(path)


def polish_decoder(state, seed, vae, encoded, images, steps, batch=8):
    """Trains only the decoder, with noise on the latents, because those of the denoiser are not exact."""
    trainer = Trainer(vae.decoder, state / "decoder.pt", peak=5e-4, warm_up=20, hold=0.3, ema=0.99)
    while trainer.step < steps:
        generator = step_rng(seed + 4, trainer.step)
        chosen = torch.randint(len(images), (batch,), generator=generator)
        latents = encoded["latents"][chosen]
        latents = latents + 0.2 * torch.randn(latents.shape, generator=generator)
        x = to_tensor(images[chosen])
        y = vae.decode(latents / encoded["scale"] + encoded["shift"]).sample
        loss = difference(y, x, sharpness=0.3)
        trainer.update(loss, steps)
        if trainer.step % 100 == 0:
            log(state, f"decoder {trainer.step}: loss {loss.item():.4f}")
            trainer.save()
    vae.decoder.load_state_dict(trainer.average.state_dict())


# Denoiser


def new_denoiser():
    denoiser = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=96,
        caption_projection_dim=128,
        pooled_projection_dim=96,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            if "norm" in name or name == "proj_out":
                nn.init.zeros_(module.weight)
    return denoiser


@torch.no_grad()
def embed_captions(state, tokenizers, encoders, captions):
    """Returns the embeddings of the distinct captions, and the indices of the two captions of each image."""
    path = state / "captions.pt"
    if path.exists():
        return torch.load(path)
    rows = {text: i for i, text in enumerate(dict.fromkeys(text for pair in captions for text in pair))}
    texts = list(rows)
    parts = [encode_text(tokenizers, encoders, texts[i : i + 500]) for i in range(0, len(texts), 500)]
    context, pooled = (torch.cat(tensors) for tensors in zip(*parts))
    embedded = context, pooled, torch.tensor([[rows[text] for text in pair] for pair in captions])
    torch.save(embedded, path)
    return embedded


def train_denoiser(state, seed, args, parts, latents, captions):
    context, pooled, rows = embed_captions(state, parts["tokenizers"], parts["encoders"], captions)
    log(state, f"denoiser: {len(latents)} latents, {len(context)} captions")
    torch.manual_seed(seed)
    denoiser = new_denoiser()
    trainer = Trainer(denoiser, state / "denoiser.pt", peak=args.rate, warm_up=200, hold=0.7, ema=0.999)
    best = float((state / "best.txt").read_text()) if (state / "best.txt").exists() else -1.0
    losses, started = [], time.time()
    while trainer.step < args.steps:
        generator = step_rng(seed + 3, trainer.step)
        chosen = torch.randint(len(latents), (args.batch,), generator=generator)
        text = rows[chosen, torch.randint(2, (args.batch,), generator=generator)]
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.sigmoid(torch.randn(args.batch, generator=generator))
        sigma = (TRAIN_SHIFT * t / (1 + (TRAIN_SHIFT - 1) * t)).view(-1, 1, 1, 1)
        velocity = denoiser(
            hidden_states=sigma * noise + (1 - sigma) * clean,
            timestep=1000 * sigma.flatten(),
            encoder_hidden_states=context[text],
            pooled_projections=pooled[text],
        ).sample
        loss = F.mse_loss(velocity, noise - clean)
        trainer.update(loss, args.steps)
        losses.append(loss.item())
        if trainer.step % 200 == 0:
            speed = (time.time() - started) / len(losses)
            log(state, f"denoiser {trainer.step}: loss {np.mean(losses[-200:]):.4f}, {speed:.3f} s/step")
            trainer.save()
        if trainer.step % args.evaluate_every == 0:
            trainer.save()
            best = keep_best(state, args.out, parts, trainer, best)
    trainer.save()
    keep_best(state, args.out, parts, trainer, best)


def keep_best(state, out, parts, trainer, best):
    """Grades the averaged weights, exports the model if no earlier one was better, and returns the best score."""
    figures = evaluate(draw_with_diffusers(assemble(parts, trainer.average)), state / f"sheet-{trainer.step:06}.png")
    log(state, f"denoiser {trainer.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    score = sum(figures.values())
    if score < best:
        return best
    (state / "best.txt").write_text(str(score))
    export(parts, trainer.average, out)
    return score


# The whole model


def assemble(parts, denoiser):
    tokenizers, encoders = parts["tokenizers"], parts["encoders"]
    return StableDiffusion3Pipeline(
        transformer=denoiser.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=parts["vae"],
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1],
        text_encoder_3=encoders[2],
        tokenizer_3=tokenizers[2],
    )


def export(parts, denoiser, folder):
    """Writes the model as a diffusers folder in f16, with the same tokenizer files as the full model."""
    halves = {
        "vae": copy.deepcopy(parts["vae"]).half(),
        "encoders": [copy.deepcopy(encoder).half() for encoder in parts["encoders"]],
        "tokenizers": parts["tokenizers"],
    }
    assemble(halves, copy.deepcopy(denoiser).half()).save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        for file in (folder / name).iterdir():
            file.unlink()
    tiny_tokenizers.save_all(folder, TEXT_LENGTH, TEXT_LENGTH)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints, the log and contact sheets")
    parser.add_argument("--out", type=Path, required=True, help="folder for the best model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=30000)
    parser.add_argument("--text-steps", type=int, default=600)
    parser.add_argument("--vae-steps", type=int, default=3000)
    parser.add_argument("--decoder-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=5000, help="steps of the denoiser; may change when resuming")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--evaluate-every", type=int, default=5000)
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.state.mkdir(parents=True, exist_ok=True)

    tiny_tokenizers.save_all(args.state / "tokenizers", TEXT_LENGTH, TEXT_LENGTH)
    tokenizers = tiny_tokenizers.load_all(args.state / "tokenizers")
    data = make_images(args.state, args.seed, args.images)
    encoders = train_text(args.state, args.seed, tokenizers, args.text_steps)
    vae = train_vae(args.state, args.seed, data["images"], args.vae_steps)
    encoded = encode_images(args.state, vae, data["images"])
    polish_decoder(args.state, args.seed, vae, encoded, data["images"], args.decoder_steps)
    vae.eval().requires_grad_(False).register_to_config(shift_factor=encoded["shift"], scaling_factor=encoded["scale"])
    parts = {"tokenizers": tokenizers, "encoders": encoders, "vae": vae}
    train_denoiser(args.state, args.seed, args, parts, encoded["latents"], data["captions"])


if __name__ == "__main__":
    main()
