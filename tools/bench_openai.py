"""Runs openai-python for `cargo xtask bench remote`: one command and one result per line."""

import base64
import json
import sys
import time

from openai import OpenAI

MODEL = "stable-diffusion-3.5-medium"


def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def main():
    client = OpenAI(base_url=sys.argv[1], api_key="key")
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before, started = memory("VmRSS:"), time.perf_counter()
        if command == "small":
            for _ in range(int(argument)):
                images = client.images.generate(model=MODEL, prompt="a red circle").data
        elif command == "large":
            response = client.images.generate(model=MODEL, prompt="large", response_format="b64_json")
            images = [base64.b64decode(image.b64_json) for image in response.data]
        else:
            sys.exit(f"unknown command {command!r}")
        seconds = time.perf_counter() - started
        assert images
        print(json.dumps({"seconds": seconds, "growth": max(memory("VmHWM:") - before, 0)}), flush=True)


if __name__ == "__main__":
    main()
