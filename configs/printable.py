"""Makes characters visible that would control a terminal or reorder a text."""

import re

# Controls (ESC among them) except tab and newline, line and paragraph separators, marks that change the
# direction of the text around them (CVE-2021-42574), surrogates, which no encoding can write.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text with these characters as escapes, which JSON and Python share: ESC becomes `\u001b`.

    Text that a model or a bank holds can move the cursor, change colours and titles of a terminal, or swap
    the order of letters. Tab and newline stay.
    """
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
