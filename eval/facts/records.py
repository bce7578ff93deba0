"""The records of a fact bank: its relations, facts, statements and probes, a line each."""

import re
from typing import Annotated

import msgspec

from tidy_stlms.configs.records import Record
from tidy_stlms.eval.facts.text_match import join

ROLES = ("injected", "control", "neighbour", "known")
UNSEEN = "unseen"  # the arm of control facts whose objects no injected fact has
CARDINALITIES = ("one", "many")
STATEMENT_KINDS = ("statement", "passage", "qa")
FORM = re.compile(r"original|reverse|paraphrase:[1-9]\d*")
PROBE_TYPES = (  # in the order of tables
    "memorization",
    "trained_question",
    "syntactic",
    "semantic",
    "inferential",
    "compositional",
    "reversal",
    "locality",
)
# Types whose texts training states word for word: the wording of a statement or passage, a question (`qa`).
TRAINED_TYPES = ("memorization", "trained_question")
# Types whose wordings training should never state, so that right answers show more than memory of the text.
HELD_OUT_TYPES = ("syntactic", "semantic", "inferential", "compositional", "reversal")
JOINTS = (" ", "")

Span = tuple[int, int]  # start and end, in characters
Spans = Annotated[dict[str, Span], msgspec.Meta(examples=[{"subject": [0, 8]}])]


class Relation(Record, frozen=True, omit_defaults=True):
    """What is said of a subject."""

    id: str
    """The relation's name in the other files."""
    label: str
    """The relation in words, such as "city of birth"."""
    cardinality: str = "one"
    """Whether a subject has one object or may have several: one of CARDINALITIES."""
    inverse: str | None = None
    """The id of the relation that leads back from object to subject."""
    answer_space: tuple[str, ...] | None = None
    """The pool that objects and distractors are drawn from."""


class Fact(Record, frozen=True, omit_defaults=True):
    """A subject, a relation and an object. The facts of a passage may have no subject and no relation."""

    id: str
    """The fact's name in the other files."""
    subject: str | None
    """Whom or what the fact is about; null for a fact of a passage."""
    relation: str | None
    """The id of a relation; null for a fact of a passage."""
    object: str
    """The relation's value for the subject."""
    role: str
    """One of ROLES."""
    object_aliases: tuple[str, ...] = ()
    """Other names of the object, which are right answers too."""
    arm: str | None = None
    """Of an injected fact: a key of `arms` in bank.json, or null. Of a control fact: UNSEEN or null."""
    counterfactual_of: str | None = None
    """The id of the true fact that this one contradicts."""


class Statement(Record, frozen=True, omit_defaults=True):
    """A text that states facts. Only statements of injected facts are ever trained on."""

    id: str
    """The statement's name in the plan."""
    fact_ids: tuple[str, ...]
    """The facts that the text states."""
    text: str
    """The text that a run inserts into its training data."""
    kind: str = "statement"
    """One of STATEMENT_KINDS."""
    form: str = "original"
    """Which wording of its facts this is: original, paraphrase:1, paraphrase:2, ... or reverse."""
    spans: Spans = {}
    """Where `subject` (its first mention) and `object` stand; `object:FACT` if several facts are stated."""


class Probe(Record, frozen=True, omit_defaults=True):
    """A question about facts. Its text is `prompt` + `joint` + an answer + `suffix`."""

    id: str
    """The probe's name in results."""
    fact_ids: tuple[str, ...]
    """The facts that the probe is about."""
    type: str
    """One of PROBE_TYPES."""
    prompt: str
    """The text before the answer."""
    answers: tuple[str, ...]
    """All are right; the first is scored against the distractors."""
    distractors: tuple[str, ...] = ()
    """Wrong answers, which are scored beside the right one."""
    suffix: str = ""
    """The text after the answer, if there is any."""
    template: str | None = None
    """The template of the whole sentence, such as `{subject} was born in {object}.`"""
    seen_verbatim: bool = False
    """Whether prompt and answer occur word for word in a statement of the probe's facts. Statements of
    control facts count too, although no run trains on them."""
    flags: tuple[str, ...] = ()
    """Marks of validator and importers. They are not content: the bank's hash does not depend on them."""
    joint: str = " "
    """What stands between prompt and answer: a space or nothing, as in `l'` + `eau`."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """The right answer, then the distractors."""
        return (self.answers[0], *self.distractors)

    def text(self, answer: str | None = None) -> str:
        """The text that is asked about, with `answer` in its place; the first answer when left out.

        Prompt and answer are joined as the scorer joins them (`join`): nothing is added after a line break,
        and a space at the prompt's end counts as the joint.
        """
        context, space = join(self.prompt, self.joint)
        return f"{context}{space}{self.answers[0] if answer is None else answer}{self.suffix}"
