"""Measures diffusers with a model of `cargo xtask make-weights f16 FOLDER --no-t5` on a CUDA card.

Prints the time of a step and of an image in seconds, and the peak of the card's memory in GiB. The first image is not
measured, because it includes the choice of kernels.
"""

import argparse
import time

import torch
from diffusers import StableDiffusion3Pipeline


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=28)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA card")
    pipe = StableDiffusion3Pipeline.from_pretrained(
        arguments.folder,
        text_encoder_3=None,
        tokenizer_3=None,
        torch_dtype=torch.float16,
    ).to("cuda")
    pipe.set_progress_bar_config(disable=True)
    marks = []

    def mark(_pipe, _step, _timestep, kwargs):
        torch.cuda.synchronize()
        marks.append(time.perf_counter())
        return kwargs

    def run(prompt):
        marks.clear()
        start = time.perf_counter()
        pipe(
            prompt,
            width=arguments.size,
            height=arguments.size,
            num_inference_steps=arguments.steps,
            guidance_scale=4.5,
            callback_on_step_end=mark,
        )
        torch.cuda.synchronize()
        return time.perf_counter() - start

    run("a harbour in the morning, watercolour")
    torch.cuda.reset_peak_memory_stats()
    total = run("a lighthouse at dusk, oil on canvas")
    step = (marks[-1] - marks[0]) / (len(marks) - 1)
    print(
        f"step {step:.3f}\ntotal {total:.3f}\npeak {torch.cuda.max_memory_allocated() / 2**30:.2f}"
    )


if __name__ == "__main__":
    main()
