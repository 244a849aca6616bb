"""Small tokenizers of the kinds that Stable Diffusion 3.5 uses: two byte-level BPEs (CLIP) and a Unigram (T5)."""

import json
import string
from pathlib import Path

from transformers import CLIPTokenizer, T5TokenizerFast

from shapes import WORDS

START, END = "<|startoftext|>", "<|endoftext|>"

# The 256 letters of byte-level BPE in the order of CLIP's vocabulary: printable bytes stand for themselves and come
# first, the others borrow letters from U+0100 on.
BYTE_LETTERS = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
BYTE_LETTERS += [chr(256 + i) for i in range(256 - len(BYTE_LETTERS))]


def merges_for(words):
    """Merges that make one token of every word. A merge ranks after those that earlier words need, so it cannot
    disturb them."""
    merges = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        for left, right in merges:
            i = 0
            while i < len(pieces) - 1:
                if (pieces[i], pieces[i + 1]) == (left, right):
                    pieces[i : i + 2] = [left + right]
                i += 1
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
    return merges


def save_clip(folder, merges, pad, max_length):
    """The files of a CLIP tokenizer as the Stable Diffusion repositories hold them."""
    tokens = BYTE_LETTERS + [c + "</w>" for c in BYTE_LETTERS] + [a + b for a, b in merges] + [START, END]
    vocab = {token: i for i, token in enumerate(tokens)}
    special = {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    config = special | {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(vocab[token]): {
                "content": token,
                "lstrip": False,
                "normalized": token != pad,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in sorted({START, END, pad}, key=vocab.get)
        },
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": max_length,
        "tokenizer_class": "CLIPTokenizer",
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", config)


def save_t5(folder, max_length):
    """A T5 tokenizer of whole words, with single characters to fall back on."""
    words = [form for word in WORDS for form in (word, word.capitalize())]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocab += [("▁" + word, -2.0) for word in dict.fromkeys(words)]
    vocab += [(c, -8.0) for c in string.ascii_letters + string.digits + string.punctuation]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=max_length)
    tokenizer.save_pretrained(folder)
    # The same text whatever version of the library wrote it.
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(Path(folder) / "special_tokens_map.json", special)
    write_json(
        Path(folder) / "tokenizer_config.json",
        special | {"extra_ids": 0, "model_max_length": max_length, "tokenizer_class": "T5Tokenizer"},
    )


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def save_all(folder, clip_length, t5_length):
    """All three tokenizers under their names in a pipeline's folder."""
    folder = Path(folder)
    merges = merges_for(WORDS)
    save_clip(folder / "tokenizer", merges, END, clip_length)
    # The larger CLIP pads with "!", whose number is 0.
    save_clip(folder / "tokenizer_2", merges, "!", clip_length)
    save_t5(folder / "tokenizer_3", t5_length)


def load_all(folder):
    folder = Path(folder)
    return (
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        T5TokenizerFast.from_pretrained(folder / "tokenizer_3"),
    )
