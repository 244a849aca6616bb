"""Writes the reference values of prompts with weights, in chunks, and separate for each encoder.

    python prompts_golden.py COMFYUI WEBUI crates/lumenfall-diffusion/tests

COMFYUI and WEBUI are checkouts of github.com/comfyanonymous/ComfyUI and github.com/AUTOMATIC1111/stable-diffusion-webui. Their own
code parses the prompts, divides them into chunks and weighs the outputs of the encoders, which transformers computes for the golden
model; golden.py must have written it before. Separate prompts are encoded by diffusers.
"""

import argparse
import ast
import json
import logging
import math
import numbers
import os
import random
import re
import types
from collections import namedtuple
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import save_file
from transformers import CLIPTokenizer, T5TokenizerFast

T5_LENGTH = 64
LONG = "a (small:1.3) red circle at the top left, ((and)) a large blue star in the middle (on: 0.6) a \\(white\\) background, "
CASES = {
    "comfyui": ("comfyui", "truncate", "a (red:1.4) circle (on (a:0.5) ((white))) background"),
    "a1111": ("a1111", "truncate", "a (red:1.4) circle (on [a] ((white:0.7))) background"),
    "comfyui_chunks": ("comfyui", "chunks", LONG * 3),
    "a1111_chunks": ("a1111", "chunks", f"(red:1.2) star BREAK {LONG}BREAK {LONG * 2}"),
    # ComfyUI removes the backslashes without weights, too.
    "plain_chunks": ("off", "chunks", LONG.replace("\\", "") * 3),
}
SEPARATE = {
    "prompt": "a red circle",
    "prompt_2": "blue square, " * 30,
    "prompt_3": "a large star on a white background",
}
# Parts of random prompts. The notation of A1111 gives BREAK a special weight, so that it has another meaning in brackets.
PIECES = [*r"( ( ) ) [ ] : :1.2) :0.5) :-1) \ \( \) \\ a , 1 é".split(), ": 2 )", "b c", " "]  # noqa: SIM905
PROMPTS = [
    "",
    "()",
    ")(",
    "(()",
    "((a)",
    "(a (b)",
    "(a) b)",
    "a) (b:1.2) ((c:2)",
    "(a:)",
    "(:1.2)",
    "(a:1.2:1.3)",
    "(a: 1.2 )",
    "(a:1e2)",
    "(a:+.5)",
    "(a:1.)",
    "(a:-1)",
    "text:1.4",
    "[a:1.2]",
    "[[a]]",
    "[a",
    "(a]",
    "\\(a\\) (b\\))",
    "\\\\(a:1.8)",
    "\\[a\\]",
    "a\\b",
    "foo ((((lol (cat:666) attack:100)))) baz",
    "foo ((((lol (cat:666) attack):100))) baz",
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
    "a BREAK b",
    "BREAK a BREAK\nBREAK b BREAK",
    "BREAKS xBREAK BREAK_ a,BREAK,b",
    "(a:0) ((b))",
    "a:b (c:d:2)",
]


def definitions(path, names, namespace):
    """Executes the definitions of these names in a file."""
    tree = ast.parse(path.read_text())

    def defines(node):
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        return any(getattr(target, "name", getattr(target, "id", None)) in names for target in targets)

    body = [node for node in tree.body if defines(node)]
    # The files cannot be imported without the rest of the programs.
    exec(compile(ast.Module(body, []), str(path), "exec"), namespace)  # noqa: S102
    return types.SimpleNamespace(**{name: namespace[name] for name in names})


def comfyui(folder):
    management = types.SimpleNamespace(intermediate_device=lambda: "cpu")
    names = ["gen_empty_tokens", "ClipTokenWeightEncoder", "parse_parentheses", "token_weights"]
    names += ["escape_important", "unescape_important", "SDTokenizer"]
    namespace = {"torch": torch, "re": re, "os": os, "logging": logging, "numbers": numbers}
    namespace |= {"model_management": management, "CLIPTokenizer": CLIPTokenizer}
    return definitions(folder / "comfy/sd1_clip.py", names, namespace)


def webui(folder):
    parser = definitions(
        folder / "modules/prompt_parser.py", ["re_attention", "re_break", "parse_prompt_attention"], {"re": re}
    )
    options = types.SimpleNamespace(emphasis="Original", comma_padding_backtrack=20)
    namespace = {"torch": torch, "math": math, "namedtuple": namedtuple, "prompt_parser": parser, "opts": options}
    path = folder / "modules/sd_hijack_clip.py"
    result = definitions(path, ["PromptChunk", "PromptChunkFix", "TextConditionalModel"], namespace)
    emphasis = definitions(folder / "modules/sd_emphasis.py", ["Emphasis", "EmphasisOriginal"], {"torch": torch})
    return types.SimpleNamespace(parser=parser, chunks=result, emphasis=emphasis.EmphasisOriginal)


def clip_output(encoder, ids):
    output = encoder(torch.tensor(ids), output_hidden_states=True)
    return output.hidden_states[-2], output.text_embeds


def padded(tensor, width):
    return torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]))


class ComfyUi:
    """SD3ClipModel of comfy/text_encoders/sd3_clip.py, with the encoders of transformers."""

    def __init__(self, source, pipe, model):
        self.source, self.pipe = source, pipe
        clip = {"tokenizer_class": CLIPTokenizer}
        t5 = {"tokenizer_class": T5TokenizerFast, "has_start_token": False, "pad_to_max_length": False}
        t5 |= {"max_length": 99999999, "min_length": T5_LENGTH}
        self.tokenizers = [
            source.SDTokenizer(model / "tokenizer", **clip),
            source.SDTokenizer(model / "tokenizer_2", pad_with_end=False, **clip),
            source.SDTokenizer(model / "tokenizer_3", pad_with_end=False, **t5),
        ]

    def encode(self, prompt, weights=True):
        encoders = [
            lambda ids: clip_output(self.pipe.text_encoder, ids),
            lambda ids: clip_output(self.pipe.text_encoder_2, ids),
            lambda ids: (self.pipe.text_encoder_3(torch.tensor(ids))[0], None),
        ]
        outputs = []
        for tokenizer, encode in zip(self.tokenizers, encoders):
            model = self.source.ClipTokenWeightEncoder()
            model.encode = encode
            model.special_tokens = {
                "start": tokenizer.start_token,
                "end": tokenizer.end_token,
                "pad": tokenizer.pad_token,
            }
            tokens = tokenizer.tokenize_with_weights(prompt, disable_weights=not weights)
            if tokenizer is self.tokenizers[2]:
                assert len(tokens) == 1
                tokens = [truncated(tokens[0], T5_LENGTH, tokenizer.end_token)]
            outputs.append(model.encode_token_weights(tokens))
        (l, l_pooled), (g, g_pooled), (t5, _) = outputs
        clip = padded(torch.cat([l, g], -1), t5.shape[-1])
        return torch.cat([clip, t5], -2), torch.cat([l_pooled, g_pooled], -1)


def truncated(tokens, length, end):
    return tokens if len(tokens) <= length else [*tokens[: length - 1], (end, 1.0)]


class Webui:
    """Sd3ClipLG and Sd3T5 of modules/models/sd3/sd3_cond.py, with the encoders of transformers."""

    def __init__(self, source, pipe):
        self.source, self.pipe = source, pipe

    def encode(self, prompt):
        pipe, width = self.pipe, self.pipe.text_encoder_3.config.d_model
        model = self.source.chunks.TextConditionalModel.__new__(self.source.chunks.TextConditionalModel)
        torch.nn.Module.__init__(model)
        embeddings = types.SimpleNamespace(find_embedding_at_position=lambda tokens, position: (None, 0))
        model.hijack = types.SimpleNamespace(embedding_db=embeddings)
        model.chunk_length, model.comma_token = 75, None
        model.id_start, model.id_end = pipe.tokenizer.bos_token_id, pipe.tokenizer.eos_token_id
        model.tokenize = lambda texts: pipe.tokenizer(texts, truncation=False, add_special_tokens=False)["input_ids"]
        rows, first = [], None
        for chunk in model.tokenize_line(prompt)[0]:
            end = chunk.tokens.index(model.id_end)
            padded_g = chunk.tokens[: end + 1] + [0] * (76 - end)
            l, l_pooled = clip_output(pipe.text_encoder, [chunk.tokens])
            g, g_pooled = clip_output(pipe.text_encoder_2, [padded_g])
            emphasis = self.source.emphasis()
            emphasis.tokens, emphasis.multipliers = [chunk.tokens], torch.tensor([chunk.multipliers])
            emphasis.z = padded(torch.cat([l, g], -1), width)
            emphasis.after_transformers()
            rows.append(emphasis.z)
            first = torch.cat([l_pooled, g_pooled], -1) if first is None else first
        # T5 has no weights.
        texts = [
            text
            for text, weight in self.source.parser.parse_prompt_attention(prompt)
            if (text, weight) != ("BREAK", -1)
        ]
        ids = pipe.tokenizer_3(texts, truncation=False, add_special_tokens=False)["input_ids"]
        ids = [id for part in ids for id in part][: T5_LENGTH - 1] + [pipe.tokenizer_3.eos_token_id]
        ids += [0] * (T5_LENGTH - len(ids))
        return torch.cat([*rows, pipe.text_encoder_3(torch.tensor([ids]))[0]], -2), first


def parsed(parse, prompt):
    """Returns the parts of a prompt, or nothing if the parser fails or has a number that is not finite."""
    try:
        parts = [[text, weight] for text, weight in parse(prompt)]
    except (ValueError, RecursionError):
        return None
    return parts if all(math.isfinite(weight) for _, weight in parts) else None


def write_weights(path, comfy, web):
    generator = random.Random(0)
    prompts = dict.fromkeys(PROMPTS)
    while len(prompts) < 300:
        prompts["".join(generator.choice(PIECES) for _ in range(generator.randint(3, 14)))] = None

    def by_comfyui(prompt):
        parts = comfy.token_weights(comfy.escape_important(prompt), 1.0)
        return [(comfy.unescape_important(text), weight) for text, weight in parts]

    rows = [
        {
            "prompt": prompt,
            "comfyui": parsed(by_comfyui, prompt),
            "a1111": parsed(web.parser.parse_prompt_attention, prompt),
        }
        for prompt in prompts
    ]
    path.write_text("[\n" + ",\n".join(" " + json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("webui", type=Path)
    parser.add_argument("tests", type=Path, help="folder with data and golden")
    arguments = parser.parse_args()
    golden = arguments.tests / "golden"
    comfy, web = comfyui(arguments.comfyui), webui(arguments.webui)
    write_weights(arguments.tests / "data/prompt-weights.json", comfy, web)

    pipe = StableDiffusion3Pipeline.from_pretrained(golden / "model")
    tensors, cases = {}, {}

    def keep(name, context, pooled, **parameters):
        tensors[f"{name}.context"], tensors[f"{name}.pooled"] = context[0].contiguous(), pooled.contiguous()
        cases[name] = parameters | {"t5_tokens": T5_LENGTH}

    for name, (weights, long_prompts, prompt) in CASES.items():
        if weights == "a1111":
            encoded = Webui(web, pipe).encode(prompt)
        else:
            encoded = ComfyUi(comfy, pipe, golden / "model").encode(prompt, weights != "off")
        assert long_prompts == "chunks" or encoded[0].shape[1] == 77 + T5_LENGTH
        keep(name, *encoded, weights=weights, long_prompts=long_prompts, prompt=prompt)
    context, _, pooled, _ = pipe.encode_prompt(
        **SEPARATE, do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH
    )
    keep("separate", context, pooled, weights="off", long_prompts="truncate", **SEPARATE)
    save_file(tensors, golden / "prompts.safetensors")
    (golden / "prompts.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
