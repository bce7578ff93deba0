"""Forms, the dealing of people and answers, and the familiarity control."""

import random
from collections import Counter, defaultdict

import pytest
import yaml

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.answers import deal_from_pool
from tidy_stlms.eval.facts.generate.arms import Form, parse_form, shares
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec

PEOPLE = "configs/facts/people.yaml"
THREE = "{dup: {exposures: 16, form: original}, para: {exposures: 16}, once: {exposures: 1, form: multi2}}"
ARMS = f"arms={THREE}"


@pytest.fixture(scope="module")
def bank():
    """Three arms of 20 people, and 24 people with answers of their own."""
    overrides = ["people=60", "unseen_control=24", "use=[profession,birth_date]", "distractors=5", ARMS]
    return generate_from_spec(PEOPLE, overrides, seed=2)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("original", Form(1, 1)),
        ("single", Form(1, 1)),
        ("paraphrase", Form(3, 3)),
        ("multi5", Form(5, 5)),
        ("multi12", Form(12, 12)),
        ("permute", Form(1, 1, permute=True)),
        ("permute5", Form(1, 5, permute=True)),
        ("multi5+permute+fullname", Form(5, 5, permute=True, fullname=True)),
        ("fullname", Form(1, 1, fullname=True)),
        ("reverse", Form(3, 3, forward=False, reverse=True)),
        ("both", Form(3, 3, reverse=True)),
        ("original+both", Form(1, 1, reverse=True)),
    ],
)
def test_forms(form, expected):
    assert parse_form(form, 3, "arms.a.form") == expected


@pytest.mark.parametrize(
    "form", ["paraphras", "multi0", "multi", "", "single+multi5", "reverse+both", "both+both"]
)
def test_forms_that_make_no_sense(form):
    with pytest.raises(UserError, match=r"^arms\.a\.form: "):
        parse_form(form, 3, "arms.a.form")


def test_arms_are_even_balanced_and_recorded(bank):
    check_generated(bank)
    assert bank.meta["arms"] == {
        "dup": {"exposures": 16, "form": "original"},
        "para": {"exposures": 16, "form": "paraphrase"},
        "once": {"exposures": 1, "form": "multi2"},
    }
    facts = Counter((fact.arm, fact.relation) for fact in bank.injected_facts())
    relations = ("profession", "birth_date")
    assert facts == {(arm, name): 20 for arm in ("dup", "para", "once") for name in relations}
    told = Counter((bank.fact_by_id[s.fact_ids[0]].arm, s.form) for s in bank.statements)
    assert {arm: told[arm, "original"] + told[arm, "paraphrase:1"] + told[arm, "paraphrase:2"]
            for arm in bank.meta["arms"]} == {"dup": 40, "para": 120, "once": 80}  # fmt: skip


def test_control_people_are_told_in_the_same_forms(bank):
    """So that a tokenizer which reads all statements treats both roles alike."""
    forms = defaultdict(Counter)
    for statement in bank.statements:
        fact = bank.fact_by_id[statement.fact_ids[0]]
        if fact.arm != "unseen":
            forms[fact.role][statement.form] += 1
    assert forms["injected"] == forms["control"]


def test_who_is_in_which_arm_is_drawn(bank):
    """From the seed, and with no regard to names."""
    again = generate_from_spec(PEOPLE, ["people=60", "use=[profession]", "distractors=5", ARMS], seed=3)
    arms = {fact.subject: fact.arm for fact in again.injected_facts()}
    names = sorted(arms)
    assert [arms[name] for name in names] != sorted(arms[name] for name in names)
    before = {fact.subject: fact.arm for fact in bank.injected_facts()}
    assert arms != before


def test_unseen_control_has_answers_and_distractors_that_nobody_else_has(bank):
    unseen = [fact for fact in bank.facts if fact.arm == "unseen"]
    assert len(unseen) == 48
    assert {fact.role for fact in unseen} == {"control"}
    others = {fact.object for fact in bank.facts if fact.arm != "unseen"}
    own = {fact.object for fact in unseen}
    assert not own & others
    for probe in bank.probes:
        if bank.fact_by_id[probe.fact_ids[0]].arm == "unseen" and probe.type != "reversal":
            assert {*probe.answers, *probe.distractors} <= own
    # every answer as often as the others, as with everyone else
    counts = Counter(fact.object for fact in unseen if fact.relation == "profession")
    assert len(set(counts.values())) == 1
    # and no statement of an injected fact has them
    told = " ".join(s.text for s in bank.statements if bank.fact_by_id[s.fact_ids[0]].role == "injected")
    assert not [answer for answer in own if f" {answer}." in told]


def test_unseen_control_leaves_the_others_as_they_are():
    plain = generate_from_spec(PEOPLE, ["people=12", "use=[birth_city]"])
    more = generate_from_spec(PEOPLE, ["people=12", "use=[birth_city]", "unseen_control=12"])
    without = [fact for fact in more.facts if fact.arm != "unseen"]
    assert Counter(fact.role for fact in without) == Counter(fact.role for fact in plain.facts)


@pytest.mark.parametrize("size", [12, 6, 19, 4])
@pytest.mark.parametrize("objects", [1, 2])
def test_answers_are_dealt_evenly(size, objects):
    pool = list("abcdef")
    dealt = deal_from_pool(pool, size, objects, "relations.x", random.Random(0))
    assert len(dealt) == size
    assert all(len(set(answers)) == objects for answers in dealt)
    total = Counter(answer for answers in dealt for answer in answers)
    assert max(total.values()) - min(total[a] for a in pool) <= objects * (size % 6 > 0)


def test_too_many_objects_for_the_pool_are_refused():
    with pytest.raises(UserError, match=r"relations\.x\.objects: too few answers"):
        deal_from_pool(["a", "b"], 2, 3, "relations.x", random.Random(0))


def test_shares():
    assert shares(10, 3) == [4, 3, 3]
    assert shares(6, 1) == [6]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["arms={a: {form: original}}"], "arms.a.exposures: is missing"),
        (["arms={a: {exposures: -1}}"], "arms.a.exposures: must be 0 or more"),
        (["arms={a: {exposures: many}}"], "exposures"),
        (["arms={unseen: {exposures: 1}}"], "arms.unseen: this name is that of unseen_control"),
        (["arms={a: {exposures: 1, form: orginal}}"], "unknown form 'orginal', did you mean 'original'"),
        (["arms={a: {exposures: 1, form: multi9}}"], "holds 5 wordings, arms.a.form=multi9 needs 9"),
        (["arms={a: {exposures: 1, form: permute}}"], "is for passages without `train`"),
        (["arms={a: {exposures: 1, form: reverse}}"], "reverse: holds 0 wordings"),
        (["arms={a: {exposure: 1}}"], "unknown key arms.a.exposure, did you mean 'exposures'"),
        (["unseen_control=5"], "unseen_control: must be 0 or more than distractors=9"),
        (["asked=2"], "asked: must be a share from 0 to 1"),
        (["people=40", "use=[profession]", "unseen_control=23"], "unseen_control=10, or another multiple"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_that_names_the_key(overrides, message):
    with pytest.raises(UserError) as error:
        generate_from_spec(PEOPLE, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("relations", "texts", "orders"), [("birth_date,major,company", 6, 6), ("major,company", 3, 2)]
)
def test_sentences_stand_in_another_order_in_each_text_while_there_are_others(relations, texts, orders):
    with open("configs/facts/biographies.yaml", encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    spec |= {"use": relations.split(","), "people": 12, "control": 0, "distractors": 3}
    spec["arms"] = {"shuffled": {"exposures": 1, "form": f"permute{texts}"}}
    made = generate(spec, 0)
    check_generated(made)
    for person in {fact.subject for fact in made.facts}:
        own = [s for s in made.statements if s.kind == "passage" and s.text.startswith(person)]
        assert len(own) == texts
        sequences = {
            tuple(sorted(s.fact_ids, key=lambda fact_id, s=s: s.spans[f"object:{fact_id}"])) for s in own
        }
        assert len(sequences) == orders


DOSES = "arms={once: {exposures: 1}, some: {exposures: 16}, often: {exposures: 64, form: paraphrase}}"


@pytest.mark.parametrize("unique", [False, True])
def test_how_often_a_candidate_was_read_tells_nothing(unique):
    """Else a curve over exposures shows what is familiar, and not what is known of whom."""
    overrides = ["people=36", "use=[birth_city,profession]", "distractors=9", DOSES]
    if unique:
        overrides.append("relations.profession.unique=true")
    made = generate_from_spec(PEOPLE, overrides, seed=1)
    answers, names = Counter(), Counter()
    for fact in made.facts:
        if fact.role == "injected":
            exposures = made.meta["arms"][fact.arm]["exposures"]
            answers[fact.relation, fact.object] += exposures
            names[fact.subject] += exposures
    kinds = set()
    for probe in made.probes:
        fact = made.fact_by_id[probe.fact_ids[0]]
        if fact.role == "injected":
            kinds.add(probe.type)
            candidates = (probe.answers[0], *probe.distractors)
            read = [names[c] if probe.type == "reversal" else answers[fact.relation, c] for c in candidates]
            assert len(set(read)) == 1
    assert ("reversal" in kinds) == unique


def cohorts_of(bank):
    """The arm of each injected subject, and whether it has trained questions."""
    with_questions = {bank.fact_by_id[s.fact_ids[0]].subject for s in bank.statements if s.kind == "qa"}
    return {fact.subject: (fact.arm, fact.subject in with_questions) for fact in bank.injected_facts()}


@pytest.mark.parametrize(
    ("spec", "overrides"),
    [
        ("biographies", []),
        ("biographies", ["people=104", "asked=0.4"]),  # cohorts of 10 and 16
        ("biographies", ["people=120", "asked=0.5", "distractors=4", "relations.major.pool_size=5"]),
        ("reversal", ["people=31"]),
        ("chains", ["arms={a: {exposures: 4, form: original}, b: {exposures: 4}}", "people=25"]),
        ("people", ["people=47", "use=[profession,language]", DOSES]),
    ],
)
def test_answers_and_distractors_of_a_cohort_are_the_same_and_equally_frequent(spec, overrides):
    made = generate_from_spec(f"configs/facts/{spec}.yaml", overrides, seed=1)
    check_generated(made)
    cohorts, answers, offered = cohorts_of(made), defaultdict(Counter), defaultdict(set)
    for probe in made.probes:
        subject = made.subject_of(probe)
        if subject in cohorts:
            relation = made.fact_by_id[probe.fact_ids[-1]].relation
            is_name = probe.answers[0] in cohorts
            answers[cohorts[subject], relation, is_name, probe.template][probe.answers[0]] += 1
            offered[cohorts[subject], relation, is_name, probe.template].update(probe.distractors)
    of_all = defaultdict(set)
    for key, counts in answers.items():
        cohort, relation, is_name, _ = key
        of_all[cohort, relation, is_name].update(counts)
    for (cohort, relation, is_name, _), values in offered.items():
        assert values <= of_all[cohort, relation, is_name]
    facts = defaultdict(Counter)
    for fact in made.injected_facts():
        facts[cohorts[fact.subject], fact.relation][fact.object] += 1
    assert all(len(set(counts.values())) == 1 for counts in facts.values())


QUESTION = "As what does {subject} work? {object}."


@pytest.mark.parametrize(
    ("spec", "overrides", "message"),
    [
        (
            "biographies",
            ["people=60"],
            "people: 60 people make a cohort of 8 people in arm fullname with trained questions, and "
            "distractors=9 needs 10: distractors come from these people only; use people=80, or fewer "
            "distractors or arms",
        ),
        ("biographies", ["asked=0.05"], "people: 200 people make a cohort of 2 people in arm fullname with "),
        (
            "biographies",
            ["asked=0.95"],
            "a cohort of 2 people in arm fullname without trained questions, and",
        ),
        (
            "people",
            ["people=20", "asked=0.1", "use=[profession]", f"relations.profession.questions=[{QUESTION!r}]"],
            "people: 20 people make a cohort of 2 people with trained questions, and distractors=9 needs 10",
        ),
        (
            "reversal",
            ["people=24"],
            "24 people make a cohort of 8 people in arm backward, and distractors=9 ",
        ),
        (
            "biographies",
            ["people=472"],
            "relations.birth_city: the 59 people in arm fullname with trained questions (of 472 in all) "
            "cannot have 10 to 50 answers equally often; use people=",
        ),
    ],
)
def test_too_few_people_in_a_cohort_are_refused(spec, overrides, message):
    with pytest.raises(UserError) as error:
        generate_from_spec(f"configs/facts/{spec}.yaml", overrides)
    assert message in str(error.value)
    better = str(error.value).partition("use people=")[2].partition(",")[0]
    generate_from_spec(f"configs/facts/{spec}.yaml", [*overrides, f"people={better}"])


def test_arms_of_other_exposures_need_people_enough():
    overrides = ["people=24", "use=[birth_city]", "distractors=9", DOSES]
    with pytest.raises(
        UserError, match="24 people make a cohort of 8 people in arm often, and distractors=9 "
    ):
        generate_from_spec(PEOPLE, overrides, seed=1)
