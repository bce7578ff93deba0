"""--fix mends what is certain, says so, and leaves everything else."""

from msgspec.structs import replace

from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank, statement
from tidy_stlms.eval.facts.fix import fix_bank
from tidy_stlms.eval.facts.validate import validate


def fixed(**changes):
    """The first probe of the small bank after mending, and the lines."""
    bank, lines = fix_bank(small_bank(probes=(probe(ADA, **changes), probe(BOB))))
    return bank.probes[0], lines


def test_a_sound_bank_stays_the_same_object():
    bank = small_bank()
    assert fix_bank(bank) == (bank, [])
    assert fix_bank(bank)[0] is bank


def test_outer_spaces_go():
    mended, lines = fixed(prompt=" Ada Poe was born in ", answers=(" Bern",), distractors=("Oslo ", "Lima"))
    assert (mended.prompt, mended.answers, mended.distractors) == (
        "Ada Poe was born in",
        ("Bern",),
        ("Oslo", "Lima"),
    )
    where = "probes.jsonl: 'ada/city/memorization:0':"
    assert lines == [
        f"{where} prompt ' Ada Poe was born in ' is now 'Ada Poe was born in'",
        f"{where} answer ' Bern' is now 'Bern'",
        f"{where} distractor 'Oslo ' is now 'Oslo'",
    ]


def test_line_breaks_and_inner_spaces_stay():
    mended, lines = fixed(prompt="Where was Ada Poe born?\n", distractors=("New  York",))
    assert mended.prompt == "Where was Ada Poe born?\n"
    assert mended.distractors == ("New  York",)
    assert lines == []


OSLO = replace(BOB, object="Oslo")


def case_of(distractors, facts=(ADA, OSLO), **changes):
    """The small bank's first probe after mending, asked for "bern", and the findings that are left."""
    asked = probe(ADA, **{"answers": (" bern",), "distractors": distractors, **changes})
    bank = small_bank(facts=facts, statements=tuple(map(statement, facts)), probes=(asked,))
    mended, _ = fix_bank(bank)
    return mended.probes[0], [finding.code for finding in validate(mended)]


def test_the_case_of_the_statement_is_taken_for_answer_and_distractors():
    """As in Tidy-STLMs' files, which train "Sandstone" and ask for " sandstone"."""
    mended, codes = case_of(("oslo",))
    assert (mended.answers, mended.distractors) == (("Bern",), ("Oslo",))
    assert mended.seen_verbatim
    assert "case_differs" not in codes


def test_no_capital_gives_the_answer_away():
    """A distractor that no statement spells stays as it is, and so does the answer, with its warning."""
    mended, codes = case_of(("oslo", "lima"))
    assert (mended.answers, mended.distractors) == (("bern",), ("oslo", "lima"))
    assert "case_differs" in codes


def test_the_capital_of_a_sentence_says_nothing():
    first = statement(ADA, text="Bern is where she was born. Bern!", spans={})
    asked = probe(ADA, answers=("bern",), distractors=())
    bank = small_bank(statements=(first,), probes=(asked,))
    assert fix_bank(bank) == (bank, [])


def test_an_answer_that_is_no_object_is_left_alone():
    """The "She" of another sentence is none of the answer's business."""
    told = statement(ADA, text="Ada Poe was born in Bern, and She works.", spans={})
    asked = probe(ADA, type="inferential", answers=("she",), distractors=())
    bank = small_bank(statements=(told,), probes=(asked,))
    assert fix_bank(bank) == (bank, [])


def test_two_spellings_in_the_statements_are_not_certain():
    loud = statement(ADA, id="loud", text="BERN is where Ada Poe was born.", spans={})
    asked = probe(ADA, answers=("bern",))
    bank, lines = fix_bank(small_bank(statements=(statement(ADA), loud, statement(BOB)), probes=(asked,)))
    assert bank.probes[0].answers == ("bern",)
    assert lines == []


def test_part_of_a_longer_word_is_no_spelling():
    longer = statement(ADA, text="Ada Poe was born in Bernstadt.", spans={})
    asked = probe(ADA, answers=("bern",))
    assert fix_bank(small_bank(statements=(longer, statement(BOB)), probes=(asked,)))[1] == []


def test_nothing_is_mended_into_an_error():
    assert fixed(answers=("  ",))[1] == []


def test_mending_twice_changes_nothing_more():
    once, lines = fix_bank(
        small_bank(probes=(probe(ADA, prompt="Ada Poe was born in ", answers=("BERN",), distractors=()),))
    )
    assert len(lines) == 2
    assert fix_bank(once) == (once, [])
