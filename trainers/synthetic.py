"""A corpus that needs no download: plain sentences from templates, which state no fact about anyone.

For the quickstart and the tests. It is easy enough for a model of a million parameters to learn within
seconds, and varied enough that a low loss does not come from memorised sentences.
"""

import random
from collections.abc import Iterator

WORDS = {
    "adjective": "old young small tall quiet busy kind tired happy careful curious patient gentle proud "
    "clever cheerful sleepy brave honest calm",
    "person": "farmer teacher baker doctor child woman man neighbour driver gardener painter sailor "
    "student singer builder tailor nurse miller fisher shepherd",
    "animal": "dog cat horse goat bird duck fox sheep donkey rabbit mouse hen owl pig cow",
    "thing": "basket letter lamp book chair blanket hammer kettle ladder bottle ribbon bucket clock "
    "mirror candle wheel map key coat drum",
    "place": "market river garden village hill forest station bridge harbour kitchen field road "
    "library square valley orchard mill shore",
    "time": "morning evening afternoon night summer winter spring autumn",
    "moved": "walked ran hurried travelled wandered returned drove came went rode",
    "handled": "carried found dropped painted mended sold bought cleaned hid lost opened moved borrowed",
    "saw": "watched saw heard followed met remembered liked helped called fed",
    "weather": "rain wind snow sun fog storm frost heat",
    "felt": "warm cold bright dark empty full noisy green dry wet",
    "number": "two three four five six seven many several",
}
TEMPLATES = (
    "The {adjective} {person} {moved} to the {place} in the {time}.",
    "A {person} {handled} the {thing} near the {place}.",
    "In the {time} the {adjective} {animal} {moved} along the {place}.",
    "The {person} and the {person} {handled} {number} {thing}s before the {time}.",
    "It was a {felt} {time}, and the {weather} came over the {place}.",
    "The {animal} {saw} the {person} at the {place}.",
    "There was a {adjective} {animal} in the {place}, and it was {felt}.",
    "Every {time} the {person} {saw} a {animal} by the {place}.",
    "When the {weather} stopped, the {person} {handled} a {thing}.",
    "The {thing} in the {place} was {felt} and the {thing} was {felt}.",
    "No one {saw} the {adjective} {person} who {moved} home with a {thing}.",
    "{number} {animal}s {moved} past the {place}, but the {person} only {saw} one.",
)
DEFAULT_DOCUMENTS = 12_000


def synthetic_documents(count: int, seed: int) -> Iterator[str]:
    """Yield `count` documents of three to eight sentences, the same for the same seed."""
    rng = random.Random(f"synthetic:{seed}")
    words = {kind: entries.split() for kind, entries in WORDS.items()}
    for _ in range(count):
        sentences = (_sentence(rng.choice(TEMPLATES), words, rng) for _ in range(rng.randint(3, 8)))
        yield " ".join(sentences)


def _sentence(template: str, words: dict[str, list[str]], rng: random.Random) -> str:
    filled = template
    while "{" in filled:
        kind = filled[filled.index("{") + 1 : filled.index("}")]
        filled = filled.replace(f"{{{kind}}}", rng.choice(words[kind]), 1)
    return filled[0].upper() + filled[1:]
