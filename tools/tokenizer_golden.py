"""Writes token ids that transformers computes with the full tokenizers of Stable Diffusion 3.5: `token-ids.json` with the
ids of various prompts, and `token-hashes.txt` with three hashes for each of 5,000 prompts."""

import argparse
import json
import random
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
    "You should've done this",
    "résumé",
    "-------",
    "a<|EndOfText|>b <|STARTOFTEXT|> c </S> d <PAD> e <Extra_ID_0>",
]

# The first and last code points of scripts and symbols.
SCRIPTS = """
41-5a 61-7a 21-7e 20-7f a1-ff 100-17f 180-24f 250-2af 300-36f 370-3ff 400-44f 400-52f 531-556 561-587 5d0-5ea 591-5ea
620-64a 600-6ff 700-74f 780-7b1 7c0-7ff 900-97f 904-939 980-9ff a00-a7f a80-aff b00-b7f b80-bff c00-c7f c80-cff d00-d7f
d80-dff e01-e5b e80-eff f00-fff 1000-109f 10a0-10ff 1100-11ff 1200-137f 13a0-13f5 1400-167f 1680-169c 16a0-16f8
1780-17ff 1800-18af 1d00-1dbf 1e00-1eff 1f00-1fff 2000-206f 2070-209c 20a0-20bf 2100-218b 2190-22ff 2300-23ff
2460-24ff 2500-257f 25a0-27bf 2800-28ff 2c60-2c7f 2d30-2d67 2e80-2fd5 3000-303f 3041-3096 30a1-30ff 3105-312f
3131-318e 3400-3500 4e00-4fff 7000-9fff a000-a48c a4d0-a4ff a640-a69f ab70-abbf ac00-d7a3 e000-e020 f900-fad9
fb00-fb06 fb50-fdff fe00-fe0f fe30-fe4f fe70-fefc ff01-ff5e ff61-ff9f fff9-fffd 10000-100fa 10330-1034a 10400-1044f
12000-12399 13000-1342f 1d400-1d7ff 1f1e6-1f1ff 1f300-1f5ff 1f600-1f64f 1f900-1f9ff 20000-20100 e0020-e007f
""".split()
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_99>", "</w>", "!"]
SPACES = ["", "", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\u200b"]
LENGTHS = (77, 77, 128)


def many_prompts(words):
    """Returns 5,000 different prompts: repeated characters, literal special tokens, every script, and English."""
    rng = random.Random(0)
    scripts = [[int(end, 16) for end in script.split("-")] for script in SCRIPTS]

    def character():
        return chr(rng.randint(*rng.choice(scripts)))

    def word():
        script = rng.choice(scripts)
        return "".join(chr(rng.randint(*script)) for _ in range(rng.randint(1, 5)))

    def english():
        text = rng.choice(words)
        case = rng.choice([str, str, str.upper, str.title])
        return case(text) + rng.choice(["", "", "", ",", "'s", "'VE", "...", "!", "?", "-", "1984", " 3.5", "n't"])

    def special():
        text = rng.choice(SPECIAL)
        case = rng.choice([str, str, str.upper, str.title, str.swapcase, str.capitalize])
        return case(text)

    prompts = dict.fromkeys(chr(code) * length for code in range(33, 127) for length in range(2, 14))
    sources = [
        (1500, lambda: character() * rng.randint(2, 9)),
        (2000, lambda: "".join(rng.choice([special(), rng.choice(words)]) + rng.choice(SPACES) for _ in range(4))),
        (4400, lambda: rng.choice(SPACES).join(word() for _ in range(rng.randint(1, 3)))),
        (5000, lambda: " ".join(english() for _ in range(rng.randint(1, 5)))),
    ]
    for count, source in sources:
        while len(prompts) < count:
            prompts[source()] = None
    return list(prompts)


def fold(ids):
    """Returns the 32-bit FNV-1a hash of the ids, folded to 16 bits."""
    state = 0x811C9DC5
    for byte in b"".join(id.to_bytes(4, "little") for id in ids):
        state = (state ^ byte) * 0x01000193 % 2**32
    return state >> 16 ^ state & 0xFFFF


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizers", type=Path, help="folder with clip-merges.txt and t5-tokenizer.json")
    parser.add_argument("data", type=Path, help="folder for the results")
    arguments = parser.parse_args()
    tokenizers, data = arguments.tokenizers, arguments.data
    lines = (tokenizers / "clip-merges.txt").read_text().splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_clip(folder / "l", merges, END, 77)
        save_clip(folder / "g", merges, "!", 77)
        (folder / "t5").mkdir()
        (folder / "t5" / "tokenizer.json").write_bytes((tokenizers / "t5-tokenizer.json").read_bytes())
        clip_l, clip_g = (CLIPTokenizer.from_pretrained(folder / name) for name in "lg")
        t5 = T5TokenizerFast.from_pretrained(folder / "t5")

    def ids(tokenizer, length, prompts=PROMPTS):
        return tokenizer(prompts, padding="max_length", max_length=length, truncation=True).input_ids

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

    words = [a + b[: -len("</w>")] for a, b in merges if b.endswith("</w>") and (a + b[: -len("</w>")]).isalpha()]
    prompts = many_prompts([word for word in words[:6000] if word.isascii()])
    columns = [ids(*column, prompts) for column in zip((clip_l, clip_g, t5), LENGTHS)]
    with (data / "token-hashes.txt").open("w") as file:
        for prompt, *rows in zip(prompts, *columns):
            hashes = "".join(f"{fold(row):04x}" for row in rows)
            file.write(f"{hashes} {json.dumps(prompt, ensure_ascii=False)}\n")


def without_padding(ids, end):
    """Returns the ids up to the end token, without the padding."""
    stop = len(ids)
    while stop > 1 and (ids[stop - 1] != end or ids[stop - 2] == end):
        stop -= 1
    return ids[:stop]


if __name__ == "__main__":
    main()
