"""A wording: a sentence with places for subject and object, "{subject} was born in {object}."."""

import re
from dataclasses import dataclass

from configs.errors import UserError
from eval.facts.rows import Spans

PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Wording:
    template: str
    before: str
    first: str  # "subject" or "object": which of them comes first
    between: str
    last: str
    terminator: str

    def sentence(self, subject: str, object: str) -> tuple[str, Spans]:
        """The whole sentence, and the character spans of subject and object."""
        first, last = (subject, object) if self.first == "subject" else (object, subject)
        first_end = len(self.before) + len(first)
        last_start = first_end + len(self.between)
        spans = {
            self.first: (len(self.before), first_end),
            self.last: (last_start, last_start + len(last)),
        }
        return f"{self.before}{first}{self.between}{last}{self.terminator}", spans

    def prompt(self, subject: str, object: str) -> str:
        """The sentence up to what comes last, without the space before it."""
        return f"{self.before}{subject if self.first == 'subject' else object}{self.between[:-1]}"


def parse_wording(template: object, key: str, last: str) -> Wording:
    """Split a template that ends with `{last}` and a terminator; UserError naming `key` if it does not."""
    if not isinstance(template, str):
        raise UserError(f"{key}: must be a text with {{subject}} and {{object}}, got {template!r:.40}")
    parts = PLACE.split(template)
    if len(parts) != 5 or {parts[1], parts[3]} != {"subject", "object"}:
        raise UserError(f"{key}: needs {{subject}} and {{object}} once each, and nothing else in braces")
    before, first, between, found, terminator = parts
    if found != last:
        raise UserError(f"{key}: what is asked for comes last, so {{{last}}} must stand behind {{{found}}}")
    if not terminator or any(character.isalnum() or character.isspace() for character in terminator):
        raise UserError(f"{key}: {{{last}}} must be followed by a full stop or the like and nothing more")
    if before != before.lstrip() or not between.endswith(" ") or between != between.rstrip() + " ":
        raise UserError(f"{key}: no space at the beginning, and exactly one before {{{last}}}")
    return Wording(template, before, first, between, last, terminator)
