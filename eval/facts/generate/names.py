"""Names of subjects: none the beginning of another or a part of it, none that the corpus knows already."""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.answers import faker_values, rng, runs, sayable, without_prefixed
from tidy_stlms.eval.facts.generate.spec import NameSpec
from tidy_stlms.eval.facts.text_match import folded, parts_of, words_in


def draw_names(
    names: NameSpec, count: int, taken: set[str], seed: int, corpus: Iterable[str] | None = None
) -> list[str]:
    """`count` names in random order, by default of people: last names differ as long as they last.

    `taken` are folded words that no name may contain: those of the answers. Otherwise
    "Ruby White" would be asked for a colour. No name stands in the texts of `corpus`, which are read once.
    """
    draw = rng(seed, "names")
    # as many to spare, for those that collide or that the corpus knows
    if names.faker is None and not names.words:
        candidates = _people(names, count, taken, seed, draw)
    else:
        candidates = _entities(names, count, taken, seed, draw)
    candidates = _apart(candidates)
    met = set() if corpus is None else names_in(corpus, candidates)
    chosen = [name for name in candidates if name not in met][:count]
    if len(chosen) < count:
        known = f", {len(met)} more stand in the corpus" if met else ""
        raise UserError(
            f"names: there are {len(chosen)}{known}, people + control is {count}; use fewer or widen names"
        )
    draw.shuffle(chosen)
    return chosen


def names_in(texts: Iterable[str], names: Collection[str]) -> set[str]:
    """The names that stand in the texts, whatever their case, as whole words.

    The texts may be the lines of a file: a name may begin in one and end in the next.
    """
    by_first: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
    for name in names:
        words = words_in(folded(name))
        if words:
            by_first[words[0]].append((words, name))
    longest = max((len(words) for found in by_first.values() for words, _ in found), default=1)
    met: set[str] = set()
    read: list[str] = []
    for text in texts:
        read = read[max(0, len(read) - longest + 1) :] + words_in(folded(text))
        for place, word in enumerate(read):
            for wanted, name in by_first.get(word, ()):
                if read[place : place + len(wanted)] == wanted:
                    met.add(name)
    return met


def _apart(names: list[str]) -> list[str]:
    """Those that hold no other name as whole words: "Morel Andre SARL" goes where there is "Andre"."""
    by_words = {tuple(words_in(folded(name))): name for name in names}
    return [
        name
        for words, name in by_words.items()
        if not any(run in by_words for run in runs(words) if run != words)
    ]


def _people(names: NameSpec, count: int, taken: set[str], seed: int, draw: random.Random) -> list[str]:
    firsts = faker_values("first_name", names.locale, names.pattern, count, "names", seed)
    firsts = [name for name in firsts if folded(name) not in taken]
    also_first = {folded(name) for name in firsts} | taken
    lasts = faker_values("last_name", names.locale, names.pattern, 2 * count, "names", seed)
    # last names without prefixed ones are enough: "Ann Lee" never begins "Ann Leeson"
    lasts = without_prefixed(name for name in lasts if folded(name) not in also_first)
    pairs = len(firsts) * len(lasts)
    if count > pairs:
        raise UserError(
            f"names: {len(firsts)} first and {len(lasts)} last names make {pairs} people, "
            f"people + control is {count}; use fewer or widen names"
        )
    draw.shuffle(firsts)
    draw.shuffle(lasts)
    # all last names once, then all again, each moved on by one first name: no pair comes twice
    return [
        f"{firsts[(index % len(lasts) + index // len(lasts)) % len(firsts)]} {lasts[index % len(lasts)]}"
        for index in range(min(2 * count, pairs))
    ]


def _entities(names: NameSpec, count: int, taken: set[str], seed: int, draw: random.Random) -> list[str]:
    """Whole names, from a Faker provider or a list; they go on differing as parts of ids."""
    if names.faker is not None:
        values = faker_values(names.faker, names.locale, names.pattern, 4 * count, "names", seed)
    else:
        values = [sayable(name, "names.words") for name in names.words]
    by_slug = {slug(name): name for name in without_prefixed(values)}
    fit = [name for name in by_slug.values() if taken.isdisjoint(parts_of(folded(name)))]
    draw.shuffle(fit)
    return fit


def slug(name: str) -> str:
    """The name as it stands in ids."""
    return name.lower().replace(" ", "-")
