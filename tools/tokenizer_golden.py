"""Writes token ids that transformers computes with the full tokenizers of Stable Diffusion 3.5."""

import argparse
import json
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer, T5TokenizerFast

from tiny_tokenizers import END, save_clip

PROMPTS = [
    "",
    " ",
    "a photo of a cat",
    "A Photo Of A CAT",
    "a red circle, a blue square; and (perhaps) a [green] triangle!",
    "don't can't it's we're they've I'm she'll he'd",
    "DON'T STOP, IT'S LATE",
    "wow! what a view!!! really?!",
    "in the year 1984 there were 1,234.56 dollars and 3D models",
    "4k uhd 8K hdr f/1.8 50mm ISO-100",
    "snake_case and kebab-case and CamelCase and path/to/file.txt",
    "email me at someone@example.com or see https://example.com/a?b=c&d=e",
    "crème brûlée, naïve façade, Ångström, Zürich, señor",
    "cafe\u0301 with a combining accent",
    "ﬁne ligatures and ½ fractions, ² squares, ™ marks, Ⅷ",
    "東京の夜、ネオンの街",
    "一只戴着红色帽子的猫",
    "서울의 봄",
    "Привет, мир",
    "صورة قطة",
    "नमस्ते दुनिया",
    "a 🦄 under a 🌈, 👨‍👩‍👧‍👦 and 🇫🇷",
    "tabs\tand\nnewlines\r\nand   many    spaces",
    "  leading and trailing  ",
    "non\u00a0breaking\u200bzero\u2009thin\ufeffspaces",
    "\u201ccurly quotes\u201d \u2018single\u2019 \u2013 en \u2014 em \u2026",
    "a<|endoftext|>b <|startoftext|> c </s> d <pad> e <extra_id_0>",
    "(masterpiece:1.2), ((best quality)), <lora:foo:0.8>, BREAK, trending on artstation",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x",
    "!",
    "a very detailed oil painting of an old lighthouse on a cliff in a storm at night, with waves breaking, " * 12,
    "ABC" * 100,
    "\x00\x07 control \x7f characters",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with clip-merges.txt and t5-tokenizer.json")
    data = parser.parse_args().data
    lines = (data / "clip-merges.txt").read_text().splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_clip(folder / "l", merges, END, 77)
        save_clip(folder / "g", merges, "!", 77)
        (folder / "t5").mkdir()
        (folder / "t5" / "tokenizer.json").write_bytes((data / "t5-tokenizer.json").read_bytes())
        clip_l, clip_g = (CLIPTokenizer.from_pretrained(folder / name) for name in "lg")
        t5 = T5TokenizerFast.from_pretrained(folder / "t5")

    def ids(tokenizer, length):
        return tokenizer(PROMPTS, padding="max_length", max_length=length, truncation=True).input_ids

    rows = [
        # Without padding, which is 49407 (the end token) for CLIP-L and 0 for CLIP-G and T5.
        {
            "prompt": prompt,
            "clip_l": without_padding(l, clip_l.eos_token_id),
            "clip_g": without_padding(g, clip_g.eos_token_id),
            "t5": without_padding(t, t5.eos_token_id),
        }
        for prompt, l, g, t in zip(PROMPTS, ids(clip_l, 77), ids(clip_g, 77), ids(t5, 256))
    ]
    text = ",\n".join(" " + json.dumps(row, ensure_ascii=True) for row in rows)
    (data / "token-ids.json").write_text(f"[\n{text}\n]\n")


def without_padding(ids, end):
    """Returns the ids up to the end token, without the padding."""
    stop = len(ids)
    while stop > 1 and (ids[stop - 1] != end or ids[stop - 2] == end):
        stop -= 1
    return ids[:stop]


if __name__ == "__main__":
    main()
