"""Creates small tokenizers like those of Stable Diffusion 3.5: two of byte-level BPE (CLIP) and one of Unigram (T5)."""

import json
import string
from pathlib import Path

from transformers import CLIPTokenizer, T5TokenizerFast

from scenes import WORDS

START, END = "<|startoftext|>", "<|endoftext|>"

# The characters that represent the 256 bytes, in the order of CLIP's vocabulary: first the printable bytes themselves,
# then characters from U+0100 for the other bytes.
BYTE_LETTERS = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
BYTE_LETTERS += [chr(256 + i) for i in range(256 - len(BYTE_LETTERS))]


def merges_for(words):
    """Returns merges that result in one token for each word. The merges of a word follow those of earlier words, so
    they do not change how those are tokenized."""
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
    """Writes the files of a CLIP tokenizer, as in the Stable Diffusion repositories."""
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


def save_t5(folder, words, max_length):
    """Writes a T5 tokenizer of whole words, with single characters for other words."""
    words = [form for word in words for form in (word, word.capitalize())]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocab += [("▁" + word, -2.0) for word in dict.fromkeys(words)]
    vocab += [(c, -8.0) for c in string.ascii_letters + string.digits + string.punctuation]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=max_length)
    tokenizer.save_pretrained(folder)
    # These files do not depend on the library's version.
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(Path(folder) / "special_tokens_map.json", special)
    write_json(
        Path(folder) / "tokenizer_config.json",
        special | {"extra_ids": 0, "model_max_length": max_length, "tokenizer_class": "T5Tokenizer"},
    )


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def save_all(folder, clip_length, t5_length, words=WORDS):
    """Writes all three tokenizers of these words to the folder of a pipeline."""
    folder = Path(folder)
    merges = merges_for(words)
    save_clip(folder / "tokenizer", merges, END, clip_length)
    # The padding token of the larger CLIP is "!", whose id is 0.
    save_clip(folder / "tokenizer_2", merges, "!", clip_length)
    save_t5(folder / "tokenizer_3", words, t5_length)


def load_all(folder):
    folder = Path(folder)
    return (
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        T5TokenizerFast.from_pretrained(folder / "tokenizer_3"),
    )
