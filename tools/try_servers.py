"""Runs real servers, and the example `any_server` with each of them. Prints a table for docs/servers.md, and exits with 1 if a
request does not have the expected outcome.

    cargo build --example any_server --example mock_gateway --features testing
    python try_servers.py target/debug/examples --litellm VENV/bin/litellm --sd-server BUILD/bin/sd-server

LiteLLM is the package `litellm[proxy]` of PyPI; the mock gateway is its engine. sd-server is built from the sources in the sdist
of `stable-diffusion-cpp-python`. It runs a Stable Diffusion 3 Medium with the real architecture whose weights are all zero (5 GB
of memory): the images are meaningless, but its log shows which parameters it has read.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

UPSTREAM = "stable-diffusion-3.5-medium"
CONFIG = f"""
model_list:
  - model_name: sd
    litellm_params:
      model: openai/{UPSTREAM}
      api_base: os.environ/UPSTREAM_URL
      api_key: os.environ/UPSTREAM_KEY
litellm_settings:
  num_retries: 0
general_settings:
  master_key: sk-test
"""


def write_png(path, color_type, row):
    chunk = lambda kind, data: len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    head = (64).to_bytes(4, "big") * 2 + bytes([8, color_type, 0, 0, 0])
    rows = zlib.compress((b"\0" + row) * 64)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


class Client:
    """Runs the example `any_server`."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.source, self.mask = folder / "source.png", folder / "mask.png"
        write_png(self.source, 2, bytes([128] * 3 * 64))
        write_png(self.mask, 0, bytes([255] * 32 + [0] * 32))
        self.failed = False

    def run(self, server, request, arguments, expected, seen=lambda: True):
        """Prints a row. `expected` is a part of the output; `seen` says whether the server received the parameters."""
        output = subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env={**os.environ, "SERVER_KEY": "sk-test"},
            timeout=300,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout
        works = expected in output and seen()
        self.failed |= not works
        image = "image" if expected.endswith(("png", "jpg")) else "refused by the client"
        result = image if works else output.strip() or "the parameters did not arrive"
        print(f"| {server} | {request} | {result} |", flush=True)


def wait_for(url, process):
    for _ in range(240):
        if process.poll() is not None:
            sys.exit(f"the server of {url} ended with {process.returncode}")
        try:
            return urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{url} does not respond")


def litellm(client, program, mock_gateway, port=4123):
    config = client.folder / "litellm.yaml"
    config.write_text(CONFIG)
    gateway = subprocess.Popen([mock_gateway], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url, key = gateway.stdout.readline().split()
    environment = {**os.environ, "UPSTREAM_URL": url, "UPSTREAM_KEY": key}
    command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    log = (client.folder / "litellm.log").open("w")
    proxy = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[-1]
    name = f"LiteLLM {version}"
    try:
        wait_for(f"http://127.0.0.1:{port}/health/liveliness", proxy)
        base = ["--server", "litellm", "--url", f"http://127.0.0.1:{port}/v1", "--model", "sd"]
        controls = ["--seed", "7", "--steps", "20", "--guidance", "4.5", "--negative-prompt", "fog"]
        edit = ["--image", client.source, "--mask", client.mask]
        client.run(name, "generation with all controls", [*base, *controls, "a lighthouse"], ".png")
        client.run(name, "generation as bytes", [*base, "--response-format", "b64_json", "a lighthouse"], ".png")
        client.run(name, "edit with a mask", [*base, *edit, "stars"], ".png")
        client.run(name, "edit with a seed", [*base, *edit, "--seed", "7", "stars"], "LiteLLM does not support `seed`")
    finally:
        proxy.terminate()
        received = gateway.communicate()[0].splitlines()
    fields = [json.loads(line.split(" ", 1)[1].rsplit(" files=", 1)[0]) for line in received]
    sent = {"seed": 7, "num_inference_steps": 20, "guidance_scale": 4.5, "negative_prompt": "fog"}
    passed_on = len(fields) == 3 and sent.items() <= fields[0].items()
    # LiteLLM renames the field of a single image.
    files = received[2].rsplit("files=", 1)[1]
    print(
        f"| {name} | requests at its engine | {len(received)}; controls passed on: {passed_on}; files of the edit: {files} |"
    )
    client.failed |= not passed_on or "mask" not in files


def zeros(path, tensors):
    """Writes a safetensors file of zeros in f16, as a sparse file."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def linear(name, inputs, outputs):
    return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}


def denoiser(depth=24):
    width = 64 * depth
    tensors = {
        "x_embedder.proj.weight": [width, 16, 2, 2],
        "x_embedder.proj.bias": [width],
        "pos_embed": [1, 36864, width],
    }
    tensors |= linear("t_embedder.mlp.0", 256, width) | linear("t_embedder.mlp.2", width, width)
    tensors |= linear("y_embedder.mlp.0", 2048, width) | linear("y_embedder.mlp.2", width, width)
    tensors |= linear("context_embedder", 4096, width)
    for index in range(depth):
        for kind in ("context_block", "x_block"):
            block = f"joint_blocks.{index}.{kind}"
            is_last = kind == "context_block" and index == depth - 1
            tensors |= linear(f"{block}.attn.qkv", width, 3 * width)
            tensors |= linear(f"{block}.adaLN_modulation.1", width, (2 if is_last else 6) * width)
            if not is_last:
                tensors |= linear(f"{block}.attn.proj", width, width)
                tensors |= linear(f"{block}.mlp.fc1", width, 4 * width) | linear(f"{block}.mlp.fc2", 4 * width, width)
    tensors |= linear("final_layer.linear", width, 64) | linear("final_layer.adaLN_modulation.1", width, 2 * width)
    return {f"model.diffusion_model.{name}": shape for name, shape in tensors.items()}


def clip(width, layers):
    text = "text_model"
    tensors = {f"{text}.embeddings.token_embedding.weight": [49408, width], "text_projection.weight": [width, width]}
    tensors |= {f"{text}.embeddings.position_embedding.weight": [77, width]}
    for index in range(layers):
        block = f"{text}.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= linear(f"{block}.self_attn.{name}", width, width)
        tensors |= linear(f"{block}.mlp.fc1", width, 4 * width) | linear(f"{block}.mlp.fc2", 4 * width, width)
        for name in ("layer_norm1", "layer_norm2"):
            tensors |= {f"{block}.{name}.weight": [width], f"{block}.{name}.bias": [width]}
    return tensors | {f"{text}.final_layer_norm.{part}": [width] for part in ("weight", "bias")}


def tiny_autoencoder():
    tensors = {}

    def conv(name, inputs, outputs, bias=True):
        tensors[f"{name}.weight"] = [outputs, inputs, 3, 3]
        if bias:
            tensors[f"{name}.bias"] = [outputs]

    def blocks(part, first, count):
        for index in range(first, first + count):
            for layer in (0, 2, 4):
                conv(f"{part}.layers.{index}.conv.{layer}", 64, 64)
        return first + count

    conv("encoder.layers.0", 3, 64)
    index = blocks("encoder", 1, 1)
    for _ in range(3):
        conv(f"encoder.layers.{index}", 64, 64, bias=False)
        index = blocks("encoder", index + 1, 3)
    conv(f"encoder.layers.{index}", 64, 16)
    conv("decoder.layers.0", 16, 64)
    index = 2
    for _ in range(3):
        index = blocks("decoder", index, 3) + 1
        conv(f"decoder.layers.{index}", 64, 64, bias=False)
        index += 1
    conv(f"decoder.layers.{blocks('decoder', index, 1)}", 64, 3)
    return tensors


def sd_server(client, program, port=1299):
    models = {
        "diffusion-model": denoiser(),
        "taesd": tiny_autoencoder(),
        "clip_l": clip(768, 12),
        "clip_g": clip(1280, 32),
    }
    command = ["nice", program, "--listen-port", str(port), "-v"]
    for name, tensors in models.items():
        zeros(client.folder / f"{name}.safetensors", tensors)
        command += [f"--{name}", client.folder / f"{name}.safetensors"]
    path = client.folder / "sd-server.log"
    server = subprocess.Popen(command, stdout=path.open("w"), stderr=subprocess.STDOUT)
    name = "sd-server"

    def read(pattern):
        return lambda: re.search(pattern, path.read_text(errors="replace"), re.DOTALL) is not None

    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models", server)
        base = ["--server", "stable-diffusion.cpp", "--url", f"http://127.0.0.1:{port}/v1", "--size", "64x64"]
        controls = ["--seed", "7", "--steps", "1", "--guidance", "1.5", "--negative-prompt", "fog"]
        seen = read(r'negative_prompt: "fog".*sample_params: \(txt_cfg: 1\.50,[^\n]*sample_steps: 1,.*\bseed: 7,')
        client.run(name, "generation with all controls", [*base, *controls, "a lighthouse"], ".png", seen)
        edit = [*base, "--image", client.source, "--mask", client.mask, "--steps", "4", "--seed", "8"]
        seen = read(r"sample_steps: 4,.*\n  strength: 0\.25,.*\bseed: 8,")
        client.run(name, "edit with a mask and a strength", [*edit, "--strength", "0.25", "stars"], ".png", seen)
        formats = [*base, "--steps", "1", "--output-format", "jpeg", "--n", "2", "two"]
        client.run(name, "two images as JPEG", formats, "image-2.jpg")
        client.run(
            name, "edit as WebP", [*edit, "--output-format", "webp", "stars"], "does not support `output_format`"
        )
    finally:
        server.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path)
    parser.add_argument("--litellm", type=Path)
    parser.add_argument("--sd-server", type=Path)
    arguments = parser.parse_args()
    print("| server | request | result |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        client = Client(arguments.examples.resolve() / "any_server", Path(folder))
        if arguments.litellm:
            litellm(client, arguments.litellm.resolve(), arguments.examples.resolve() / "mock_gateway")
        if arguments.sd_server:
            sd_server(client, arguments.sd_server.resolve())
    sys.exit(client.failed)


if __name__ == "__main__":
    main()
