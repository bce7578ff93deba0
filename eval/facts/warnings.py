"""The validator's warnings: what would silently make a study of recall wrong.

`flag_probes` of `validate.py` makes them flags of probes. The validator's errors are in `integrity.py`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from tidy_stlms.configs.errors import counted
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.integrity import Finding
from tidy_stlms.eval.facts.records import HELD_OUT_TYPES, TRAINED_TYPES, UNSEEN, Fact, Probe, Statement
from tidy_stlms.eval.facts.right_answers import names_of
from tidy_stlms.eval.facts.text_match import (
    ASCII_SPACES,
    folded,
    holds_words,
    join,
    normal,
    replace_words,
    words_in,
)

WARNINGS = (
    "answer_in_prompt",
    "outer_space",
    "case_differs",
    "joined_text_not_stated",
    "answer_not_in_fact",
    "prefix_of_distractor",
    "trained_wording",
    "new_words",
    "duplicate_fact",
    "not_stated",
    "none_stated",
    "unequal_pools",
    "guessable",
)
OF_FACTS = ("duplicate_fact", "not_stated")  # findings with ids of facts
OF_RELATIONS = ("unequal_pools",)  # findings with ids of relations
# `none_stated` and `guessable` (`guesser_tests.py`) are about the whole bank and have no ids; all others have
# ids of probes.
# Marks for subject and object in a wording. Digits, because `words_of` leaves digits out.
SUBJECT, OBJECT = "⟨1⟩", "⟨2⟩"


def warnings_of(bank: FactBank, corpus_words: set[str] | None = None) -> list[Finding]:
    """All warnings of a bank without errors; for `corpus_words` see `validate`."""
    return [
        *_duplicate_facts(bank),
        *_not_stated(bank),
        *_unequal_pools(bank),
        *_probe_warnings(bank, corpus_words),
    ]


def words_of(texts: Iterable[str]) -> set[str]:
    """The distinct words of texts. Reads an iterator once, so that a corpus need not fit into memory."""
    return {word for text in texts for word in words_in(folded(text), digits=False)}


def _duplicate_facts(bank: FactBank) -> Iterator[Finding]:
    """Facts with the same subject and relation: several answers are right, and each probe lists only one."""
    many = {relation.id for relation in bank.relations if relation.cardinality == "many"}
    ids_of = defaultdict(list)
    for fact in bank.facts:
        # a counterfactual contradicts its original on purpose
        if fact.subject is not None and fact.relation not in many and fact.counterfactual_of is None:
            ids_of[fact.subject, fact.relation].append(fact.id)
    for (subject, relation), ids in ids_of.items():
        if relation is not None and len(ids) > 1:
            problem = f"{len(ids)} facts give the {relation} of {subject}: {', '.join(ids[:5])}"
            yield Finding("warning", "duplicate_fact", "facts.jsonl", tuple(ids), problem)


def _not_stated(bank: FactBank) -> Iterator[Finding]:
    """Injected facts without a statement. Training never states them, but results count them as injected."""
    injected = bank.injected_facts()
    if states_none(bank):  # once, and no flag on every probe: the bank can still be asked
        problem = (
            f"{counted(len(injected), 'injected fact', 'injected facts')} and no statement of any: the bank "
            "can be asked, not injected; add statements, or give the facts the role known"
        )
        yield Finding("warning", "none_stated", "facts.jsonl", (), problem)
        return
    for fact in injected:
        if not bank.statements_of(fact.id):
            problem = "is to be injected, but no statement states it"
            yield Finding("warning", "not_stated", "facts.jsonl", (fact.id,), problem)


def states_none(bank: FactBank) -> bool:
    """Whether the bank has injected facts, and no statement of any."""
    injected = bank.injected_facts()
    return bool(injected) and not any(bank.statements_of(fact.id) for fact in injected)


def _unequal_pools(bank: FactBank) -> Iterator[Finding]:
    """Control objects that no injected fact has. Training makes them less familiar than injected objects.

    The arm `unseen` has such objects on purpose. An object that is also a subject belongs to one role only.
    """
    subjects = {fact.subject for fact in bank.facts}
    objects: dict[str | None, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for fact in bank.facts:
        if fact.role in ("injected", "control") and fact.arm != UNSEEN and fact.object not in subjects:
            objects[fact.relation][fact.role].add(fact.object)
    for relation, by_role in objects.items():
        control_only = by_role["control"] - by_role["injected"]
        if relation is not None and by_role["injected"] and control_only:
            share = f"{len(control_only)} of {len(by_role['control'])}"
            problem = f"{share} answers of control facts are no injected fact's"
            yield Finding("warning", "unequal_pools", "relations.jsonl", (relation,), problem)


def _probe_warnings(bank: FactBank, corpus_words: set[str] | None) -> Iterator[Finding]:
    is_trained, new_words = _trained_wordings(bank), _new_words(bank, corpus_words)
    for probe in bank.probes:
        facts = [bank.fact_by_id[fact_id] for fact_id in probe.fact_ids]
        statements = list(bank.statements_about(probe))
        wording = _wording(probe.prompt, facts)
        outer_space, case_differs = _outer_space(probe), _case_differs(probe, statements)
        explained = outer_space is not None or case_differs is not None
        for code, problem in (
            ("answer_in_prompt", _answer_in_prompt(probe)),
            ("outer_space", outer_space),
            ("case_differs", case_differs),
            ("joined_text_not_stated", None if explained else _joined_text_not_stated(probe, statements)),
            ("answer_not_in_fact", _answer_not_in_fact(probe, facts)),
            ("prefix_of_distractor", _prefix_of_distractor(probe)),
            (
                "trained_wording",
                _trained_wording(probe, statements, partial(is_trained, facts[0].relation, wording)),
            ),
            ("new_words", new_words(wording) if probe.type in HELD_OUT_TYPES else None),
        ):
            if problem is not None:
                yield Finding("warning", code, "probes.jsonl", (probe.id,), problem)


def _answer_in_prompt(probe: Probe) -> str | None:
    prompt = folded(probe.prompt)
    for answer in probe.answers:
        if holds_words(prompt, folded(answer.strip())):
            return f"the answer {answer!r} stands in the prompt {probe.prompt!r}"
    return None


def _outer_space(probe: Probe) -> str | None:
    """Spaces around prompt, answers or distractors. The joint alone says what separates them."""
    for text in (probe.prompt, *probe.answers, *probe.distractors):
        if text != text.strip(ASCII_SPACES):
            return f"{text!r} begins or ends with a space"
    return None


def _case_differs(probe: Probe, statements: list[Statement]) -> str | None:
    """The model reads "Sandstone" in training, and the probe asks for "sandstone": different tokens."""
    answer = probe.answers[0]
    if any(holds_words(statement.text, answer) for statement in statements):  # the usual case, and fast
        return None
    if any(holds_words(normal(statement.text), normal(answer)) for statement in statements):
        return None
    if any(holds_words(folded(statement.text), folded(answer)) for statement in statements):
        return f"the answer {answer!r} is written in other case in the statement"
    return None


def _joined_text_not_stated(probe: Probe, statements: list[Statement]) -> str | None:
    """A probe for a trained text that asks for "l' eau" where training states "l'eau": it is another text."""
    if probe.type not in TRAINED_TYPES or not statements:
        return None
    texts = [probe.text(answer) for answer in probe.answers]
    if any(text in statement.text for statement in statements for text in texts):
        return None
    return f"no statement of its facts holds the text {texts[0]!r}"


def _answer_not_in_fact(probe: Probe, facts: list[Fact]) -> str | None:
    """A probe such as "... was" -> " born" measures grammar, not the fact.

    The answer of an inferential probe follows from the fact and need not occur in it.
    """
    if probe.type == "inferential":
        return None
    parts = [text for fact in facts for text in (fact.subject, *names_of(fact)) if text]
    if probe.answers[0] in parts:
        return None
    fact_words = {word for text in parts for word in words_in(folded(text))}
    if fact_words.intersection(words_in(folded(probe.answers[0]))):
        return None
    return f"the answer {probe.answers[0]!r} holds nothing of the fact"


def _prefix_of_distractor(probe: Probe) -> str | None:
    lines = "\n" + folded("\n".join(probe.distractors))
    for answer in probe.answers:
        start = folded(answer)
        for distractor in probe.distractors if f"\n{start}" in lines else ():
            if folded(distractor).startswith(start):
                return f"the answer {answer!r} is a prefix of the distractor {distractor!r}"
    return None


def _trained_wording(
    probe: Probe, statements: list[Statement], is_trained: Callable[[str, bool], bool]
) -> str | None:
    """A held-out wording that statements of the relation use, of any subject.

    Questions (`qa`) count only if they state the probe's own facts: training states questions about some
    subjects, and probes ask them about the other subjects.
    """
    if probe.type not in ("syntactic", "semantic", "reversal"):
        return None
    questions = [statement.text for statement in statements if statement.kind == "qa"]
    joined = "".join(join(probe.prompt, probe.joint)) + probe.answers[0] if questions else ""
    if any(joined in question for question in questions) or is_trained(probe.joint, probe.type == "reversal"):
        return f"the wording of this {probe.type} probe is trained too: {probe.prompt!r}"
    return None


def _trained_wordings(bank: FactBank) -> Callable[[str | None, str, str, bool], bool]:
    """A function that says whether a wording occurs in a statement of any fact of the relation.

    The wording is joined with the object, or with the subject if `backwards`.
    """
    trained: dict[str | None, set[str]] = defaultdict(set)
    for statement in bank.statements:
        if statement.kind != "qa":
            facts = [bank.fact_by_id[fact_id] for fact_id in statement.fact_ids]
            wording = folded(_statement_wording(statement, facts))
            for fact in facts:
                trained[fact.relation].add(wording)
    # Free text has as many wordings as statements. It is faster to search only those with the rarest word.
    by_word: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for relation, wordings in trained.items():
        for wording in wordings:
            for word in set(words_in(wording)):
                by_word[relation, word].append(wording)

    @cache
    def is_trained(relation: str | None, wording: str, joint: str, backwards: bool) -> bool:
        joined = folded("".join(join(wording, joint)) + (SUBJECT if backwards else OBJECT))
        wordings = min((by_word.get((relation, word), []) for word in words_in(joined)), key=len)
        return any(holds_words(trained_wording, joined) for trained_wording in wordings)

    return is_trained


def _new_words(bank: FactBank, corpus_words: set[str] | None) -> Callable[[str], str | None]:
    """A function that names the words of a wording that neither trained statements nor the corpus have."""
    statements = [
        (statement, [bank.fact_by_id[fact_id] for fact_id in statement.fact_ids])
        for statement in bank.statements
    ]
    # Runs do not train on control statements. A bank without injected facts has only such statements.
    injected = [pair for pair in statements if any(fact.role == "injected" for fact in pair[1])]
    wordings = {_statement_wording(*pair) for pair in injected or statements}
    known = words_of(wordings) | (corpus_words or set())

    @cache
    def problem(wording: str) -> str | None:
        new = sorted(set(words_in(folded(wording), digits=False)) - known)
        return (
            f"no training wording has the words of this held-out one: {', '.join(new[:5])}" if new else None
        )

    # in a bank without statements every word would be new
    return problem if known else lambda wording: None


def _statement_wording(statement: Statement, facts: list[Fact]) -> str:
    """The statement with marks for subject and object, from its spans or by search."""
    if not statement.spans:
        return _wording(statement.text, facts)
    text = statement.text
    for name, (start, end) in sorted(statement.spans.items(), key=lambda item: item[1], reverse=True):
        text = text[:start] + (SUBJECT if name == "subject" else OBJECT) + text[end:]
    # a passage may name its subject several times, and the span shows only the first mention
    return text if len(facts) == 1 else _wording(text, facts)


def _wording(text: str, facts: list[Fact]) -> str:
    """The text with marks in place of all mentions of the facts' subjects and objects."""
    text = normal(text)
    for fact in facts:
        if fact.subject:
            text = replace_words(text, normal(fact.subject), SUBJECT)
        for name in names_of(fact):
            text = replace_words(text, normal(name), OBJECT)
    return text
