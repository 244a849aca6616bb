"""Measures another program with the files of a model, for `cargo xtask bench local` and `gpu-check.sh`.

Generates an image in guided steps and prints a line `NAME VALUE` for the seconds before the first denoiser step, of the text
encoders, of a step, of the decoder and of everything, and for the peak of memory in bytes. Values that were not measured are left out.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

PROMPT = "a lighthouse at dusk, oil on canvas"
GUIDANCE = 4.5


def report(**values):
    for name, value in values.items():
        print(name, value, flush=True)


def peak(who):
    return 1024 * resource.getrusage(who).ru_maxrss


def sd_cpp(args):
    """Runs sd-cli. Its file of the denoiser must be a GGUF file or a single file in Stability AI's names."""
    command = [
        args.program,
        "-v",
        "--diffusion-fa",
        "-t",
        str(args.threads),
        "-W",
        str(args.size),
        "-H",
        str(args.size),
    ]
    command += [
        "--steps",
        str(args.steps),
        "--cfg-scale",
        str(GUIDANCE),
        "-p",
        PROMPT,
        "-o",
        os.path.join(tempfile.gettempdir(), "lumenfall-peer.png"),
    ]
    for part in ("diffusion-model", "clip_l", "clip_g", "t5xxl", "vae"):
        command += [f"--{part}", getattr(args, part.replace("-", "_"))]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    values, log = {}, []
    names = {"get_learned_condition": "text", "sampling": "sampling", "decode_first_stage": "decode"}
    for line in process.stdout:
        log.append(line)
        if "generating image: 1/1" in line:
            values["before_steps"] = time.perf_counter() - started
        found = re.search(r"(\w+) completed, taking ([\d.]+)s", line)
        if found and found[1] in names:
            values[names[found[1]]] = float(found[2])
        if "generate_image completed" in line:
            values["total"] = time.perf_counter() - started
    process.wait()
    if "total" not in values:
        sys.exit(f"{args.program} failed:\n{''.join(log[-20:])}")
    values["step"] = values.pop("sampling") / args.steps
    report(**values, peak=peak(resource.RUSAGE_CHILDREN))


def diffusers(args):
    """Runs diffusers with a folder in its layout. On a CUDA card, the first image is not measured: it includes the choice of kernels."""
    started = time.perf_counter()
    import torch
    from diffusers import StableDiffusion3Pipeline

    on_card = args.device == "cuda"
    if on_card and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA card")
    torch.set_num_threads(args.threads)
    has_t5 = os.path.isdir(os.path.join(args.model, "text_encoder_3"))
    missing = {} if has_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(args.model, torch_dtype=getattr(torch, args.dtype), **missing)
    pipeline.to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    times, steps = {}, []

    def now():
        if on_card:
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(function, name):
        def call(*positional, **named):
            start = now()
            times.setdefault(f"first_{name}", start - started)
            result = function(*positional, **named)
            times[name] = now() - start
            return result

        return call

    def generate():
        pipeline(
            PROMPT,
            width=args.size,
            height=args.size,
            num_inference_steps=args.steps,
            guidance_scale=GUIDANCE,
            callback_on_step_end=lambda *state: steps.append(now()) or {},
        )

    if on_card:
        generate()
        torch.cuda.reset_peak_memory_stats()
        steps.clear()
        started = now()
    pipeline.encode_prompt = timed(pipeline.encode_prompt, "text")
    pipeline.vae.decode = timed(pipeline.vae.decode, "decode")
    pipeline.transformer.forward = timed(pipeline.transformer.forward, "forward")
    generate()
    report(
        before_steps=times["first_forward"],
        text=times["text"],
        step=(steps[-1] - steps[0]) / (len(steps) - 1),
        decode=times["decode"],
        total=now() - started,
        peak=torch.cuda.max_memory_allocated() if on_card else peak(resource.RUSAGE_SELF),
    )


def transformers(args):
    """Encodes the prompt and the empty prompt with T5 in f32. CLIP is a small part of the work, and is left out."""
    import torch
    from transformers import T5EncoderModel

    torch.set_num_threads(args.threads)
    model = T5EncoderModel.from_pretrained(os.path.join(args.model, "text_encoder_3"), torch_dtype=torch.float32)
    ids = torch.randint(0, 32000, (2, 256))
    with torch.inference_mode():
        started = time.perf_counter()
        model(ids)
        report(text=time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["sd_cpp", "diffusers", "transformers"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", help="a folder in the layout of diffusers")
    parser.add_argument("--dtype", default="bfloat16", help="the type of diffusers' computations")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="the device of diffusers")
    parser.add_argument("--program", help="the path of sd-cli")
    for part in ("diffusion-model", "clip_l", "clip_g", "t5xxl", "vae"):
        parser.add_argument(f"--{part}", help="a file for sd-cli")
    args = parser.parse_args()
    {"sd_cpp": sd_cpp, "diffusers": diffusers, "transformers": transformers}[args.peer](args)


if __name__ == "__main__":
    main()
