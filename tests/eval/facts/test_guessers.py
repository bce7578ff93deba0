"""Guessers that know no facts: chance in what the shipped specs give, and each kind of leak is found."""

import os
import random
from collections import Counter, defaultdict

import pytest
from msgspec.structs import replace
from scipy import stats

from tests.eval.facts.bank_files import small_bank
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, write_json
from tidy_stlms.eval.facts import guessers
from tidy_stlms.eval.facts.associations import genders_of
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.guesser_tests import (
    best_guesser_in_words,
    guessable,
    guesser_tests,
    share_interval,
)
from tidy_stlms.eval.facts.guessers import alike, credit, guess
from tidy_stlms.eval.facts.records import Statement
from tidy_stlms.eval.facts.validate import load_bank, refuse_generated, validate

ALL = "STLM_SEEDS" in os.environ  # `make seeds`
SEEDS = range(10) if ALL else [0]
SPECS = {
    "people": ["", "people=40", "use=[birth_city,employer,profession,favourite_colour]"],
    "biographies": ["", "people=80", "people=104 asked=0.4"],
    "chains": ["", "people=40"],
    "reversal": ["", "people=30"],
    "tidy": ["", "people=20"],
}
CASES = [(spec, more) for spec, sizes in SPECS.items() for more in (sizes if ALL else sizes[-1:])]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("spec", "more"), CASES)
def test_no_guesser_beats_chance_in_a_shipped_spec(spec, more, seed):
    bank = generate_from_spec(f"configs/facts/{spec}.yaml", more.split(), seed=seed)
    tests = guesser_tests(bank)
    assert len({test.guesser for test in tests}) == 19
    assert not [test.line for test in tests if test.beats_chance]


@pytest.fixture(scope="module")
def clean():
    """80 people, and two of them for each answer."""
    overrides = ["people=80", "control=0", "use=[profession,birth_city]", "relations.birth_city.pool_size=40"]
    return generate_from_spec("configs/facts/people.yaml", [*overrides, "distractors=4"])


def offering(bank, choose):
    """The bank with `choose(probe, values)` as candidates beside the right answer, if it gives four."""
    spaces = {relation.id: relation.answer_space for relation in bank.relations}
    draw = random.Random(0)
    probes = []
    for probe in bank.probes:
        values = [v for v in spaces[bank.fact_by_id[probe.fact_ids[0]].relation] if v != probe.answers[0]]
        chosen = choose(probe, draw.sample(values, len(values)))[:4]
        probes.append(replace(probe, distractors=tuple(chosen)) if len(chosen) == 4 else probe)
    return replace(bank, probes=tuple(probes))


def where_right_is_highest(bank, key):
    """Distractors whose key is lower than the right answer's; `key(probe, value)`."""
    return offering(bank, lambda p, values: [v for v in values if key(p, v) < key(p, p.answers[0])])


def half(bank):
    """Every second answer of each relation."""
    return {value for relation in bank.relations for value in relation.answer_space[::2]}


def stated_twice(bank, kind):
    """The bank with more statements of every second answer, and that share of answers."""
    often = half(bank)
    more = [
        replace(statement, id=f"{statement.id}/again", kind=kind)
        for statement in bank.statements
        if bank.fact_by_id[statement.fact_ids[0]].object in often
    ]
    return replace(bank, statements=(*bank.statements, *more)), often


def frequent(sign, kind):
    def plant(bank):
        bank, often = stated_twice(bank, kind)
        return where_right_is_highest(bank, lambda probe, value: sign * (value in often))

    return plant


def right_often(sign):
    """Half of the answers are asked for in one wording only."""

    def plant(bank):
        often = half(bank)
        kept = [p for p in bank.probes if p.answers[0] in often or not p.id.endswith(":1")]
        bank = replace(bank, probes=tuple(kept), statements=())
        return where_right_is_highest(bank, lambda probe, value: sign * (value in often))

    return plant


def by_length(sign):
    return lambda bank: where_right_is_highest(bank, lambda probe, value: sign * len(value))


def by_alphabet(sign):
    def plant(bank):
        order = sorted(value.lower() for relation in bank.relations for value in relation.answer_space)
        return where_right_is_highest(bank, lambda probe, value: sign * order.index(value.lower()))

    return plant


def in_the_middle(bank):
    def choose(probe, values):
        right = probe.answers[0].lower()
        lower = [value for value in values if value.lower() < right]
        higher = [value for value in values if value.lower() > right]
        return [*lower[:2], *higher[:2]] if len(lower) > 1 and len(higher) > 1 else []

    return offering(bank, choose)


def by_place(sign):
    def plant(bank):
        first = {}
        for number, statement in enumerate(bank.statements):
            first.setdefault(bank.fact_by_id[statement.fact_ids[0]].object, number)
        return where_right_is_highest(bank, lambda probe, value: sign * first[value])

    return plant


def alike_to_subject(bank):
    return where_right_is_highest(bank, lambda probe, value: alike(value, bank.subject_of(probe)))


def made_from_the_answer(bank):
    """Distractors that are the answer with one letter changed, as some people make them."""
    return replace(
        bank,
        probes=tuple(
            replace(p, distractors=tuple(f"{p.answers[0][:n]}x{p.answers[0][n + 1 :]}" for n in range(4)))
            for p in bank.probes
        ),
    )


def alike_among_themselves(bank):
    words = ("Kernberg", "Kernburg", "Kernborg", "Kernbarg")
    return replace(bank, probes=tuple(replace(p, distractors=words) for p in bank.probes))


def words_for_answers(bank):
    """A word in each prompt that goes with the right answer."""
    values = {value: n for relation in bank.relations for n, value in enumerate(relation.answer_space)}
    return prompts_with(bank, lambda answer: f"w{values[answer]}x")


def words_for_letters(bank):
    """As "a" and "an" do. Each answer stays with one person, so that only its first letter can tell."""
    taken, kept = set(), []
    for fact in bank.facts:
        if (fact.relation, fact.object) not in taken:
            taken.add((fact.relation, fact.object))
            kept.append(fact.id)
    probes = [probe for probe in bank.probes if probe.fact_ids[0] in set(kept)]
    return prompts_with(replace(bank, probes=tuple(probes)), lambda answer: f"w{answer[0].lower()}x")


def prompts_with(bank, word):
    return replace(
        bank, probes=tuple(replace(p, prompt=f"{word(p.answers[0])} {p.prompt}") for p in bank.probes)
    )


def answers_of_women(bank):
    """Every second answer belongs to two women, and the others are offered beside it; men the other way."""
    women = half(bank)
    # what a subject is can differ from relation to relation, so one relation it is
    facts = {fact.id: fact for fact in bank.facts if fact.relation == "profession"}
    pronouns = {True: "She", False: "He"}
    told = [
        Statement(f"{fact.id}/pronoun", (fact.id,), f"{pronouns[fact.object in women]} is here.")
        for fact in facts.values()
    ]
    probes = tuple(p for p in bank.probes if p.fact_ids[0] in facts)
    bank = replace(bank, statements=(*bank.statements, *told), probes=probes)
    return offering(
        bank, lambda p, values: [value for value in values if (value in women) != (p.answers[0] in women)]
    )


LEAKS = {
    "most frequent in statements": frequent(1, "statement"),
    "least frequent in statements": frequent(-1, "statement"),
    "most frequent in trained questions": frequent(1, "qa"),
    "least frequent in trained questions": frequent(-1, "qa"),
    "most frequent as right answer": right_often(1),
    "least frequent as right answer": right_often(-1),
    "first in the statements": by_place(-1),
    "last in the statements": by_place(1),
    "longest": by_length(1),
    "shortest": by_length(-1),
    "first by alphabet": by_alphabet(-1),
    "last by alphabet": by_alphabet(1),
    "middle by alphabet": in_the_middle,
    "nearest in spelling to the subject": alike_to_subject,
    "most like the other candidates": made_from_the_answer,
    "least like the other candidates": alike_among_themselves,
    "words of the prompt": words_for_answers,
    "words of the prompt, first letter": words_for_letters,
    "gender of the name": answers_of_women,
}


def test_the_bank_without_a_leak_is_clean(clean):
    assert not [test.line for test in guesser_tests(clean) if test.beats_chance]
    assert set(LEAKS) == set(guess(clean))


@pytest.mark.parametrize("guesser", LEAKS)
def test_a_planted_leak_is_refused_by_name(clean, guesser):
    bank = LEAKS[guesser](clean)
    tests = guesser_tests(bank)
    (finding,) = [f for f in guessable(tests) if f'("{guesser}")' in f.problem]
    assert not finding.ids
    best, named = max(t.share for t in tests), max(t.share for t in tests if t.guesser == guesser)
    assert named > best - 0.1  # others may win by the same leak, none by much more
    with pytest.raises(UserError, match=rf'generated bank refused: .*"{guesser}".*change the spec'):
        refuse_generated(bank, [finding])


def test_a_leak_in_the_suffix_is_one_in_words_of_the_prompt(clean):
    bank = LEAKS["words of the prompt"](clean)
    moved = [
        replace(probe, prompt=unchanged.prompt, suffix=f" {probe.prompt}")
        for probe, unchanged in zip(bank.probes, clean.probes, strict=True)
    ]
    problems = [finding.problem for finding in guessable(guesser_tests(replace(bank, probes=tuple(moved))))]
    assert any('"words of the prompt"' in problem for problem in problems)


def test_a_leak_in_one_relation_is_not_lost_among_the_others(clean):
    leak = by_length(1)(clean)
    of_one = {probe.id: probe for probe in leak.probes if "/profession/" in probe.id}
    assert 0 < len(of_one) < len(leak.probes)
    kept = [of_one.get(probe.id, probe) for probe in clean.probes]
    problems = [finding.problem for finding in guessable(guesser_tests(replace(clean, probes=tuple(kept))))]
    assert any('"longest"' in problem and "relation profession" in problem for problem in problems)


def test_one_pronoun_does_not_hide_the_gender_of_other_names(clean):
    known = genders_of(clean)
    first = next(item for item in clean.statements if clean.fact_by_id[item.fact_ids[0]].subject in known)
    changed = tuple(
        replace(item, text=f"{item.text} He told me so.") if item is first else item
        for item in clean.statements
    )
    subject = clean.fact_by_id[first.fact_ids[0]].subject
    assert genders_of(replace(clean, statements=changed)) == {**known, subject: "male"}
    assert len(known) > 40


def test_an_edited_generated_bank_is_refused_and_anyone_elses_is_kept_with_a_warning(clean, tmp_path):
    leak = by_length(1)(clean)
    leak.save(tmp_path / "bank")
    meta = read_json(tmp_path / "bank" / "bank.json")
    # as it was generated: by an earlier version, which knew no guessers
    assert load_bank(tmp_path / "bank").sha256 == meta["sha256"]
    write_json(tmp_path / "bank" / "bank.json", {**meta, "sha256": "0" * 64})
    with pytest.raises(UserError, match=r'"longest".*generate the bank again, or take `provenance` out'):
        load_bank(tmp_path / "bank")
    write_json(tmp_path / "bank" / "bank.json", {**meta, "provenance": "other"})
    bank = load_bank(tmp_path / "bank")
    assert "guessable" in {finding.code for finding in validate(bank)}
    assert not {flag for probe in bank.probes for flag in probe.flags}


def test_credits_are_shared_in_a_tie():
    assert credit([2, 1, 2]) == 0.5
    assert credit([1, 2, 1]) == 0
    assert credit([0.1 + 0.2, 0.3, 0]) == 0.5  # equal but for the last bit


def test_of_a_large_bank_some_subjects_are_guessed(clean, monkeypatch):
    size = sum(len(probe.candidates) for probe in clean.probes)
    monkeypatch.setattr(guessers, "MOST_CANDIDATES", size - 1)
    guessed = guess(clean)["longest"]
    assert sum(len(probe.candidates) for probe in clean.probes if probe.id in guessed) == size / 2
    subjects = {clean.subject_of(probe) for probe in clean.probes if probe.id in guessed}
    assert len(subjects) == 40


def test_small_banks_have_no_interval_and_no_finding():
    assert list(guessable(guesser_tests(small_bank()))) == []


def test_the_interval_is_wilsons_with_the_effective_number():
    # ten subjects with one probe each, all as one: no design effect
    p, n = 0.3, 10
    low, high, effective = share_interval(p, p * (1 - p) / n, n, n, 0.025)
    assert effective == pytest.approx(n)
    t = stats.t.ppf(0.975, n - 1)
    for edge in (low, high):  # both ends solve (p - edge)^2 = t^2 edge (1 - edge) / n
        assert (p - edge) ** 2 == pytest.approx(t**2 * edge * (1 - edge) / n)
    # four equal probes a subject are one
    assert share_interval(p, p * (1 - p) / n, 4 * n, n, 0.025) == pytest.approx((low, high, n))


def test_a_guesser_that_prefers_one_value_is_right_as_often_as_chance(clean):
    """In a cohort each answer is right equally often where it is offered: the rule that the specs rest on."""
    bank = generate_from_spec("configs/facts/biographies.yaml", ["people=80", "control=0"])
    offered, right = defaultdict(Counter), defaultdict(Counter)
    for probe in bank.probes:
        fact = bank.fact_by_id[probe.fact_ids[0]]
        offered[fact.arm, probe.type].update((probe.answers[0], *probe.distractors))
        right[fact.arm, probe.type][probe.answers[0]] += 1
    # cohorts of ten people with ten answers and ten candidates: nothing is left to chance
    for key, counts in right.items():
        assert all(offered[key][value] == 10 * times for value, times in counts.items())


def test_the_best_guesser_is_shown_with_what_would_be_noticed(clean):
    tests = guesser_tests(clean)
    best, shown = tests[0], best_guesser_in_words(tests)
    assert shown.startswith(f"best of 19 guessers that know no facts: {best.guesser}, ")
    assert f"{best.share:.2f} [{best.low:.2f}, {best.high:.2f}], chance 0.20" in shown
    assert f"all intervals of {len(tests)} tests hold together at 99.9%" in shown
    limits = [test.detected for test in tests]
    assert f"from a share of {min(limits):.2f} in the most exact test, of {max(limits):.2f} in" in shown
    assert best.share < best.detected < 1
