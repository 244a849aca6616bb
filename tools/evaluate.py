"""Scores the demonstration model: draws every pair of colour and shape and lets the judge say what the pictures show."""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from judge import judge
from shapes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, SIZE, Scene


def scenes():
    """All 48 pairs; the backgrounds take turns."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    names = list(BACKGROUNDS)
    return [Scene(colour, shape, names[(i + i // 6) % 4]) for i, (colour, shape) in enumerate(pairs)]


def prompt(scene):
    article = "an" if scene.colour[0] in "aeiou" else "a"
    return f"{article} {scene.colour} {scene.shape} on a {scene.background} background"


@torch.inference_mode()
def draw(pipeline, prompts, seeds, negative="", guidance=4.0, steps=28):
    """Pictures (uint8) of the prompts, each from its own seed."""
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        prompts,
        negative_prompt=[negative] * len(prompts),
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        max_sequence_length=pipeline.tokenizer_3.model_max_length,
        output_type="np",
    ).images
    return np.rint(pictures * 255).astype(np.uint8)


def contact_sheet(pictures, path, columns=12):
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def evaluate(pipeline, sheet, seeds=(0,), guidance=4.0):
    """Shares of right colours, backgrounds, shapes, and of held-out pairs with both colour and shape right."""
    wanted = scenes() * len(seeds)
    numbers = [1000 * seed + i for seed in seeds for i in range(len(wanted) // len(seeds))]
    pictures = draw(pipeline, [prompt(scene) for scene in wanted], numbers, guidance=guidance)
    contact_sheet(pictures, sheet)
    verdicts = [judge(picture) for picture in pictures]
    both = [v.colour == s.colour and v.shape == s.shape for v, s in zip(verdicts, wanted)]
    return {
        "colour": np.mean([v.colour == s.colour for v, s in zip(verdicts, wanted)]),
        "background": np.mean([v.background == s.background for v, s in zip(verdicts, wanted)]),
        "shape": np.mean([v.shape == s.shape for v, s in zip(verdicts, wanted)]),
        "held-out": np.mean([ok for ok, s in zip(both, wanted) if (s.colour, s.shape) in HELD_OUT]),
    }


def share_of_colour(pipeline, colour, negative, count=48):
    pictures = draw(pipeline, ["a circle on a white background"] * count, range(count), negative)
    return np.mean([judge(picture).colour == colour for picture in pictures])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sheet", type=Path, default=Path("sheet.png"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    pipeline = StableDiffusion3Pipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    for guidance in (4.0, 1.0):
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-guidance-{guidance:g}")
        figures = evaluate(pipeline, sheet, seeds=(0, 1), guidance=guidance)
        print(f"guidance {guidance}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    for colour in ("red", "blue"):
        before, after = (share_of_colour(pipeline, colour, negative) for negative in ("", colour))
        print(f"share of {colour} circles: {before:.3f}, with '{colour}' as the negative prompt {after:.3f}")


if __name__ == "__main__":
    main()
