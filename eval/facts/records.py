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
PROBE_TYPES = (
    "memorization",
    "syntactic",
    "semantic",
    "inferential",
    "compositional",
    "reversal",
    "locality",
)
JOINTS = (" ", "")

Span = tuple[int, int]  # start and end, in characters
Spans = Annotated[dict[str, Span], msgspec.Meta(examples=[{"subject": [0, 8]}])]


class Relation(Record, frozen=True, omit_defaults=True):
    """What is said of a subject."""

    id: str
    label: str
    """The relation in words, such as "city of birth"."""
    cardinality: str = "one"
    """One of CARDINALITIES: whether a subject has one object or may have several."""
    inverse: str | None = None
    """The id of the relation that leads back from object to subject."""
    answer_space: tuple[str, ...] | None = None
    """The pool that objects and distractors are drawn from."""


class Fact(Record, frozen=True, omit_defaults=True):
    """A subject, a relation and an object. The facts of a passage may have no subject and no relation."""

    id: str
    subject: str | None
    relation: str | None
    """The id of a relation."""
    object: str
    role: str
    """One of ROLES."""
    object_aliases: tuple[str, ...] = ()
    """Other names of the object, as right as it is."""
    arm: str | None = None
    """Of an injected fact: a key of `arms` in bank.json. Of a control fact: UNSEEN or nothing."""
    counterfactual_of: str | None = None
    """The id of the true fact that this one contradicts."""


class Statement(Record, frozen=True, omit_defaults=True):
    """A text that states facts. Only statements of injected facts are ever trained on."""

    id: str
    fact_ids: tuple[str, ...]
    text: str
    kind: str = "statement"
    """One of STATEMENT_KINDS."""
    form: str = "original"
    """Which wording of its facts this is: original, paraphrase:1, paraphrase:2, ... or reverse."""
    spans: Spans = {}
    """Where `subject` (its first mention) and `object` stand; `object:FACT` if several facts are stated."""


class Probe(Record, frozen=True, omit_defaults=True):
    """A question about facts. Its text is `prompt` + `joint` + an answer + `suffix`."""

    id: str
    fact_ids: tuple[str, ...]
    type: str
    """One of PROBE_TYPES."""
    prompt: str
    answers: tuple[str, ...]
    """All are right; the first is scored against the distractors."""
    distractors: tuple[str, ...] = ()
    suffix: str = ""
    template: str | None = None
    """The whole wording, `{subject} was born in {object}.`, closing punctuation included."""
    seen_verbatim: bool = False
    """Whether prompt and answer occur word for word in a statement of the probe's facts. It says so of
    control facts too, which are stated and never trained on."""
    flags: tuple[str, ...] = ()
    """Remarks of the validator. They are not content and do not enter the bank's hash."""
    joint: str = " "
    """One of JOINTS: what stands between prompt and answer. "" as in "l'" + "eau"."""

    def text(self, answer: str | None = None) -> str:
        """The text that is asked about, with `answer` in its place; the first answer when left out.

        Prompt and answer are joined as the scorer joins them (`join`): nothing is added after a line break,
        and a space at the prompt's end counts as the joint.
        """
        context, space = join(self.prompt, self.joint)
        return f"{context}{space}{self.answers[0] if answer is None else answer}{self.suffix}"
