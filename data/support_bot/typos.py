"""Spelling mistakes as customers make them, from a seeded generator."""

from __future__ import annotations

import random
import re

SOUNDS_LIKE = {
    "receive": "recieve", "received": "recieved", "because": "becuase", "definitely": "definately",
    "address": "adress", "delivery": "delivry", "delivered": "deliverd", "refund": "refound",
    "exchange": "exchnage", "warranty": "waranty", "invoice": "invoise", "voucher": "vaucher",
    "possible": "possibel", "business": "buisness", "receipt": "reciept", "parcel": "parsel",
    "tracking": "traking", "account": "acount", "password": "pasword", "newsletter": "newslettr",
    "minimum": "minimun", "weekend": "weeknd", "jacket": "jaket",
    "sleeping": "sleping", "tomorrow": "tommorow",
    "which": "wich", "there": "their", "your": "youre", "you're": "your", "please": "pls", "thanks": "thx",
    "though": "tho", "really": "realy", "until": "untill", "cancel": "cancle",
    "colour": "color", "friend": "freind", "separate": "seperate", "piece": "peice", "what's": "whats",
    "before": "befor", "should": "shoud", "would": "wuold", "long": "logn", "how": "hwo", "the": "teh",
    "count": "coutn", "shirt": "shrit", "public": "pubilc", "thing": "thign",
}  # fmt: skip
NEIGHBOURS = {
    "a": "s", "e": "w", "i": "o", "o": "p", "u": "z", "s": "d", "t": "r", "n": "m", "r": "t", "l": "k",
    "d": "f", "g": "h", "c": "v", "m": "n", "p": "o", "h": "j", "b": "n", "k": "l", "v": "b", "w": "q",
}  # fmt: skip
WORD = re.compile(r"[A-Za-zö']+")


def swap(word: str, at: int) -> str:
    """`word` with the letters at `at` and `at + 1` exchanged."""
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def drop(word: str, at: int) -> str:
    """`word` without the letter at `at`."""
    return word[:at] + word[at + 1 :]


def double(word: str, at: int) -> str:
    """`word` with the letter at `at` typed twice."""
    return word[: at + 1] + word[at] + word[at + 1 :]


def slip(word: str, at: int) -> str:
    """`word` with the neighbouring key hit at `at`."""
    return word[:at] + NEIGHBOURS.get(word[at], word[at]) + word[at + 1 :]


def can_slip(word: str) -> bool:
    """Whether `word` is long enough to mistype, or usually misspelt."""
    return len(word) >= 4 or word.lower() in SOUNDS_LIKE


def misspell_word(rng: random.Random, word: str) -> str:
    """`word` as it sounds where a usual mistake is known, else with one slipped key inside it."""
    known = SOUNDS_LIKE.get(word.lower())
    if known is not None:
        return known
    edit = rng.choice((swap, swap, drop, drop, double, slip))
    slipped = edit(word, rng.randint(1, len(word) - 3))
    return slipped if slipped != word else double(word, 1)


def misspell(rng: random.Random, text: str) -> str:
    """`text` with about one word in six misspelt and at least one changed; digits stay as they are."""
    spans = [match.span() for match in WORD.finditer(text)]
    loose = [(start, end) for start, end in spans if can_slip(text[start:end])]
    wanted = max(1 + (len(spans) > 6), round(len(spans) * rng.uniform(0.12, 0.22)))
    for start, end in sorted(rng.sample(loose, min(wanted, len(loose))), reverse=True):
        text = text[:start] + misspell_word(rng, text[start:end]) + text[end:]
    if rng.random() < 0.5:
        text = text.lower().replace("fh-", "FH-")
    if rng.random() < 0.4:
        text = text.replace("'", "")
    return text.rstrip(".") if rng.random() < 0.5 else text
