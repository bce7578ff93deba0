"""Groups and arms: how many subjects there are of each, and in which form their facts are stated.

An arm's `form` says which texts a fact (or a passage) has. Parts of it are joined by "+":

    original, single   one wording (the first of the list; in a paragraph one that is drawn for each subject)
    paraphrase         `paraphrases` wordings
    multi5             5 wordings
    permute            the sentences of a paragraph stand in another order in each text
    permute5           5 texts with the same sentences, each in another order
    fullname           every sentence of a paragraph names the subject in full
    reverse            from the object to the subject, in `paraphrases` wordings
    both               in both directions, in `paraphrases` wordings each

So `multi5+permute+fullname` is five wordings, shuffled, without pronouns (Allen-Zhu and Li,
arXiv:2309.14316, section 2).
"""

import re
from dataclasses import dataclass

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.spec import Spec
from tidy_stlms.eval.facts.integrity import UNSEEN
from tidy_stlms.eval.facts.records import did_you_mean

NUMBERED = re.compile(r"(multi|permute)([1-9]\d*)")
WORDS = ("original", "single", "paraphrase", "multi5", "permute", "permute5", "fullname", "reverse", "both")
# the key of a spec that says how large a group is
SIZE_KEYS = {"injected": "people", "control": "control", UNSEEN: "unseen_control"}


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
class Cell:
    """The subjects of one group whose facts are stated in one arm's form."""

    group: str
    """injected, control or unseen."""
    arm: str | None
    """None in a spec without arms."""
    form: Form
    size: int
    questioned: int
    """So many of them have their `questions` trained on."""


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


def exposures_differ(spec: Spec) -> bool:
    """Whether some arms are injected more often than others."""
    return len({arm.exposures for arm in spec.arms.values()}) > 1


def group_sizes(spec: Spec) -> dict[str, int]:
    """The number of injected and control subjects, and of control subjects with unseen answers."""
    control = spec.people if spec.control is None else spec.control
    return {"injected": spec.people, "control": control, UNSEEN: spec.unseen_control}


def cells_of(spec: Spec) -> list[Cell]:
    """The cells of the spec, group after group, each group shared out evenly among the arms.

    Control subjects get the arms' forms too, in the same shares. Otherwise a tokenizer that is trained on all
    statements would meet the names of one role more often than those of the other.
    """
    forms = forms_of(spec)
    return [
        Cell(group, arm, form, size, questioned=round(spec.asked * size))
        for group, group_size in group_sizes(spec).items()
        for (arm, form), size in zip(forms.items(), shares(group_size, len(forms)), strict=True)
    ]


def shares(size: int, parts: int) -> list[int]:
    """`size` split as evenly as can be, larger parts first."""
    return [size // parts + (part < size % parts) for part in range(parts)]
