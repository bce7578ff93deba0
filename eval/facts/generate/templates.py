"""A template: a sentence with places for subject and answers, "{subject} was born in {object}."."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.eval.facts.records import Spans
from tidy_stlms.eval.facts.text_match import is_word, shown_joint

PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text before an answer, and what it asks for."""

    text: str
    asked: str  # the place it asks for: "subject", a relation or a conclusion
    template: str
    joint: str


@dataclass(frozen=True, slots=True)
class Template:
    text: str
    places: tuple[str, ...]  # in order: "subject", and the id of a relation or the name of a conclusion
    pieces: tuple[str, ...]  # the text before, between and behind the places: one more than these

    @property
    def asked(self) -> str:
        """The last place, which a probe asks for."""
        return self.places[-1]

    @property
    def joint(self) -> str:
        """What stands before the place asked for: a space, or nothing."""
        return " " if self.pieces[-2].endswith(" ") else ""

    def sentence(self, values: Mapping[str, str]) -> tuple[str, Spans]:
        """The whole sentence, and the span of each place."""
        text, spans = self.pieces[0], {}
        for place, piece in zip(self.places, self.pieces[1:], strict=True):
            value = values[place]
            spans[place] = (len(text), len(text) + len(value))
            text += value + piece
        return text, spans

    def prompt(self, values: Mapping[str, str]) -> Prompt:
        """The sentence up to the place it asks for, without the joint."""
        text = self.pieces[0]
        for place, piece in zip(self.places[:-1], self.pieces[1:-1], strict=True):
            text += values[place] + piece
        return Prompt(text.removesuffix(self.joint), self.asked, self.text, self.joint)


def parse_template(
    text: object, key: str, variables: Mapping[str, str], needs: Collection[str], asked: Collection[str]
) -> Template:
    """Split a template at its places; UserError naming `key` for one that breaks a rule.

    Args:
        text: The template as the spec has it: it ends with a place and a terminator.
        key: The spec's key, for messages.
        variables: The place that each name in braces stands for.
        needs: Places that must occur.
        asked: The places that may come last.
    """
    if not isinstance(text, str):
        raise UserError(f"{key}: must be a text with {_braces(variables)}, got {shown(text)}")
    parts = PLACE.split(text)
    pieces, names = tuple(parts[::2]), parts[1::2]
    name_of = {place: name for name, place in variables.items()}
    places = [variables.get(name, "") for name in names]
    if "" in places or len(set(places)) < len(places) or not set(needs) <= set(places):
        wanted = _braces(name_of[place] for place in needs)
        rest = _braces(name for name, place in variables.items() if place not in needs)
        also = f"at most {rest} once each besides" if rest else "nothing else in braces"
        raise UserError(f"{key}: needs {wanted} once each, and {also}")
    if places[-1] not in asked:
        last = _braces((name_of[place] for place in asked), " or ")
        raise UserError(f"{key}: what is asked for comes last, so {last} must stand behind {{{names[-1]}}}")
    _check_ends(pieces, names[-1], key)
    return Template(text, tuple(places), pieces)


def _check_ends(pieces: tuple[str, ...], last_name: str, key: str) -> None:
    """Check the template's beginning, and the text around its last place: there the prompt ends."""
    terminator, before = pieces[-1], pieces[-2]
    if not terminator or any(is_word(character) or character.isspace() for character in terminator):
        raise UserError(
            f"{key}: {{{last_name}}} must be followed by a full stop or the like and nothing more"
        )
    if pieces[0] != pieces[0].lstrip():
        raise UserError(f"{key}: no space at the beginning")
    if shown_joint(before) == " " and before != before.rstrip() + " ":
        raise UserError(
            f"{key}: exactly one space before {{{last_name}}}, or none behind an apostrophe, an opening "
            "quote or bracket, a hyphen, or a letter of a script without spaces between words"
        )


def _braces(names: Iterable[str], joint: str = " and ") -> str:
    return joint.join(f"{{{name}}}" for name in names)
