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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tidy_stlms.configs.errors import UserError, counted, did_you_mean
from tidy_stlms.eval.facts.generate.spec import Spec
from tidy_stlms.eval.facts.records import UNSEEN

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
class Cohort:
    """Subjects of one group and one arm, either all with trained questions or all without.

    Training states the facts of all subjects of a cohort in the same way. So distractors come from the
    subject's own cohort: otherwise how often or where a candidate was read would give the answer away.
    """

    group: str
    """injected, control or unseen."""
    arm: str | None
    """None in a spec without arms."""
    form: Form
    size: int
    has_trained_questions: bool
    """Whether training states the `questions` about these subjects."""


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


def check_arms(spec: Spec) -> None:
    """Raise UserError for arms whose forms or sizes do not fit the rest of the spec."""
    for name, arm in spec.arms.items():
        if name == UNSEEN:
            raise UserError(f"arms.{name}: this name is that of unseen_control; choose another")
        if arm.exposures < 0:
            raise UserError(f"arms.{name}.exposures: must be 0 or more, got {arm.exposures}")
    for group, size in group_sizes(spec).items():
        if 0 < size < len(spec.arms):
            raise UserError(
                f"{SIZE_KEYS[group]}: {size} cannot be shared among {len(spec.arms)} arms; raise it"
            )
    has_paragraphs = any(not passage.train for passage in spec.passages.values())
    for arm_name, form in forms_of(spec).items():
        key = f"arms.{arm_name}.form={spec.arms[arm_name].form}" if arm_name else "paraphrases"
        if (form.permute or form.fullname) and not has_paragraphs:
            raise UserError(f"{key}: is for passages without `train`, and there is none")
        if form.reverse and spec.passages:
            raise UserError(f"{key}: a passage cannot be told backwards; leave passages out")
        for list_key, templates in _template_lists(spec, form).items():
            if len(templates) < form.wordings:
                raise UserError(f"{list_key}: holds {len(templates)} wordings, {key} needs {form.wordings}")
    _check_cohorts(spec)


def exposures_differ(spec: Spec) -> bool:
    """Whether some arms are injected more often than others."""
    return len({arm.exposures for arm in spec.arms.values()}) > 1


def group_sizes(spec: Spec) -> dict[str, int]:
    """The number of injected and control subjects, and of control subjects with unseen answers."""
    control = spec.people if spec.control is None else spec.control
    return {"injected": spec.people, "control": control, UNSEEN: spec.unseen_control}


def cohorts_of(spec: Spec) -> list[Cohort]:
    """The cohorts of the spec, group after group, each group shared out evenly among the arms.

    If the spec has questions, an arm has two cohorts: the share `asked` with trained questions, the rest
    without.

    Control subjects get the arms' forms too, in the same shares. Otherwise a tokenizer that is trained on all
    statements would meet the names of one role more often than those of the other.
    """
    forms = forms_of(spec)
    return [
        Cohort(group, arm, form, size, has_trained_questions)
        for group, group_size in group_sizes(spec).items()
        for (arm, form), arm_size in zip(forms.items(), shares(group_size, len(forms)), strict=True)
        for size, has_trained_questions in _split_by_questions(spec, arm_size)
    ]


def injected_cohorts(spec: Spec, people: int | None = None) -> list[Cohort]:
    """The cohorts of injected subjects that have any; `people` replaces the spec's number."""
    spec = spec if people is None else replace(spec, people=people)
    return [cohort for cohort in cohorts_of(spec) if cohort.group == "injected" and cohort.size]


def cohort_in_words(cohort: Cohort, cohorts: Sequence[Cohort]) -> str:
    """As in "8 people in arm fullname with trained questions": how it differs from other `cohorts`."""
    words = [counted(cohort.size, "person", "people")]
    if cohort.arm:
        words.append(f"in arm {cohort.arm}")
    if any(other.arm == cohort.arm and other is not cohort for other in cohorts):
        words.append(f"{'with' if cohort.has_trained_questions else 'without'} trained questions")
    return " ".join(words)


def shares(size: int, parts: int) -> list[int]:
    """`size` split as evenly as possible, larger parts first."""
    return [size // parts + (part < size % parts) for part in range(parts)]


def _split_by_questions(spec: Spec, size: int) -> list[tuple[int, bool]]:
    """How many of an arm's subjects have trained questions (True), and how many have none."""
    has_questions = any(relation.questions for relation in spec.relations.values())
    with_questions = round(spec.asked * size) if has_questions else 0
    return [(with_questions, True), (size - with_questions, False)]


def _check_cohorts(spec: Spec) -> None:
    """Whether every cohort is large enough for the distractors, which come from the same cohort."""
    cohorts = injected_cohorts(spec)
    for cohort in cohorts:
        if cohort.size > spec.distractors:
            continue
        better = next(
            (
                people
                for people in range(spec.people, 100 * spec.people)
                if all(larger.size > spec.distractors for larger in injected_cohorts(spec, people))
            ),
            None,
        )
        remedy = f"use people={better}, or " if better else "raise people, or use "
        raise UserError(
            f"people: {spec.people} people make a cohort of {cohort_in_words(cohort, cohorts)}, and "
            f"distractors={spec.distractors} needs {spec.distractors + 1}: distractors come from these "
            f"people only; {remedy}fewer distractors or arms"
        )


def _template_lists(spec: Spec, form: Form) -> dict[str, list[str]]:
    """The lists of trained templates that statements of this form are made of, by key."""
    one_sentence = {name: passage for name, passage in spec.passages.items() if passage.train}
    in_one_sentence = {relation for passage in one_sentence.values() for relation in passage.relations}
    lists = {f"passages.{name}.train": passage.train for name, passage in one_sentence.items()}
    for name, relation in spec.relations.items():
        if form.forward and name not in in_one_sentence:
            lists[f"relations.{name}.train"] = relation.train
        if form.reverse:
            lists[f"relations.{name}.reverse"] = relation.reverse
    return lists
