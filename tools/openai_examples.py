"""Runs the examples of the model page with the unmodified `openai` packages of PyPI and npm, and with curl, against the
mock gateway. Prints a table for docs/servers.md, and exits with 1 if an example fails.

    cargo build --example mock_gateway --features testing
    npm install --prefix FOLDER openai
    python openai_examples.py target/debug/examples/mock_gateway FOLDER
"""

import base64
import json
import random
import subprocess
import sys
import tempfile
import urllib.request
import zlib
from pathlib import Path

import openai

MODEL = "stable-diffusion-3.5-medium"
# The page shows an empty prompt, which the gateway's schema does not allow. This is the page's example prompt.
PROMPT = 'A hand-painted wooden sign hanging above a cozy bakery that says "FRESH SOURDOUGH DAILY"'
EDIT = "Add a starry night sky to this image"
SIZE = "1024x1024"


def write_png(path):
    """Writes a PNG of 3 MB, for which curl sends `Expect: 100-continue`, from gray noise."""
    chunk = lambda kind, data: len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    noise = random.Random(1)
    rows = b"".join(b"\0" + noise.randbytes(1024 * 3) for _ in range(1024))
    head = (1024).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    )


def python_examples(base_url, key, source):
    client = openai.OpenAI(api_key=key, base_url=base_url)
    yield "generation", client.images.generate(model=MODEL, prompt=PROMPT, size=SIZE).model_dump()
    with source.open("rb") as image:
        yield "edit", client.images.edit(model=MODEL, image=image, prompt=EDIT, size=SIZE).model_dump()
    events = client.images.generate(model=MODEL, prompt=PROMPT, size=SIZE, stream=True, partial_images=2)
    yield "streamed generation", [event.model_dump() for event in events]


def javascript_examples(base_url, key, source, packages):
    script = Path(__file__).with_suffix(".mjs")
    copy = packages / script.name  # node looks for packages next to the program
    copy.write_text(script.read_text())
    output = subprocess.run(
        ["node", copy, base_url, key, source], check=True, capture_output=True, text=True, timeout=60
    )
    yield from json.loads(output.stdout).items()


def curl_examples(base_url, key, source):
    def curl(endpoint, *arguments):
        command = ["curl", "-sSf", "-X", "POST", f"{base_url}/images/{endpoint}", "-H", f"Authorization: Bearer {key}"]
        return json.loads(subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=60).stdout)

    body = json.dumps({"model": MODEL, "prompt": PROMPT, "size": SIZE})
    yield "generation", curl("generations", "-H", "Content-Type: application/json", "-d", body)
    form = [f"model={MODEL}", f"image=@{source}", f"prompt={EDIT}", f"size={SIZE}"]
    yield "edit", curl("edits", *(argument for field in form for argument in ("-F", field)))


def check(example, result):
    """Returns what is wrong with the result of an example, or None."""
    if example.startswith("streamed"):
        kinds = [event["type"].split(".")[1] for event in result]
        images = [base64.b64decode(event["b64_json"]) for event in result]
        is_right = kinds == ["partial_image", "partial_image", "completed"]
        return None if is_right and all(map(is_png, images)) else f"events {kinds}"
    [image] = result["data"]
    expected = EDIT if example == "edit" else PROMPT
    if image["revised_prompt"] != expected:
        return f"revised prompt {image['revised_prompt']!r}"
    with urllib.request.urlopen(image["url"]) as response:
        return None if is_png(response.read()) else "the URL is not an image"


def is_png(data):
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def main():
    server, packages = sys.argv[1], Path(sys.argv[2]).resolve()
    gateway = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    base_url, key = gateway.stdout.readline().split()
    npm = json.loads((packages / "node_modules/openai/package.json").read_text())["version"]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip().lstrip("v")
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1]
    failed = False
    print("| client | example | result |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.png"
        write_png(source)
        for client, examples in {
            f"openai {openai.__version__} (PyPI)": python_examples(base_url, key, source),
            f"openai {npm} (npm), Node {node}": javascript_examples(base_url, key, source, packages),
            f"curl {curl}": curl_examples(base_url, key, source),
        }.items():
            for example, result in examples:
                problem = check(example, result)
                failed |= problem is not None
                print(f"| {client} | {example} | {problem or 'works'} |")
    received, _ = gateway.communicate()
    edits = [line.rsplit("files=", 1)[1] for line in received.splitlines() if line.startswith("edits")]
    failed |= edits != ["image"] * 3
    print(f"\nThe edits uploaded the files {', '.join(edits)}.")
    sys.exit(failed)


if __name__ == "__main__":
    main()
