"""The values that fill slots: gear, towns, names, dates, order numbers. All invented or generic."""

from __future__ import annotations

import random
from collections.abc import Mapping

ITEMS: Mapping[str, tuple[str, ...]] = {
    "general": (
        "camping kettle", "two-person tent", "down jacket", "pair of hiking boots", "headlamp",
        "rain poncho", "folding chair", "cool box", "hammock", "merino shirt", "fleece jumper",
        "travel towel", "45-litre backpack", "day pack", "camping stove", "water filter", "thermos flask",
        "lantern", "sleeping mat", "sleeping bag", "trekking pole", "bike pannier", "dry bag",
        "pocket knife", "enamel mug", "picnic blanket", "garden hose", "bird feeder", "fire bowl",
        "cast-iron pan", "wool blanket", "rain jacket", "softshell vest", "sun hat", "beanie",
        "pair of gloves", "climbing rope", "harness", "first-aid kit", "compass", "child carrier",
        "kids' rain suit", "bivvy bag", "tarp", "windbreak", "folding table", "water bottle",
        "cargo bike cover", "planter", "watering can", "door mat", "storm lighter", "pair of gaiters",
        "neck warmer", "belt bag", "camp pillow",
    ),
    "footwear": (
        "pair of hiking boots", "pair of trail shoes", "pair of rubber boots", "pair of hut slippers",
        "pair of climbing shoes", "pair of winter boots", "pair of trekking sandals",
        "pair of approach shoes",
    ),
    "wearable": (
        "down jacket", "merino shirt", "fleece jumper", "rain jacket", "softshell vest", "sun hat",
        "pair of gloves", "pair of hiking boots", "pair of trail shoes", "windproof jacket",
        "pair of walking trousers", "wool cardigan", "kids' rain suit", "cycling cape",
        "pair of thermal leggings", "belt",
    ),
    "hard": (
        "camping kettle", "headlamp", "folding chair", "cool box", "camping stove", "thermos flask",
        "lantern", "trekking pole", "cast-iron pan", "enamel mug", "fire bowl", "bird feeder",
        "watering can", "folding table", "water filter", "planter", "camping lamp", "oil lamp", "toboggan",
        "solar panel",
    ),
    "technical": (
        "two-person tent", "45-litre backpack", "camping stove", "headlamp", "trekking pole",
        "folding chair", "child carrier", "water filter", "cool box", "bike pannier", "sleeping mat",
        "family tent", "harness", "folding table", "storm lighter", "lantern", "roof box", "espresso pot",
    ),
    "bulky": (
        "family tent", "kayak", "garden bench", "roof box", "log store", "camping cupboard", "bike trailer",
        "hot tub", "raised bed", "picnic table",
    ),
}  # fmt: skip
TOWNS = (
    "Ghent", "Freiburg", "Graz", "Lyon", "Turku", "Bergen", "Aarhus", "Utrecht", "Girona", "Trento",
    "Galway", "Innsbruck", "Leuven", "Malmö", "Annecy", "Ulm", "Bilbao", "Porto", "Maribor", "Brno",
    "Kassel", "Bremen",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
FIRST_NAMES = (
    "Marta", "Jonas", "Elif", "Henrik", "Sofia", "Tomasz", "Ingrid", "Paolo", "Aoife", "Luc", "Katrin",
    "Emre", "Noor", "Pieter", "Beatriz", "Oskar", "Hanna", "Dario", "Maeve", "Stefan", "Yara", "Milan",
    "Linnea", "Hugo",
)  # fmt: skip
LAST_NAMES = (
    "Lindqvist", "Okafor", "Brandt", "Moreau", "Kovac", "Ferrante", "Doyle", "Haaland", "Wouters", "Nowak",
    "Sandoval", "Pereira", "Aydin", "Keller", "Virtanen", "Byrne", "Rossi", "Novotny", "Jansen", "Fischer",
)  # fmt: skip


def with_article(noun: str) -> str:
    """`noun` behind its indefinite article."""
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def draw_slots(rng: random.Random, *, item_class: str) -> dict[str, str]:
    """One value for every slot that doesn't depend on a fact's context."""
    item = rng.choice(ITEMS[item_class])
    return {
        "item": item,
        "a_item": with_article(item),
        "town": rng.choice(TOWNS),
        "order": f"FH-{rng.randrange(100_000, 1_000_000)}",
        "date": f"{rng.randint(1, 28)} {rng.choice(MONTHS)}",
        "amount": f"{rng.randint(18, 240)}.{rng.choice(('00', '50', '90', '95'))} EUR",
        "points": str(rng.randrange(120, 4_000, 10)),
        "count": str(rng.randint(8, 60)),
        "name": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
    }
