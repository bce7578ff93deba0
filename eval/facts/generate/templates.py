"""A wording: a sentence with places for names and answers, "{subject} was born in {object}."."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.records import Spans
from tidy_stlms.eval.facts.text_match import is_word, shown_joint

PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Wording:
    template: str
    places: tuple[str, ...]  # in order: "subject", and the id of a relation or the name of a derived answer
    texts: tuple[str, ...]  # before, between and behind the places: one more than these

    @property
    def asked(self) -> str:
        """The place that comes last, which a probe asks for."""
        return self.places[-1]

    @property
    def joint(self) -> str:
        """What stands before the place asked for: a space, or nothing."""
        return " " if self.texts[-2].endswith(" ") else ""

    def sentence(self, values: Mapping[str, str]) -> tuple[str, Spans]:
        """The whole sentence, and the character span of each place."""
        text, spans = self.texts[0], {}
        for place, following in zip(self.places, self.texts[1:], strict=True):
            value = values[place]
            spans[place] = (len(text), len(text) + len(value))
            text += value + following
        return text, spans

    def prompt(self, values: Mapping[str, str]) -> str:
        """The sentence up to what is asked for, without the joint before it."""
        text = self.texts[0]
        for place, following in zip(self.places[:-1], self.texts[1:-1], strict=True):
            text += values[place] + following
        return text.removesuffix(self.joint)


def parse_wording(
    template: object, key: str, variables: Mapping[str, str], needs: Collection[str], asked: Collection[str]
) -> Wording:
    """Split a template that ends with one of the places `asked` and a terminator.

    `variables` says which place each name in braces stands for; every place in `needs` must be there.
    Raises UserError naming `key` for anything else.
    """
    if not isinstance(template, str):
        raise UserError(f"{key}: must be a text with {_braces(variables)}, got {template!r:.40}")
    parts = PLACE.split(template)
    texts, names = tuple(parts[::2]), parts[1::2]
    written = {place: name for name, place in variables.items()}
    found = [variables.get(name, "") for name in names]
    if "" in found or len(set(found)) < len(found) or not set(needs) <= set(found):
        wanted = _braces(written[place] for place in needs)
        rest = _braces(name for name, place in variables.items() if place not in needs)
        also = f"at most {rest} once each besides" if rest else "nothing else in braces"
        raise UserError(f"{key}: needs {wanted} once each, and {also}")
    if found[-1] not in asked:
        last = _braces((written[place] for place in asked), " or ")
        raise UserError(f"{key}: what is asked for comes last, so {last} must stand behind {{{names[-1]}}}")
    terminator = texts[-1]
    if not terminator or any(is_word(character) or character.isspace() for character in terminator):
        raise UserError(
            f"{key}: {{{names[-1]}}} must be followed by a full stop or the like and nothing more"
        )
    before = texts[-2]
    if texts[0] != texts[0].lstrip():
        raise UserError(f"{key}: no space at the beginning")
    if shown_joint(before) == " " and before != before.rstrip() + " ":
        raise UserError(
            f"{key}: exactly one space before {{{names[-1]}}}, or none behind an apostrophe, an opening "
            "quote or bracket, a hyphen, or a letter of a script without spaces between words"
        )
    return Wording(template, tuple(found), texts)


def _braces(names: Iterable[str], joint: str = " and ") -> str:
    return joint.join(f"{{{name}}}" for name in names)
