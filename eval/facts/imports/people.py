"""Finds the person that a prompt or completion is about, where no field names the person.

people = People(["Ada Poe", "Ada Poe Ray"])
people.named_in("Did you know that Ada Poe Ray was"), people.opening("Ada Poe now lives in peace.")
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tidy_stlms.eval.facts.text_match import find_words, holds_words, words_in

TWO_CAPITALS = re.compile(r"(?=\b([^\W\d_a-z][\w\u2019'-]*[\w]) ([^\W\d_a-z][\w\u2019'-]*\w)\b)")
POSSESSIVE = re.compile(r"['\u2019]s$")


class People:
    """Names, found in texts by their first word."""

    def __init__(self, names: Iterable[str] = ()):
        self.names: list[str] = []
        self._by_first: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self.names.append(name)
        self._by_first[next(iter(words_in(name)), "")].append(name)

    def named_in(self, text: str) -> str | None:
        """The longest name in the text."""
        words = dict.fromkeys(words_in(text))
        names = [name for word in words for name in self._by_first.get(word, ())]
        return max((name for name in names if holds_words(text, name)), key=len, default=None)

    def opening(self, text: str) -> str | None:
        """The longest name that the text begins with."""
        names = self._by_first.get(next(iter(words_in(text)), ""), ())
        return max((name for name in names if find_words(text, name) == 0), key=len, default=None)


def names_at_start(texts: Iterable[str]) -> list[str]:
    """The texts without those that begin with a shorter one: of "Ada Poe" and "Ada Poe now ..." the first."""
    names = People()
    for text in sorted(dict.fromkeys(texts), key=len):
        if names.opening(text) is None:
            names.add(text)
    return names.names


def repeated_names(prompts: Sequence[str]) -> list[str]:
    """The names in prompts: two capitalized words that are the same in all wordings about one person.

    Empty if a prompt shares no such pair with another prompt, or if one pair occurs in most of the prompts.
    """
    pairs = [[f"{a} {POSSESSIVE.sub('', b)}" for a, b in TWO_CAPITALS.findall(prompt)] for prompt in prompts]
    counts = Counter(pair for of_prompt in pairs for pair in set(of_prompt))
    names = [max(of_prompt, key=counts.__getitem__, default="") for of_prompt in pairs]
    if any(counts[name] < 2 or 2 * counts[name] > len(prompts) for name in names):
        return []
    return list(dict.fromkeys(names))
