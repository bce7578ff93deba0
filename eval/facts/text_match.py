"""Compares texts in any script, by the rules of Unicode.

    holds_answer("在北京。", ["北京"]), holds_answer("Springfield", ["Spring"])    # True, False
    is_answer(" Paris! Oh", ["Paris"], ended=False)                               # True

- *Normal form* (UAX #15): texts are compared in NFC, because "é" can be stored in two ways. NFKC would also
  merge texts that authors write differently on purpose (２ and 2, ² and 2, ﬁ and fi).
- *Words* (UAX #29): a match must not be part of a longer word. This is tested only between letters, digits
  and marks of scripts that put spaces between words, not for the scripts of `UNSPACED`.
- *Characters* (UAX #29, grapheme clusters): a match begins and ends at the edge of a cluster. It does not
  split a letter from its combining mark, or a flag in two.
- *Sentences* (UAX #29, Sentence_Terminal): `. ! ? 。 । ؟` and the like end an answer.

This file imports nothing else of this package, because exported lm-eval tasks carry a copy of it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

import regex

# Spaces that may be stripped from the edges of a text. No-break and ideographic spaces are there on purpose.
ASCII_SPACES = " \t\n\r\v\f"
# Scripts without spaces between words: those of East Asia (scx, because ー belongs to two scripts), and those
# of South East Asia (Line_Break=Complex_Context, Javanese and Balinese). Hangul has spaces between words, and
# Tibetan a mark between syllables.
UNSPACED = (
    *("scx=Han", "scx=Hiragana", "scx=Katakana", "scx=Bopomofo", "Yi"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom"),
    *("Javanese", "Balinese"),
)
# Decimal digits of every script count as letters of a spaced script: 1 must not match in 12. The accents that
# Latin shares with Han count as such letters too.
_SCRIPTS = "".join(r"\p{" + script + "}" for script in UNSPACED)
_UNSPACED = rf"[[[{_SCRIPTS}]&&[\p{{L}}\p{{M}}\p{{Nl}}\p{{No}}]]--\p{{scx=Latin}}]"
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]")
_UNSPACED_CHARACTER = regex.compile(_UNSPACED, regex.V1)
_WORDS = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+|(?={_UNSPACED})\X", regex.V1)
_LETTERS = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{Nl}}\p{{No}}]--{_UNSPACED}]+|(?={_UNSPACED})\X", regex.V1)
_PARTS = regex.compile(rf"[\S--{_UNSPACED}]+|(?={_UNSPACED})\X", regex.V1)
# Anything but Latin letters, punctuation and symbols. In texts without it `re` finds the same words, and is
# much faster than `regex`.
_NOT_PLAIN = re.compile(r"[^\x00-\u02ff\u2000-\u20cf\u2100-\u2bff]")
_PLAIN_WORDS = re.compile(r"[^\W_]+")
_PLAIN_LETTERS = re.compile(r"[^\W\d_]+")
# Articles and similar words of French, Italian and Catalan. No English word before an apostrophe equals them.
_ELIDED = re.compile(
    r"(?<!\w)([cdjlmnst]|qu|jusqu|lorsqu|puisqu|un|all|dall|dell|nell|sull|quell|quest|sant|degl)['\u2019]$",
    re.I,
)
_INSIDE_NUMBERS = ".,'\N{RIGHT SINGLE QUOTATION MARK}"
_CLUSTER = regex.compile(r"\X")
_SPACES = regex.compile(r"\p{Zs}*")
_NEWLINES = "\n\r\x85\u2028\u2029"
_TERMINAL = regex.compile(r"\p{Sentence_Terminal}")
# A full stop also occurs inside words and numbers (UAX #29: ATerm).
_FULL_STOP = regex.compile(r"\p{Sentence_Break=ATerm}")
_CLOSING = regex.compile(r"[^\p{L}\p{M}\p{N}_\s{}]*(?=\s*$)")
# German “ and Danish « are closing quotes, although Unicode gives them the category of opening ones.
_CLOSERS = regex.compile(r"[\p{Pe}\p{Pf}\p{Quotation_Mark}]*")


def normal(text: str) -> str:
    """The text in normal form C."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """The text for comparisons without case: canonical caseless matching (Unicode, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def folded_all(texts: Sequence[str]) -> list[str]:
    """`folded` of each text, in one call because that is several times as fast."""
    lines = folded("\n".join(texts)).split("\n")
    # a text that contains a line break makes more lines
    return lines if len(lines) == len(texts) else [folded(text) for text in texts]


def is_word(character: str) -> bool:
    """Whether it is a letter, a digit or a mark."""
    return _kind(character) != "other"


def is_spaced(character: str) -> bool:
    """Whether it is a letter, a digit or a mark of a script that puts spaces between words."""
    return _kind(character) == "spaced"


def words_in(text: str, digits: bool = True) -> list[str]:
    """The words of a text; with `digits=False` its runs of letters, cut at digits.

    Scripts without spaces do not show their words: each grapheme cluster counts as one.
    """
    if text.isascii() or not _NOT_PLAIN.search(text):
        return (_PLAIN_WORDS if digits else _PLAIN_LETTERS).findall(text)
    return (_WORDS if digits else _LETTERS).findall(text)


def parts_of(text: str) -> list[str]:
    """The text split at spaces, punctuation included; in scripts without spaces, each grapheme cluster."""
    return text.split() if text.isascii() or not _NOT_PLAIN.search(text) else _PARTS.findall(text)


def find_words(text: str, words: str, start: int = 0, strict: bool = False) -> int:
    """The position of `words` in `text`, not inside a longer word; -1 without a match.

    Both texts must have the same normal form. With `strict`, no letter, digit or underscore may touch
    punctuation at the edges of `words`: "J.R." is not in "J.R.R.".
    """
    position = text.find(words, start) if words else -1
    fast = not strict and text.isascii()
    while position >= 0:
        end = position + len(words)
        if fast:
            begins = position == 0 or not (text[position - 1].isalnum() and words[0].isalnum())
            ends = end == len(text) or not (text[end].isalnum() and words[-1].isalnum())
        else:
            begins = position == 0 or _is_boundary(text, position, text[position - 1], words[0], strict)
            ends = end == len(text) or _is_boundary(text, end, text[end], words[-1], strict)
        if begins and ends:
            return position
        position = text.find(words, position + 1)
    return -1


def holds_words(text: str, words: str) -> bool:
    """Whether `words` occurs in `text`, not inside a longer word; see `find_words`."""
    return find_words(text, words) >= 0


def replace_words(text: str, words: str, mark: str) -> str:
    """The text with each occurrence of `words`, not inside a longer word, replaced by `mark`."""
    position = find_words(text, words)
    while position >= 0:
        text = text[:position] + mark + text[position + len(words) :]
        position = find_words(text, words, position + len(mark))
    return text


def holds_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether any answer occurs in the text as whole words. "Spring" does not occur in "Springfield"."""
    text = normal(text)
    return any(find_words(text, normal(answer.strip()), strict=True) >= 0 for answer in answers)


def is_answer(text: str, answers: Iterable[str], ended: bool, terminators: str = ".") -> bool:
    """Whether the text is an answer, followed by a terminator.

    Terminators are a newline, the characters in `terminators`, characters that end sentences (closing quotes
    and brackets may come before them), and the end of the text if the model `ended` it. ASCII characters such
    as `.`, `!` and `?` are no terminators if a letter or digit follows directly: "3.5" does not answer 3.
    "Springfield" does not answer "Spring". The stop inside "St. Louis" does not end that answer.
    """
    text = normal(text)
    text = text[_SPACES.match(text).end() :]
    return any(
        text.startswith(answer) and _ends(text[len(answer) :], ended, terminators)
        for answer in (normal(answer.strip()) for answer in answers)
        if answer
    )


def closing_punctuation(wording: str) -> str:
    """The text after the last word or variable of a wording: "." in "{subject} was born in {object}."."""
    return _CLOSING.search(wording).group()


def holds_terminal(text: str) -> bool:
    """Whether the text has a character that ends sentences."""
    return _TERMINAL.search(text) is not None


def join(prompt: str, joint: str = " ") -> tuple[str, str]:
    """Split into the context that the model reads and the space that is scored with the answer.

    A trailing space moves from the prompt to the answer, because tokenizers attach it to the next word.
    After other white space (a newline), or an empty prompt, no space is added.

    >>> join("Paris is in"), join("Paris is in "), join("Q: where?\\n"), join("")
    (('Paris is in', ' '), ('Paris is in', ' '), ('Q: where?\\n', ''), ('', ''))
    """
    context = prompt.rstrip(" ")
    if context != prompt:
        return context, prompt[len(context) :]
    return context, "" if not context or context[-1].isspace() else joint


def shown_joint(before: str) -> str:
    """The joint that a wording shows, from the text `before` its answer.

    "" after an apostrophe, quote, bracket or hyphen, or a letter of a script without spaces; else a space.
    A missing space after a letter of a script with spaces counts as a typing mistake: the joint is a space.
    """
    return " " if not before or before[-1].isspace() or is_spaced(before[-1]) else ""


def usual_joint(prompt: str, answer: str) -> str:
    """The joint if neither a statement nor a wording shows it.

    A space; but "" between letters of scripts without spaces, and after an opening quote or bracket, wide
    punctuation (： 「), a hyphen in a word, a currency sign before a number, and an elided article (`l'`).
    """
    if not prompt or not answer:
        return " "
    last, before = prompt[-1], prompt[-2:-1]
    opens = not before or before.isspace() or unicodedata.category(before) in ("Ps", "Pi")
    category = unicodedata.category(last)
    touches = (
        category in ("Ps", "Pi")
        or _is_wide_punctuation(last)
        or (_kind(last) == "unspaced" and _kind(answer[0]) == "unspaced")
        or (_kind(last) == "unspaced" and _is_wide_punctuation(answer[0]))
        or (last in "\"'" and opens)
        or (last in "-\N{HYPHEN}" and is_word(before or " "))
        or (category == "Sc" and answer[0].isdecimal())
        or _ELIDED.search(prompt) is not None
    )
    return "" if touches else " "


@cache
def _kind(character: str) -> str:
    if not _WORD.match(character):
        return "other"
    return "unspaced" if _UNSPACED_CHARACTER.match(character) else "spaced"


def _is_wide_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" and unicodedata.east_asian_width(character) in "WF"


def _is_boundary(text: str, position: int, outer: str, inner: str, strict: bool) -> bool:
    """Whether no word and no grapheme cluster crosses `position`, the edge of a match.

    `inner` is the character at the edge inside the match, `outer` the character at the edge outside it.
    """
    if strict:
        joined = (_kind(outer) == "spaced" or outer == "_") and _kind(inner) != "unspaced"
        joined = joined or _is_inside_number(text, position)
    else:
        joined = _kind(outer) == "spaced" and _kind(inner) == "spaced"
    if joined or text[position].isascii():
        return not joined
    begin = position - 1
    while begin > 0 and not text[begin].isascii():
        begin -= 1
    while begin < position:
        begin = _CLUSTER.match(text, begin).end()
    return begin == position


def _is_inside_number(text: str, position: int) -> bool:
    """Whether the position is inside a number: 3 and 5 are not words of "3.5" (UAX #29, WB11 and WB12)."""
    return any(
        0 < index < len(text) - 1
        and text[index] in _INSIDE_NUMBERS
        and text[index - 1].isdecimal()
        and text[index + 1].isdecimal()
        for index in (position - 1, position)
    )


def _ends(rest: str, ended: bool, terminators: str) -> bool:
    """Whether an answer ends where `rest`, the text after it, begins."""
    rest = rest[_SPACES.match(rest).end() :]
    if not rest:
        return ended
    if rest[0] in _NEWLINES:
        return True
    if rest[0] in terminators and not _goes_on(rest[0], rest[1:2]):
        return True
    rest = rest[_CLOSERS.match(rest).end() :]
    return _TERMINAL.match(rest) is not None and not _goes_on(rest[0], rest[1:2])


def _goes_on(terminator: str, following: str) -> bool:
    """Whether a word or number may continue after the terminator."""
    if not terminator.isascii() and _TERMINAL.match(terminator) and not _FULL_STOP.match(terminator):
        return False
    return bool(following) and is_spaced(following)
