"""Trains the demonstration model, which has the architecture of Stable Diffusion 3.5, on a CPU or a CUDA GPU.

The stages are scenes, text encoders, VAE, latents, decoder and denoiser. Each stage writes a file to the --state folder
and is skipped if the file exists, so an interrupted run can be resumed.
"""

import argparse
import copy
import math
import multiprocessing
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
from scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, SUBJECTS, attributes, caption, centre, random_scene
from subjects import SIZE, distance_fields, render

TEXT_LENGTH = 32
TRAIN_SHIFT = 1.5
# The fraction of training samples without a caption, for guidance.
UNCONDITIONAL = 0.1

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CUDA = DEVICE.type == "cuda"
if CUDA:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def log(state, line):
    line = f"{time.strftime('%H:%M:%S')} {line}"
    print(line, flush=True)
    with open(state / "train.log", "a") as file:
        file.write(line + "\n")


def step_rng(seed, step):
    """Returns the generator of a step, so that a resumed run draws the same numbers as an uninterrupted one."""
    return torch.Generator(DEVICE).manual_seed(seed * 1_000_003 + step)


def rate(step, steps, peak, warm_up, hold):
    """Returns the learning rate: linear warm-up, constant until the fraction `hold` of the run, cosine down to 1 %."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = max((step / steps - hold) / (1 - hold), 0)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


class Trainer:
    """Optimizes with AdamW, averages the weights and saves both."""

    def __init__(self, model, path, peak, warm_up, hold, ema):
        self.model, self.path = model.to(DEVICE), path
        self.peak, self.warm_up, self.hold, self.ema_decay = peak, warm_up, hold, ema
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.weights = list(model.parameters())
        self.averages = list(self.average.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=CUDA)
        self.step = 0
        if path.exists():
            saved = torch.load(path, map_location=DEVICE)
            model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]

    def update(self, loss, steps):
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step, steps, self.peak, self.warm_up, self.hold)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.weights, 1 - decay)
        self.step += 1

    def save(self):
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        saved = {name: part.state_dict() for name, part in parts.items()} | {"step": self.step}
        torch.save(saved, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)


# Scenes and captions


def make_part(job):
    """Returns `count` scenes as arrays: what `render` needs, the captions, and what these say."""
    seed, count = job
    rng = np.random.default_rng(seed)
    subjects = np.full((count, 2), -1, np.int64)
    places = np.full((count, 2, 3), 0.5, np.float32)
    colours = np.zeros((count, 2, 3), np.float32)
    backgrounds = np.zeros((count, 3), np.float32)
    said = np.zeros((count, len(ATTRIBUTES)), np.int64)
    captions, held_out = [], np.zeros(count, bool)
    for i in range(count):
        scene = random_scene(rng)
        for j, thing in enumerate(scene.things):
            subjects[i, j] = SUBJECTS.index(thing.subject)
            x, y, width = centre(scene, j, rng.uniform(-0.012, 0.012, 2))
            places[i, j] = x, y, width * rng.uniform(0.96, 1.04)
            colours[i, j] = np.array(COLOURS[thing.colour]) / 255
        backgrounds[i] = np.array(BACKGROUNDS[scene.background]) / 255
        text, mentioned = caption(scene, rng)
        captions.append(text)
        said[i] = attributes(mentioned)
        held_out[i] = scene.held_out()
    return {
        "subjects": subjects,
        "places": places,
        "colours": colours,
        "backgrounds": backgrounds,
        "said": said,
        "held_out": held_out,
        "captions": captions,
    }


def make_scenes(state, seed, tokenizers, count, part=5000):
    """Returns random scenes with one caption each, as tensors. The empty caption is the last one."""
    path = state / "scenes.pt"
    if not path.exists():
        jobs = [(seed * 10_007 + i, part) for i in range(-(-count // part))]
        with multiprocessing.get_context("spawn").Pool() as pool:
            parts = pool.map(make_part, jobs)
        captions = [text for part in parts for text in part.pop("captions")] + [""]
        scenes = {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}
        scenes["ids"] = torch.stack([ids_of(tokenizer, captions) for tokenizer in tokenizers], 1)
        torch.save(scenes, path)
        log(state, f"scenes: {len(captions) - 1}")
    return {name: tensor.to(DEVICE) for name, tensor in torch.load(path).items()}


def ids_of(tokenizer, captions):
    ids = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
    return ids.input_ids


def draw(fields, scenes, chosen):
    """Returns the images of the chosen scenes [n, 3, h, w] in -1..1, with the precision of a file."""
    names = ("subjects", "places", "colours", "backgrounds")
    image = render(fields, *(scenes[name][chosen] for name in names))
    return (image * 255).round() / 127.5 - 1


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


def encode_ids(encoders, ids):
    """The pipeline's encode_prompt for ids [n, 3, 32]: context [n, 64, 96] and pooled [n, 96]."""
    penultimate, pooled = [], []
    for encoder, part in zip(encoders[:2], ids.unbind(1)):
        out = encoder(part, output_hidden_states=True)
        penultimate.append(out.hidden_states[-2])
        pooled.append(out.text_embeds)
    t5 = encoders[2](ids[:, 2])[0]
    # The sum of the CLIP widths equals T5's width, so no padding is necessary.
    return torch.cat([torch.cat(penultimate, -1), t5], 1), torch.cat(pooled, -1)


def train_text(state, seed, scenes, tokenizers, steps, batch):
    """Trains the encoders to predict what a caption says from each of their outputs. This includes captions of
    held-out pairs: only the denoiser never sees images of them."""
    torch.manual_seed(seed)
    encoders = [encoder.to(DEVICE) for encoder in new_text_encoders(tokenizers)]
    path = state / "text.pt"
    if not path.exists():
        heads = nn.ModuleDict(
            {
                f"{output} {name}": nn.Linear(96, len(values))
                for output in ("clip context", "pooled", "t5 context")
                for name, values in ATTRIBUTES.items()
            }
        ).to(DEVICE)
        parameters = [p for module in (*encoders, heads) for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.99))
        for step in range(steps):
            chosen = torch.randint(len(scenes["said"]), (batch,), generator=step_rng(seed + 1, step), device=DEVICE)
            context, pooled = encode_ids(encoders, scenes["ids"][chosen])
            features = {
                "clip context": context[:, :TEXT_LENGTH].mean(1),
                "pooled": pooled,
                "t5 context": context[:, TEXT_LENGTH:].mean(1),
            }
            loss, right = 0.0, []
            for name, target in zip(ATTRIBUTES, scenes["said"][chosen].unbind(1)):
                for output, feature in features.items():
                    guess = heads[f"{output} {name}"](feature)
                    loss = loss + F.cross_entropy(guess, target)
                    right.append((guess.argmax(-1) == target).float().mean())
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps, 2e-3, 50, 0.5)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if (step + 1) % 250 == 0:
                right = torch.stack(right)
                figures = f"loss {loss.item():.3f}, right {right.mean().item():.3f}, worst {right.min().item():.3f}"
                log(state, f"text {step + 1}: {figures}")
        torch.save([encoder.state_dict() for encoder in encoders], path)
    for encoder, saved in zip(encoders, torch.load(path, map_location=DEVICE)):
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
        sample_size=SIZE,
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


def vae_batch(fields, scenes, generator, batch):
    """Returns images, some with other colours, so that the VAE also supports users' images."""
    chosen = torch.randint(len(scenes["subjects"]), (batch,), generator=generator, device=DEVICE)
    x = draw(fields, scenes, chosen)
    other = batch // 4
    x[:other] = x[:other, torch.randperm(3, generator=generator, device=DEVICE)]
    x[: other // 2] *= -1
    return x


def train_vae(state, seed, fields, scenes, steps, batch):
    torch.manual_seed(seed)
    vae = new_vae().to(memory_format=torch.channels_last)
    trainer = Trainer(vae, state / "vae.pt", peak=1.5e-3, warm_up=100, hold=0.5, ema=0.998)
    if CUDA:
        vae.encoder.compile()
        vae.decoder.compile()
    while trainer.step < steps:
        step = trainer.step
        generator = step_rng(seed + 2, step)
        x = vae_batch(fields, scenes, generator, batch)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample(generator)).sample
        # The sharpness is ignored until the images are recognisable.
        loss = difference(y, x, sharpness=0.3 if step > steps * 0.1 else 0.0)
        loss = loss + 1e-4 * posterior.kl().mean() / (SIZE / 8) ** 2
        trainer.update(loss, steps)
        if trainer.step % 250 == 0:
            psnr = 10 * math.log10(4 / F.mse_loss(y.detach(), x).item())
            log(state, f"vae {trainer.step}: loss {loss.item():.4f}, psnr {psnr:.1f} dB")
        if trainer.step % 1000 == 0 or trainer.step == steps:
            trainer.save()
    return trainer.average.requires_grad_(True).eval()


@torch.no_grad()
def encode_images(state, fields, scenes, vae, part=256):
    """Returns the normalised latents of all images, with the shift and the factor of the normalisation."""
    path = state / "latents.pt"
    if not path.exists():
        everything = torch.arange(len(scenes["subjects"]), device=DEVICE)
        raw = torch.cat(
            [vae.encode(draw(fields, scenes, chosen)).latent_dist.mean.half() for chosen in everything.split(part)]
        )
        sample = raw[:20_000].float()
        shift, scale = sample.mean().item(), 1 / sample.std().item()
        for piece in raw.split(10_000):
            piece.copy_((piece.float() - shift) * scale)
        torch.save({"latents": raw, "shift": shift, "scale": scale}, path)
        log(state, f"latents: shift {shift:.4f}, scale {scale:.4f}")
    return torch.load(path, map_location=DEVICE)


def polish_decoder(state, seed, vae, encoded, fields, scenes, steps, batch):
    """Trains only the decoder, with noise on the latents, because those of the denoiser are not exact."""
    trainer = Trainer(vae.decoder, state / "decoder.pt", peak=7e-4, warm_up=50, hold=0.3, ema=0.998)
    decoder = torch.compile(vae.decoder) if CUDA else vae.decoder
    while trainer.step < steps:
        generator = step_rng(seed + 4, trainer.step)
        chosen = torch.randint(len(scenes["subjects"]), (batch,), generator=generator, device=DEVICE)
        latents = encoded["latents"][chosen].float()
        strength = 0.25 * torch.rand(batch, 1, 1, 1, generator=generator, device=DEVICE)
        latents = latents + strength * torch.randn(latents.shape, generator=generator, device=DEVICE)
        x = draw(fields, scenes, chosen)
        y = decoder(latents / encoded["scale"] + encoded["shift"])
        loss = difference(y, x, sharpness=0.3)
        trainer.update(loss, steps)
        if trainer.step % 250 == 0:
            psnr = 10 * math.log10(4 / F.mse_loss(y.detach(), x).item())
            log(state, f"decoder {trainer.step}: loss {loss.item():.4f}, psnr {psnr:.1f} dB")
        if trainer.step % 1000 == 0 or trainer.step == steps:
            trainer.save()
    vae.decoder.load_state_dict(trainer.average.state_dict())


# Denoiser


def new_denoiser():
    denoiser = SD3Transformer2DModel(
        sample_size=SIZE // 8,
        patch_size=2,
        in_channels=16,
        num_layers=6,
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
def embed_captions(encoders, ids):
    """Returns the embeddings of all captions."""
    parts = [[tensor.half() for tensor in encode_ids(encoders, part)] for part in ids.split(2000)]
    return [torch.cat(tensors) for tensors in zip(*parts)]


def train_denoiser(state, seed, args, parts, latents, scenes):
    context, pooled = embed_captions(parts["encoders"], scenes["ids"])
    allowed = (~scenes["held_out"]).nonzero().flatten()
    torch.manual_seed(seed)
    denoiser = new_denoiser()
    trainer = Trainer(denoiser, state / "denoiser.pt", peak=args.rate, warm_up=500, hold=0.6, ema=0.9995)
    if CUDA:
        denoiser.compile()
    log(state, f"denoiser: {len(allowed)} images, {sum(w.numel() for w in trainer.weights)} weights")
    losses, started, first = [], time.time(), trainer.step
    while trainer.step < args.steps:
        if args.seconds and time.time() - args.started > args.seconds:
            break
        generator = step_rng(seed + 3, trainer.step)
        chosen = allowed[torch.randint(len(allowed), (args.batch,), generator=generator, device=DEVICE)]
        clean = latents[chosen].float()
        dropped = torch.rand(args.batch, generator=generator, device=DEVICE) < UNCONDITIONAL
        text = torch.where(dropped, len(context) - 1, chosen)
        noise = torch.randn(clean.shape, generator=generator, device=DEVICE)
        t = torch.sigmoid(torch.randn(args.batch, generator=generator, device=DEVICE))
        sigma = (TRAIN_SHIFT * t / (1 + (TRAIN_SHIFT - 1) * t)).view(-1, 1, 1, 1)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
            velocity = denoiser(
                hidden_states=sigma * noise + (1 - sigma) * clean,
                timestep=1000 * sigma.flatten(),
                encoder_hidden_states=context[text].float(),
                pooled_projections=pooled[text].float(),
            ).sample
        loss = F.mse_loss(velocity.float(), noise - clean)
        trainer.update(loss, args.steps)
        losses.append(loss.detach())
        if trainer.step % 500 == 0:
            mean = torch.stack(losses).mean().item()
            speed = (time.time() - started) / (trainer.step - first)
            log(state, f"denoiser {trainer.step}: loss {mean:.4f}, {speed:.4f} s/step")
            losses = []
        if trainer.step % args.save_every == 0:
            trainer.save()
    trainer.save()
    return trainer


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
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=400_000)
    parser.add_argument("--text-steps", type=int, default=3000)
    parser.add_argument("--text-batch", type=int, default=256)
    parser.add_argument("--vae-steps", type=int, default=8000)
    parser.add_argument("--decoder-steps", type=int, default=4000)
    parser.add_argument("--vae-batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60_000, help="steps of the denoiser; may change when resuming")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--save-every", type=int, default=2000)
    parser.add_argument("--seconds", type=float, help="save and stop after this time; the next run goes on")
    args = parser.parse_args()
    args.started = time.time()
    args.state.mkdir(parents=True, exist_ok=True)

    tiny_tokenizers.save_all(args.state / "tokenizers", TEXT_LENGTH, TEXT_LENGTH)
    tokenizers = tiny_tokenizers.load_all(args.state / "tokenizers")
    fields = distance_fields().to(DEVICE)
    scenes = make_scenes(args.state, args.seed, tokenizers, args.scenes)
    encoders = train_text(args.state, args.seed, scenes, tokenizers, args.text_steps, args.text_batch)
    vae = train_vae(args.state, args.seed, fields, scenes, args.vae_steps, args.vae_batch)
    encoded = encode_images(args.state, fields, scenes, vae)
    polish_decoder(args.state, args.seed, vae, encoded, fields, scenes, args.decoder_steps, args.vae_batch)
    vae.eval().requires_grad_(False).register_to_config(shift_factor=encoded["shift"], scaling_factor=encoded["scale"])
    parts = {"tokenizers": tokenizers, "encoders": encoders, "vae": vae}
    trainer = train_denoiser(args.state, args.seed, args, parts, encoded["latents"], scenes)
    export(parts, trainer.average, args.out)
    log(args.state, f"exported after {trainer.step} steps of the denoiser")


if __name__ == "__main__":
    main()
