"""CLIP's text: sentences around a class name, and tokens, byte pairs (Sennrich et al., ACL 2016) of lower-cased text.

`clip_merges.txt.gz` holds the merges that CLIP was trained with (Radford et al., ICML 2021), under the MIT licence
in the same folder.
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import pairwise

import torch
from torch import Tensor

from terrazzo.errors import UserError

SIZES = ("small", "medium", "large")

# ViLD's sentences (Gu et al., ICLR 2022) as open-vocabulary segmentation uses them
VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in SIZES),
    *(f"This is a photo of a {size} {{}}." for size in SIZES),
    *(f"There is a {size} {{}} in the scene." for size in SIZES),
)

# CLIP's sentences for ImageNet (Radford et al., ICML 2021), most of them with both "a" and "the"
PICTURES = (
    *("photo", "bad photo", "good photo", "bright photo", "dark photo", "blurry photo", "cropped photo"),
    *("close-up photo", "pixelated photo", "low resolution photo", "jpeg corrupted photo", "black and white photo"),
    *("sculpture", "rendering", "rendition", "tattoo", "drawing", "painting", "sketch", "doodle"),
)
LOOKS = ("hard to see", "clean", "dirty", "cool", "nice", "weird", "small", "large")
MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
IMAGENET = (
    *(f"a {picture} of {article} {{}}." for picture in PICTURES for article in ("a", "the")),
    *(f"a photo of {article} {look} {{}}." for look in LOOKS for article in ("a", "the")),
    *(f"{article} {material} {{}}." for material in MATERIALS for article in ("a", "the")),
    *(f"{picture} of {article} {{}}." for picture in ("graffiti", "art", "itap") for article in ("a", "the")),
    *("a {} in a video game.", "the {} in a video game."),
    *("a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}."),
)

PROMPTS = {"vild": VILD, "imagenet": IMAGENET}


CONTEXT_LENGTH = 77
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


@cache
def byte_characters() -> dict[int, str]:
    """Return a printable character for each byte: its own, or one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}


@cache
def vocabulary() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Return the rank of each merge and the number of each token."""
    packed = resources.files(__package__).joinpath("clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    merges = [(first, second) for first, second in map(str.split, lines)]
    letters = list(byte_characters().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {pair: rank for rank, pair in enumerate(merges)}, {token: number for number, token in enumerate(tokens)}


@cache
def split_word(word: str) -> tuple[str, ...]:
    """Split a word into tokens: neighbours merge, the earliest learned pair first, until no pair is known."""
    ranks, _ = vocabulary()
    letters = [byte_characters()[byte] for byte in word.encode()]
    parts = [*letters[:-1], f"{letters[-1]}</w>"]
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == best:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return tuple(parts)


def tokenize(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Return token numbers (N, length of the longest), zero after the end token. Raises UserError for a long text."""
    rows = [token_numbers(text) for text in texts]
    length = max(map(len, rows))
    if length > context_length:
        text = texts[[len(row) for row in rows].index(length)]
        raise UserError(f"the text '{text}' has {length} tokens; CLIP reads at most {context_length}")
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def token_numbers(text: str) -> list[int]:
    """Return the token numbers of a text, from the start token to the end token."""
    _, numbers = vocabulary()
    clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
    parts = [part for word in WORDS.findall(clean) for part in split_word(word)]
    return [numbers[part] for part in ("<|startoftext|>", *parts, "<|endoftext|>")]
