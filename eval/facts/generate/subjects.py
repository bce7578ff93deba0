"""Subjects: their names, and the group and arm that each of them is in.

No name begins another one, contains another one, contains a word of an answer, or occurs in the corpus.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.arms import Cohort, Form
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.sources import check_ending, faker_values, without_prefixed, word_runs
from tidy_stlms.eval.facts.generate.spec import NameSpec
from tidy_stlms.eval.facts.records import UNSEEN
from tidy_stlms.eval.facts.text_match import folded, parts_of, words_in


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    slug: str
    """The name as it stands in ids."""
    role: str
    """injected or control."""
    arm: str | None
    """The arm of an injected subject, or `unseen`. Other control subjects are in none."""
    form: Form
    """Which statements the facts have. Control subjects have the forms of the arms too."""
    has_trained_questions: bool
    """Whether questions about this subject are among the statements."""
    pronoun: str


# by group (injected, control, unseen) and in each group by cohort
Groups = dict[str, list[list[Subject]]]


def draw_subjects(
    names: NameSpec,
    cohorts: Sequence[Cohort],
    pronouns: Sequence[str],
    answer_words: set[str],
    seed: int,
    corpus: Iterable[str] = (),
) -> Groups:
    """The subjects of all cohorts, with new names (`draw_names`).

    Each subject has one of `pronouns`, or none if there are none.
    """
    drawn_names = draw_names(names, sum(cohort.size for cohort in cohorts), answer_words, seed, corpus)
    groups: Groups = {cohort.group: [] for cohort in cohorts}
    start = 0
    # as the names are in random order, who is in which role and arm is drawn too
    for cohort in cohorts:
        role = "injected" if cohort.group == "injected" else "control"
        arm = {"injected": cohort.arm, UNSEEN: UNSEEN}.get(cohort.group)
        subjects = [
            Subject(
                name=name,
                slug=slug(name),
                role=role,
                arm=arm,
                form=cohort.form,
                has_trained_questions=cohort.has_trained_questions,
                pronoun=rng(seed, name, "pronoun").choice(pronouns) if pronouns else "",
            )
            for name in drawn_names[start : start + cohort.size]
        ]
        start += cohort.size
        if subjects:
            groups[cohort.group].append(subjects)
    return groups


def draw_names(
    names: NameSpec, count: int, answer_words: set[str], seed: int, corpus: Iterable[str] = ()
) -> list[str]:
    """`count` names in random order, by default of people: last names differ as long as they last.

    Args:
        names: Where they come from.
        count: How many; UserError if there are fewer.
        answer_words: The folded words of all answers, which no name may contain. A probe for the favourite
            colour of "Ruby White" would have an answer in its prompt.
        seed: The bank's seed.
        corpus: Texts in which no name may occur; they are read once.
    """
    draw = rng(seed, "names")
    # more than are needed, since some collide and some occur in the corpus
    if names.faker is None and not names.words:
        possible = _people(names, count, answer_words, seed, draw)
    else:
        possible = _entities(names, count, answer_words, seed, draw)
    possible = _without_containing(possible)
    in_corpus = names_in(corpus, possible)
    chosen = [name for name in possible if name not in in_corpus][:count]
    if len(chosen) < count:
        known = f", {len(in_corpus)} more stand in the corpus" if in_corpus else ""
        raise UserError(
            f"names: there are {len(chosen)}{known}, people + control is {count}; use fewer or widen names"
        )
    draw.shuffle(chosen)
    return chosen


def names_in(texts: Iterable[str], names: Collection[str]) -> set[str]:
    """The names that occur in the texts as whole words, whatever their case.

    The texts may be the lines of a file: a name may begin in one and end in the next.
    """
    by_first: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
    for name in names:
        words = words_in(folded(name))
        if words:
            by_first[words[0]].append((words, name))
    longest = max((len(words) for entries in by_first.values() for words, _ in entries), default=1)
    met: set[str] = set()
    window: list[str] = []  # the text's words, behind the last ones of the text before
    for text in texts:
        window = window[max(0, len(window) - longest + 1) :] + words_in(folded(text))
        for start, word in enumerate(window):
            for words, name in by_first.get(word, ()):
                if window[start : start + len(words)] == words:
                    met.add(name)
    return met


def slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _without_containing(names: list[str]) -> list[str]:
    """Names that contain no other name as whole words: without "Morel Andre SARL" where there is "Andre"."""
    by_words = {tuple(words_in(folded(name))): name for name in names}
    return [
        name
        for words, name in by_words.items()
        if not any(run in by_words for run in word_runs(words) if run != words)
    ]


def _people(names: NameSpec, count: int, answer_words: set[str], seed: int, draw: random.Random) -> list[str]:
    firsts = faker_values("first_name", names.locale, names.pattern, count, "names", seed)
    firsts = [name for name in firsts if folded(name) not in answer_words]
    not_last = {folded(name) for name in firsts} | answer_words
    lasts = faker_values("last_name", names.locale, names.pattern, 2 * count, "names", seed)
    # it is enough that no last name begins another one: "Ann Lee" never begins "Ann Leeson"
    lasts = without_prefixed(name for name in lasts if folded(name) not in not_last)
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


def _entities(
    names: NameSpec, count: int, answer_words: set[str], seed: int, draw: random.Random
) -> list[str]:
    """Whole names, from a Faker provider or a list, that differ as parts of ids too."""
    if names.faker is not None:
        values = faker_values(names.faker, names.locale, names.pattern, 4 * count, "names", seed)
    else:
        values = [check_ending(name, "names.words") for name in names.words]
    by_slug = {slug(name): name for name in without_prefixed(values)}
    allowed = [name for name in by_slug.values() if answer_words.isdisjoint(parts_of(folded(name)))]
    draw.shuffle(allowed)
    return allowed
