"""What holds for every generated bank, whatever its spec."""

from collections import Counter, defaultdict
from itertools import pairwise

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.arms import forms_of
from tidy_stlms.eval.facts.generate.spec_checks import check_spec
from tidy_stlms.eval.facts.records import TRAINED_TYPES
from tidy_stlms.eval.facts.validate import validate
from tidy_stlms.trainers.plan import units_of


def check_generated(bank: FactBank, allowed: tuple[str, ...] = ()) -> None:
    """Assert it all; `allowed` are codes of findings that the spec asks for."""
    spec = check_spec(bank.meta["spec"])
    assert {finding.code for finding in validate(bank)} <= set(allowed)
    check_counts(bank, spec)
    check_answers(bank, spec)
    check_probes(bank, spec)
    check_statements(bank, spec)


ROLES = ("injected", "control", "unseen")


def group(fact) -> str:
    return "unseen" if fact.arm == "unseen" else fact.role


def invented(bank):
    return [fact for fact in bank.facts if fact.role in ("injected", "control")]


def check_counts(bank, spec):
    control = spec.people if spec.control is None else spec.control
    sizes = {"injected": spec.people, "control": control, "unseen": spec.unseen_control}
    subjects, facts = defaultdict(set), Counter()
    for fact in invented(bank):
        subjects[group(fact)].add(fact.subject)
        facts[group(fact), fact.relation] += 1
    assert {name: len(subjects[name]) for name in sizes} == sizes
    assert facts == Counter(
        {
            (name, relation): size * item.objects
            for name, size in sizes.items()
            if size
            for relation, item in spec.relations.items()
        }
    )
    told = Counter((fact.subject, fact.relation) for fact in invented(bank))
    assert all(times == spec.relations[name].objects for (_, name), times in told.items())
    names = sorted(set().union(*subjects.values()))
    assert len(names) == sum(sizes.values())
    assert all(not later.startswith(name) for name, later in pairwise(names))
    check_arms(bank, spec)


def check_arms(bank, spec):
    assert {fact.arm for fact in bank.facts if fact.role == "control"} <= {None, "unseen"}
    arms = defaultdict(set)
    for fact in bank.injected_facts():
        arms[fact.arm].add(fact.subject)
    assert sum(len(people) for people in arms.values()) == spec.people  # each person is in one arm
    assert set(arms) == (set(spec.arms) or {None})
    sizes = [len(people) for people in arms.values()]
    assert max(sizes) - min(sizes) <= 1
    assert bank.meta.get("arms", {}) == {
        name: {"exposures": arm.exposures, "form": arm.form} for name, arm in spec.arms.items()
    }


def check_answers(bank, spec):
    """Injected and control people draw from one pool, evenly; so does each cohort of injected people."""
    answers, by_cohort = defaultdict(Counter), defaultdict(Counter)
    with_questions = {bank.fact_by_id[s.fact_ids[0]].subject for s in bank.statements if s.kind == "qa"}
    for fact in invented(bank):
        answers[fact.relation, group(fact)][fact.object] += 1
        if fact.role == "injected":
            by_cohort[fact.relation, fact.arm, fact.subject in with_questions][fact.object] += 1
    assert all(len(set(counts.values())) == 1 for counts in by_cohort.values())
    for relation in bank.relations:
        injected, control = answers[relation.id, "injected"], answers[relation.id, "control"]
        if relation.id not in spec.relations:
            continue
        if spec.relations[relation.id].answers.subjects:
            assert set(injected.values()) == {1}
            continue
        assert set(relation.answer_space) == set(injected)
        if not spec.arms:
            assert len(set(injected.values())) == 1
        if spec.relations[relation.id].unique:
            assert all(max(answers[relation.id, name].values(), default=1) == 1 for name in ROLES)
        if control.total() == injected.total() and len(set(injected.values())) == 1:
            assert control == injected
        elif control:
            assert set(control) <= set(injected)
            # what does not divide is drawn, once for each object
            counts = [control[answer] for answer in injected]
            assert max(counts) - min(counts) <= spec.relations[relation.id].objects
        assert not set(answers[relation.id, "unseen"]) & set(injected)


def check_probes(bank, spec):
    people, pools, objects = defaultdict(set), defaultdict(set), defaultdict(list)
    for fact in invented(bank):
        people[group(fact)].add(fact.subject)
        pools[fact.relation, group(fact)].add(fact.object)
        objects[fact.subject, fact.relation].append(fact)
    for probe in bank.probes:
        facts = [bank.fact_by_id[fact_id] for fact_id in probe.fact_ids]
        if facts[0].role not in ("injected", "control"):
            continue
        assert len(set(probe.distractors)) == len(probe.distractors) == spec.distractors
        assert not set(probe.distractors) & {*probe.answers, facts[0].subject}
        asked = f"{probe.prompt} {probe.answers[0]}"
        texts = [statement.text for fact in facts for statement in bank.statements_of(fact.id)]
        assert probe.seen_verbatim == (probe.type in TRAINED_TYPES)
        if probe.seen_verbatim:
            assert any(asked in text for text in texts)
        if probe.type == "inferential":
            continue
        told = facts[-1] if probe.type == "compositional" else facts[0]
        if probe.answers[0] == told.object and not spec.relations[told.relation].answers.subjects:
            # injected and control people share a pool, those of arm unseen have another
            pool = pools[told.relation, "unseen" if group(told) == "unseen" else "injected"]
            assert set(probe.distractors) <= pool
            others = {fact.object for fact in objects[told.subject, told.relation]}
            assert set(probe.answers) == others
        else:
            assert probe.answers in ((told.object,), (facts[0].subject,))
            assert set(probe.distractors) <= people[group(told)]
    # every person of a group has the same number of probes
    asked = Counter((group(bank.fact_by_id[p.fact_ids[0]]), bank.subject_of(p)) for p in bank.probes)
    for name in people:
        assert len({asked[name, person] for person in people[name]}) == 1


def check_statements(bank, spec):
    forms = forms_of(spec)
    for statement in bank.statements:
        facts = {fact_id: bank.fact_by_id[fact_id] for fact_id in statement.fact_ids}
        first = next(iter(facts.values()))
        texts = {name: statement.text[start:end] for name, (start, end) in statement.spans.items()}
        assert texts.pop("subject") == first.subject
        if len(facts) == 1:
            assert texts == {"object": first.object}
        else:
            assert texts == {f"object:{fact.id}": fact.object for fact in facts.values()}
        assert len({(fact.subject, fact.role, fact.arm) for fact in facts.values()}) == 1
    for fact in bank.injected_facts():
        own = [statement for statement in bank.statements_of(fact.id) if statement.kind != "qa"]
        form = forms[fact.arm]
        forward = sum(statement.form != "reverse" for statement in own)
        wanted = form.texts if own[0].kind == "passage" else form.wordings
        assert forward == (wanted if form.forward else 0)
        assert len(own) - forward == (form.wordings if form.reverse else 0)
        assert len({statement.text for statement in own}) == len(own) or form.wordings == 1
    # the trainer can give every fact its exact number of exposures
    units_of((s.id, s.fact_ids, 1, s.kind) for s in bank.statements)
