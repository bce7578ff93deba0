"""Who is told how often and in which form: roles, arms, and which answer is whose.

An arm's `form` says which texts a fact (or a passage) has. Parts of it are joined by "+":

    original, single   one wording (the first of the list; in a paragraph one of each person's own)
    paraphrase         `paraphrases` wordings
    multi5             5 wordings
    permute            the sentences of a paragraph stand in another order in each text
    permute5           5 texts with the same sentences, each in another order
    fullname           every sentence of a paragraph names the subject in full
    reverse            from the object to the subject, in `paraphrases` wordings
    both               in both directions, in `paraphrases` wordings each

So `multi5+permute+fullname` is five wordings, shuffled, without pronouns (Allen-Zhu and Li,
arXiv:2309.14316, section 2). Control people are told in the arms' forms too, in the same shares, so that
a tokenizer trained on all statements treats both alike; they are in no arm by name.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.eval.facts.generate.answers import rng
from tidy_stlms.eval.facts.generate.names import slug
from tidy_stlms.eval.facts.generate.spec import Spec
from tidy_stlms.eval.facts.records import UNSEEN

NUMBERED = re.compile(r"(multi|permute)([1-9]\d*)")
WORDS = ("original", "single", "paraphrase", "multi5", "permute", "permute5", "fullname", "reverse", "both")
# the key of a spec that says how large a group is
SIZE_KEYS = {"injected": "people", "control": "control", UNSEEN: "unseen_control"}
# draws after which a subject's several answers are taken not to fit
FRUITLESS_SWAPS = 1000


@dataclass(frozen=True, slots=True)
class Form:
    wordings: int
    """Different wordings of a fact."""
    texts: int
    """Different texts of a paragraph."""
    forward: bool = True
    reverse: bool = False
    permute: bool = False
    fullname: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    slug: str
    group: str
    """injected, control or unseen."""
    dealt: str | None
    """The arm in whose form this person's facts are told."""
    form: Form
    asked: bool
    """Whether questions about this person are among the statements."""
    pronoun: str

    @property
    def role(self) -> str:
        return "injected" if self.group == "injected" else "control"

    @property
    def arm(self) -> str | None:
        return {"injected": self.dealt, "control": None}.get(self.group, UNSEEN)


def parse_form(form: str, paraphrases: int, key: str) -> Form:
    """Read an arm's form; UserError naming `key` for one that makes no sense."""
    counts: list[tuple[int, int]] = []  # (wordings, texts)
    words = form.split("+")
    for word in words:
        number = NUMBERED.fullmatch(word)
        if number:
            size = int(number[2])
            counts.append((size, size) if number[1] == "multi" else (1, size))
        elif word in ("original", "single"):
            counts.append((1, 1))
        elif word == "paraphrase":
            counts.append((paraphrases, paraphrases))
        elif word not in WORDS:
            hint = did_you_mean(word, WORDS) or f", must be made of {', '.join(WORDS)}, joined by +"
            raise UserError(f"{key}: unknown form {word!r}{hint}")
    reverse, both = "reverse" in words, "both" in words
    if len(counts) > 1 or (reverse and both) or len(set(words)) < len(words):
        raise UserError(f"{key}: {form!r} says two things at once; take one number and one direction")
    wordings, texts = counts[0] if counts else ((paraphrases,) * 2 if reverse or both else (1, 1))
    return Form(
        wordings,
        texts,
        forward=not reverse,
        reverse=reverse or both,
        permute=any(word.startswith("permute") for word in words),
        fullname="fullname" in words,
    )


def forms_of(spec: Spec) -> dict[str | None, Form]:
    """The form of each arm, by name in sorted order; None stands for a spec without arms."""
    if not spec.arms:
        return {None: Form(spec.paraphrases, spec.paraphrases)}
    return {
        arm: parse_form(spec.arms[arm].form, spec.paraphrases, f"arms.{arm}.form")
        for arm in sorted(spec.arms)
    }


def doses_differ(spec: Spec) -> bool:
    """Whether some arms are injected more often than others: then how often an answer or a name was read
    must not tell it from those offered beside it."""
    return len({arm.exposures for arm in spec.arms.values()}) > 1


def group_sizes(spec: Spec) -> dict[str, int]:
    """How many people are injected, control, and control with answers that nobody else has."""
    control = spec.people if spec.control is None else spec.control
    return {"injected": spec.people, "control": control, UNSEEN: spec.unseen_control}


def deal_people(spec: Spec, names: list[str]) -> dict[str, list[Person]]:
    """People by group. As `names` come in random order, so do roles and arms: the first are injected, and
    the first of these are in the first arm."""
    people: dict[str, list[Person]] = {}
    forms = forms_of(spec)
    start = 0
    for group, size in group_sizes(spec).items():
        people[group] = []
        for (arm, form), share in zip(forms.items(), shares(size, len(forms)), strict=True):
            asked = round(spec.asked * share)
            for index, name in enumerate(names[start : start + share]):
                pronoun = rng(spec.seed, name, "pronoun").choice(spec.pronouns) if spec.passages else ""
                people[group].append(Person(name, slug(name), group, arm, form, index < asked, pronoun))
            start += share
    return people


def shares(size: int, parts: int) -> list[int]:
    """`size` split as evenly as can be, larger parts first."""
    return [size // parts + (part < size % parts) for part in range(parts)]


def blocks(people: Sequence[Person]) -> list[list[Person]]:
    """The people of one group by arm."""
    by_arm: dict[str | None, list[Person]] = {}
    for person in people:
        by_arm.setdefault(person.dealt, []).append(person)
    return list(by_arm.values())


def deal_answers(
    pool: list[str], sizes: list[int], objects: int, key: str, draw: random.Random
) -> list[tuple[str, ...]]:
    """`objects` different answers for each of `sum(sizes)` people, every answer as often as every other.

    `sizes` are those of the arms, and within each of them, too, one answer comes at most once more than
    another. Where the number of people is no multiple of the pool, as for control people it need not be,
    some answers are drawn once more: by chance, hence without regard to how often they are injected.
    """
    rounds = [_equal_shares(pool, sizes, draw)]
    for _ in range(objects - 1):
        answers = _equal_shares(pool, sizes, draw)
        _keep_apart(answers, rounds, sizes, key, draw)
        rounds.append(answers)
    return list(zip(*rounds, strict=True))


def _equal_shares(pool: list[str], sizes: list[int], draw: random.Random) -> list[str]:
    count = sum(sizes)
    if len(sizes) == 1:
        answers = pool * (count // len(pool)) + draw.sample(pool, count % len(pool))
    else:
        # the same order over and over: any stretch of it has every answer equally often, give or take one
        order = draw.sample(pool, len(pool))
        answers = [order[index % len(order)] for index in range(count)]
    dealt: list[str] = []
    for size in sizes:
        own = answers[len(dealt) : len(dealt) + size]
        draw.shuffle(own)
        dealt += own
    return dealt


def _keep_apart(
    answers: list[str], rounds: list[list[str]], sizes: list[int], key: str, draw: random.Random
) -> None:
    """Swap answers within each arm until nobody has one that they have already."""

    def clashes(person: int, answer: str) -> bool:
        return any(earlier[person] == answer for earlier in rounds)

    start = 0
    for size in sizes:
        for person in range(start, start + size):
            tries = 0
            while clashes(person, answers[person]):
                other = start + draw.randrange(size)
                if not (clashes(person, answers[other]) or clashes(other, answers[person])):
                    answers[person], answers[other] = answers[other], answers[person]
                tries += 1
                if tries == FRUITLESS_SWAPS:
                    raise UserError(f"{key}.objects: too few answers to give everyone different ones")
        start += size


def deal_subjects(people: Sequence[Person], key: str, draw: random.Random) -> list[tuple[str, ...]]:
    """For each person another one of the same arm: all of an arm in one ring, so nobody comes back early."""
    dealt: list[tuple[str, ...]] = []
    for block in blocks(people):
        if len(block) < 3:
            raise UserError(
                f"{key}.answers.subjects: needs 3 people in each role and arm, one has {len(block)}; raise "
                "people and control, or take fewer arms"
            )
        ring = [person.name for person in block]
        draw.shuffle(ring)
        following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
        dealt += [(following[person.name],) for person in block]
    return dealt
