"""Grades the demonstration model: draws every pair of colour and shape and judges what the images show.

    python tools/evaluate.py crates/lumenfall-diffusion/demo
    python tools/evaluate.py crates/lumenfall-diffusion/demo --program target/release/lumenfall

The first command draws with diffusers. The second one draws with the Rust pipeline and needs only numpy and Pillow. The
exit code is 1 if a score is too low.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from judge import judge
from shapes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, SIZE, Scene

STEPS = 28
MIN_SCORES = {"colour": 0.95, "background": 0.95, "shape": 0.85, "held-out": 0.70}


def scenes():
    """Returns all 48 pairs of colour and shape, with alternating backgrounds."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    names = list(BACKGROUNDS)
    return [Scene(colour, shape, names[(i + i // 6) % 4]) for i, (colour, shape) in enumerate(pairs)]


def prompt(scene):
    article = "an" if scene.colour[0] in "aeiou" else "a"
    return f"{article} {scene.colour} {scene.shape} on a {scene.background} background"


def draw_with_diffusers(pipeline):
    """Returns a function that draws images (uint8) of prompts, each from its own seed."""
    import torch

    @torch.inference_mode()
    def draw(prompts, seeds, negative="", guidance=4.0):
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(
            prompts,
            negative_prompt=[negative] * len(prompts),
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=pipeline.tokenizer_3.model_max_length,
            output_type="np",
        ).images
        return np.rint(images * 255).astype(np.uint8)

    return draw


def draw_with_program(program, model):
    """Returns the same function for the command line program `lumenfall`."""

    def draw_one(text, seed, negative, guidance, file):
        options = ["--model", model, "--steps", STEPS, "--seed", seed, "--guidance", guidance, "--output", file]
        if negative:
            options += ["--negative-prompt", negative]
        arguments = [program, "generate", text, *map(str, options)]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return np.array(Image.open(file).convert("RGB"))

    def draw(prompts, seeds, negative="", guidance=4.0):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.png"
            return np.stack([draw_one(text, seed, negative, guidance, file) for text, seed in zip(prompts, seeds)])

    return draw


def contact_sheet(images, path, columns=12):
    rows = [np.concatenate(images[i : i + columns], 1) for i in range(0, len(images), columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def evaluate(draw, sheet, seeds=(0,), guidance=4.0):
    """Returns the fractions of correct colours, backgrounds and shapes, the fraction of held-out pairs with correct
    colour and shape, and the mean overlap with the requested shape."""
    wanted = scenes() * len(seeds)
    numbers = [1000 * seed + i for seed in seeds for i in range(len(wanted) // len(seeds))]
    images = draw([prompt(scene) for scene in wanted], numbers, guidance=guidance)
    contact_sheet(images, sheet)
    verdicts = [judge(image) for image in images]
    both = [v.colour == s.colour and v.shape == s.shape for v, s in zip(verdicts, wanted)]
    return {
        "colour": np.mean([v.colour == s.colour for v, s in zip(verdicts, wanted)]),
        "background": np.mean([v.background == s.background for v, s in zip(verdicts, wanted)]),
        "shape": np.mean([v.shape == s.shape for v, s in zip(verdicts, wanted)]),
        "held-out": np.mean([ok for ok, s in zip(both, wanted) if (s.colour, s.shape) in HELD_OUT]),
        "overlap": np.mean([v.iou.get(s.shape, 0) for v, s in zip(verdicts, wanted)]),
    }


def fraction_of_colour(draw, colour, negative, count=48):
    images = draw(["a circle on a white background"] * count, range(count), negative)
    return np.mean([judge(image).colour == colour for image in images])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--program", type=Path, help="draw with this program `lumenfall` instead of diffusers")
    parser.add_argument("--sheet", type=Path, default=Path("sheet.png"), help="file name of the contact sheets")
    args = parser.parse_args()
    if args.program:
        draw = draw_with_program(args.program, args.model)
    else:
        import torch
        from diffusers import StableDiffusion3Pipeline

        torch.set_num_threads(2)
        draw = draw_with_diffusers(StableDiffusion3Pipeline.from_pretrained(args.model, torch_dtype=torch.float32))

    scores, failures = {}, []
    for guidance in (4.0, 1.0):
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-guidance-{guidance:g}")
        scores[guidance] = evaluate(draw, sheet, seeds=(0, 1), guidance=guidance)
        print(f"guidance {guidance}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores[guidance].items()))
    failures += [f"{name} is below {value}" for name, value in MIN_SCORES.items() if scores[4.0][name] < value]
    if scores[1.0]["overlap"] >= scores[4.0]["overlap"]:
        failures.append("guidance does not improve the shapes")
    for colour in ("red", "blue"):
        before, after = (fraction_of_colour(draw, colour, negative) for negative in ("", colour))
        print(f"fraction of {colour} circles: {before:.3f}, with the negative prompt '{colour}' {after:.3f}")
        if not after < before / 2:
            failures.append(f"the negative prompt '{colour}' has no effect")
    if failures:
        sys.exit("failed: " + "; ".join(failures))


if __name__ == "__main__":
    main()
