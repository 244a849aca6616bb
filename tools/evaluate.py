"""Grades the demonstration model: draws prompts that its training did not contain and judges what the images show.

    python tools/evaluate.py crates/lumenfall-diffusion/demo
    python tools/evaluate.py crates/lumenfall-diffusion/demo --program target/release/lumenfall

The first command draws with diffusers, the second one with the Rust pipeline. The exit code is 1 if a score is too low.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from judge import Judge
from scenes import ARRANGEMENTS, BACKGROUNDS, COLOURS, HELD_OUT, PLACES, SIZES, Scene, Thing, plain_caption
from subjects import GLYPHS, SHAPES, SIZE

STEPS = 28
MIN_SCORES = {
    "shape": 0.98, "overlap": 0.92, "colour": 0.99, "background": 0.99, "size": 0.95, "place": 0.95,
    "two things": 0.90, "letters": 0.90,
}  # fmt: skip


def held_out_scenes(count):
    """Returns scenes of pairs of colour and shape that the training did not contain."""
    rng = np.random.default_rng(42)
    pairs = sorted(HELD_OUT)
    scenes = []
    for i in range(count):
        size = list(SIZES)[rng.integers(3)]
        place = [None, *PLACES][rng.integers(6)]
        background = list(BACKGROUNDS)[rng.integers(6)]
        scenes.append(Scene((Thing(*pairs[i % len(pairs)], size),), background, place))
    return scenes


def pair_scenes(count):
    """Returns scenes with two different shapes of different colours."""
    rng = np.random.default_rng(43)
    scenes = []
    for _ in range(count):
        colours, shapes = rng.choice(list(COLOURS), 2, replace=False), rng.choice(list(SHAPES), 2, replace=False)
        things = tuple(Thing(str(colour), str(shape)) for colour, shape in zip(colours, shapes))
        layout = list(ARRANGEMENTS)[rng.integers(4)]
        scenes.append(Scene(things, list(BACKGROUNDS)[rng.integers(6)], layout))
    return scenes


def letter_scenes(repeat):
    """Returns scenes with each letter and digit."""
    rng = np.random.default_rng(44)
    names = [(list(COLOURS)[rng.integers(10)], list(BACKGROUNDS)[rng.integers(6)]) for _ in range(repeat * len(GLYPHS))]
    return [Scene((Thing(c, GLYPHS[i % len(GLYPHS)]),), b) for i, (c, b) in enumerate(names)]


def draw_with_diffusers(pipeline):
    """Returns a function that draws images (uint8) of prompts, each from its own seed."""
    import torch

    @torch.inference_mode()
    def draw(prompts, seeds, negative="", guidance=4.0):
        pipeline.set_progress_bar_config(disable=True)
        return np.concatenate(
            [part(prompts[i : i + 25], seeds[i : i + 25], negative, guidance) for i in range(0, len(prompts), 25)]
        )

    def part(prompts, seeds, negative, guidance):
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


def contact_sheet(images, path, columns=16):
    blank = np.full_like(images[0], 255)
    images = list(images) + [blank] * (-len(images) % columns)
    rows = [np.concatenate(images[i : i + columns], 1) for i in range(0, len(images), columns)]
    Image.fromarray(np.concatenate(rows)).save(path)


def grade_one(judge, image, scene):
    """Returns which properties of a scene with one shape are correct."""
    background, things = judge.look(image)
    wanted = scene.things[0]
    scores = dict.fromkeys(["shape", "overlap", "colour", "size", "place"], 0.0)
    scores["background"] = float(background == scene.background)
    if len(things) == 1:
        seen = things[0]
        scores["shape"] = float(seen.shape == wanted.subject)
        scores["overlap"] = seen.overlaps[wanted.subject]
        scores["colour"] = float(seen.colour == wanted.colour)
        scores["size"] = float(seen.size(1) == wanted.size)
        scores["place"] = float(seen.place() == (scene.layout or "center"))
    return scores


def grade_pair(judge, image, scene):
    """Returns whether both things have the correct colour and shape and the correct arrangement."""
    background, things = judge.look(image)
    if background != scene.background or len(things) != 2:
        return False
    dx, dy = ARRANGEMENTS[scene.layout]
    things.sort(key=lambda seen: -(dx * seen.x + dy * seen.y))
    return all((seen.colour, seen.shape) == (t.colour, t.subject) for seen, t in zip(things, scene.things))


def grade_letter(judge, image, scene):
    """Returns whether the letter is read correctly and has the correct colours."""
    background, things = judge.look(image)
    wanted = scene.things[0]
    return len(things) == 1 and (things[0].glyph, things[0].colour, background) == (
        wanted.subject, wanted.colour, scene.background
    )  # fmt: skip


def evaluate(draw, judge, sheet, guidance=4.0, singles=200, pairs=100, letters=2, show=lambda line: None):
    """Returns the fractions of correct properties of held-out scenes, the mean overlap with the wanted shapes, and the
    fractions of pairs and letters that are entirely correct."""
    groups = {"shapes": held_out_scenes(singles), "pairs": pair_scenes(pairs), "letters": letter_scenes(letters)}
    images = {}
    for name, scenes in groups.items():
        images[name] = draw([plain_caption(scene) for scene in scenes], range(len(scenes)), guidance=guidance)
        contact_sheet(images[name], sheet.with_stem(f"{sheet.stem}-{name}"))
    one = [grade_one(judge, image, scene) for image, scene in zip(images["shapes"], groups["shapes"])]
    for scene, scores in zip(groups["shapes"], one):
        wrong = [f"{name} {value:.2f}" for name, value in scores.items() if value < (0.92 if name == "overlap" else 1)]
        if wrong:
            show(f"  {plain_caption(scene)}: {', '.join(wrong)}")
    result = {name: float(np.mean([scores[name] for scores in one])) for name in one[0]}
    for key, name, grade in (("two things", "pairs", grade_pair), ("letters", "letters", grade_letter)):
        right = [grade(judge, image, scene) for image, scene in zip(images[name], groups[name])]
        for scene, ok in zip(groups[name], right):
            if not ok:
                show(f"  {plain_caption(scene)}: wrong")
        result[key] = float(np.mean(right))
    return result


def fraction_of_colour(draw, judge, colour, negative, count=48):
    images = draw(["a circle on a white background"] * count, range(count), negative)
    return np.mean([any(thing.colour == colour for thing in judge.look(image)[1]) for image in images])


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

        draw = draw_with_diffusers(StableDiffusion3Pipeline.from_pretrained(args.model, torch_dtype=torch.float32))

    judge = Judge()
    scores = evaluate(draw, judge, args.sheet, show=print)
    print("guidance 4: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    failures = [f"{name} is below {value}" for name, value in MIN_SCORES.items() if scores[name] < value]
    plain = evaluate(draw, judge, args.sheet.with_stem(args.sheet.stem + "-guidance-1"), guidance=1.0, letters=1)
    print("guidance 1: " + ", ".join(f"{name} {value:.3f}" for name, value in plain.items()))
    if plain["overlap"] >= scores["overlap"]:
        failures.append("guidance does not improve the shapes")
    for colour in ("brown", "green"):
        before, after = (fraction_of_colour(draw, judge, colour, negative) for negative in ("", colour))
        print(f"fraction of {colour} circles: {before:.3f}, with the negative prompt '{colour}' {after:.3f}")
        if not after < before / 2:
            failures.append(f"the negative prompt '{colour}' has no effect")
    if failures:
        sys.exit("failed: " + "; ".join(failures))


if __name__ == "__main__":
    main()
