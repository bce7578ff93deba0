"""Each check of the validator has a bank that trips it, and a sound bank trips none."""

import pytest
from msgspec.structs import replace

from tests.eval.facts.bank_files import ADA, BOB, edit_line, probe, small_bank, statement
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.integrity import Finding, integrity_errors
from tidy_stlms.eval.facts.records import Fact, Relation, Statement
from tidy_stlms.eval.facts.text_match import find_words
from tidy_stlms.eval.facts.validate import flag_probes, load_bank, refuse_generated, validate
from tidy_stlms.eval.facts.warnings import WARNINGS, words_of

SEMANTIC = {"type": "semantic", "prompt": "Ada Poe lives in"}


def codes(bank, **options):
    return [finding.code for finding in validate(bank, **options)]


def asked(**changes):
    """The small bank with changes to its first probe."""
    return small_bank(probes=(probe(ADA, **changes), probe(BOB)))


def stated(**changes):
    return small_bank(statements=(statement(ADA, **changes), statement(BOB)))


def test_a_sound_bank_has_no_findings():
    assert validate(small_bank()) == []


ERRORS = {
    "role": (small_bank(facts=(replace(ADA, role="treated"), BOB)), "schema"),
    "type": (asked(type="recall"), "schema"),
    "kind": (stated(kind="poem"), "schema"),
    "form": (stated(form="paraphrase:0"), "schema"),
    "cardinality": (small_bank(relations=(Relation("city", "city", cardinality="two"),)), "schema"),
    "empty text": (stated(text=" ", spans={}), "schema"),
    "probe of no fact": (asked(fact_ids=()), "schema"),
    "statement of no fact": (stated(fact_ids=(), spans={}), "schema"),
    "fact twice": (small_bank(facts=(ADA, BOB, ADA)), "duplicate_id"),
    "probe twice": (small_bank(probes=(probe(ADA), probe(ADA))), "duplicate_id"),
    "unknown relation": (small_bank(relations=()), "dangling_id"),
    "unknown inverse": (small_bank(relations=(Relation("city", "city", inverse="x"),)), "dangling_id"),
    "unknown original": (small_bank(facts=(replace(ADA, counterfactual_of="x"), BOB)), "dangling_id"),
    "unknown fact stated": (stated(fact_ids=("x",), spans={}), "dangling_id"),
    "unknown fact asked": (asked(fact_ids=("x",)), "dangling_id"),
    "span elsewhere": (stated(spans={"subject": (1, 8)}), "wrong_span"),
    "span outside": (stated(spans={"object": (20, 99)}), "wrong_span"),
    "span backwards": (stated(spans={"object": (9, 3)}), "wrong_span"),
    "span of something else": (stated(spans={"verb": (8, 11)}), "wrong_span"),
    "no answer": (asked(answers=()), "no_answer"),
    "empty answer": (asked(answers=("",)), "no_answer"),
    "empty distractor": (asked(distractors=("Oslo", " ")), "distractor"),
    "distractor twice": (asked(distractors=("Oslo", "Lima", "Oslo ")), "distractor"),
    "answer among distractors": (asked(distractors=("Oslo", "Bern")), "answer_in_distractors"),
    "answer among them in other case": (asked(distractors=("bern ",)), "answer_in_distractors"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, tmp_path):
    bank, code = ERRORS[case]
    findings = validate(bank)
    assert {finding.code for finding in findings} == {code}
    assert all(finding.level == "error" and ".jsonl: " in finding.message for finding in findings)
    bank.save(tmp_path / "bank")
    with pytest.raises(UserError, match=r"bank/\w+\.jsonl: '"):
        load_bank(tmp_path / "bank")


TOWN = Fact("ada/town", "Ada Poe", "city", "Oslo", "injected")
EVE = Fact("eve/city", "Eve Low", "city", "Bern", "injected")
DAN = Fact("dan/city", "Dan Oak", "city", "Graz", "control")
SAO, SAO_TOO = (replace(fact, object="S\u00e3o") for fact in (ADA, BOB))
ALIAS = replace(ADA, object_aliases=("Berne",))

TOLD = (statement(ADA), statement(BOB), statement(TOWN))
MANY = (Relation("city", "lived in", cardinality="many"),)
FRIENDS = (
    Fact("eve/city", "Eve Low", "city", "Ada Poe", "injected"),
    Fact("dan/city", "Dan Oak", "city", "Bob Ray", "control"),
)

TRIPPING = {
    "answer_in_prompt": [
        asked(type="locality", prompt="Bern is where Ada Poe was born: in"),
        asked(type="locality", prompt="In BERN, Ada Poe saw"),
    ],
    "outer_space": [asked(prompt="Ada Poe was born in "), asked(distractors=(" Oslo",))],
    "case_differs": [
        asked(answers=("bern",)),
        # the "bern" of a longer word is another one
        replace(
            asked(answers=("bern",)),
            statements=(
                statement(ADA, text="Ada Poe was born in Bern, not Hibernia.", spans={}),
                statement(BOB),
            ),
        ),
    ],
    "joined_text_not_stated": [
        asked(joint=""),
        asked(prompt="Ada Poe was born at"),
        # the same letters in another normal form are other tokens
        small_bank(
            facts=(SAO, SAO_TOO),
            statements=(statement(SAO, text="Ada Poe was born in Sa\u0303o.", spans={}), statement(SAO_TOO)),
            probes=(probe(SAO),),
        ),
        # of several answers none is joined as in the statement
        small_bank(facts=(ALIAS, BOB), probes=(probe(ALIAS, answers=("Bern", "Berne"), joint=""),)),
    ],
    "answer_not_in_fact": [asked(answers=("born",), prompt="Ada Poe was")],
    "prefix_of_distractor": [asked(distractors=("Bernstein",)), asked(distractors=("bernstein",))],
    "trained_wording": [
        asked(type="semantic"),
        asked(type="syntactic"),
        # the wording of another fact of the relation, without spans to go by
        small_bank(
            facts=(replace(ADA, role="known"), BOB),
            statements=(statement(BOB, spans={}),),
            probes=(probe(ADA, type="semantic"),),
        ),
    ],
    "new_words": [asked(**SEMANTIC)],
    "duplicate_fact": [small_bank(facts=(ADA, BOB, TOWN), statements=(statement(ADA), statement(TOWN)))],
    "not_stated": [small_bank(facts=(ADA, BOB, EVE), probes=(probe(EVE),))],
    "none_stated": [
        small_bank(facts=(ADA, BOB, EVE), statements=()),
        small_bank(statements=(statement(BOB),)),  # no run trains on statements of control facts
    ],
    "unequal_pools": [small_bank(facts=(ADA, BOB, DAN))],
}  # `guessable` takes more facts: test_guessers.py


def test_every_warning_has_a_bank():
    assert {*TRIPPING, "guessable"} == set(WARNINGS)


@pytest.mark.parametrize("code", TRIPPING)
def test_warnings_are_found_and_become_flags(code, tmp_path):
    for index, bank in enumerate(TRIPPING[code]):
        findings = validate(bank)
        assert [finding.code for finding in findings] == [code]
        assert findings[0].level == "warning"
        # what concerns a relation or the bank as a whole is no probe's fault
        flags = () if code in ("unequal_pools", "none_stated") else (code,)
        assert flag_probes(bank, validate(bank)).probes[0].flags == flags
        # kept, with the flag, when loaded
        bank.save(tmp_path / str(index))
        assert load_bank(tmp_path / str(index)).probes[0].flags == flags


@pytest.mark.parametrize(
    "bank",
    [
        asked(type="locality", prompt="Bernard Poe, called Ada Poe, was born in"),  # inside a longer word
        asked(type="inferential", prompt="Ada Poe was born", answers=("in",)),  # a conclusion may be new
        asked(type="reversal", prompt="Born in Bern was", answers=("Ada Poe",)),
        asked(distractors=("Old Bern",)),  # holds the answer, but does not begin with it
        small_bank(facts=(ALIAS, BOB), probes=(probe(ALIAS, answers=("Bern", "Berne"), distractors=()),)),
        small_bank(facts=(ALIAS, BOB), probes=(probe(ALIAS, answers=("Berne", "Bern"), distractors=()),)),
        asked(type="locality", joint=""),  # it need not be the trained wording
        small_bank(
            facts=(ADA, BOB, TOWN),
            relations=MANY,
            statements=TOLD,
            probes=(probe(ADA, distractors=("Lima",)),),
        ),
        small_bank(facts=(ADA, BOB, replace(TOWN, counterfactual_of=ADA.id)), statements=TOLD),
        small_bank(facts=(ADA, BOB, replace(DAN, arm="unseen"))),  # has other answers on purpose
        # where people are the answers, each role has its own
        small_bank(
            facts=(replace(ADA, object="Eve Low"), replace(BOB, object="Dan Oak"), *FRIENDS),
            statements=tuple(
                statement(fact, spans={}) for fact in (replace(ADA, object="Eve Low"), *FRIENDS)
            ),
            probes=(),
        ),
        small_bank(facts=(replace(ADA, role="known"), BOB), statements=()),  # a bank that only asks
        # nothing to compare words with
        small_bank(facts=(BOB,), statements=(), probes=(probe(BOB, **SEMANTIC),)),
    ],
)
def test_what_only_looks_wrong_is_left_alone(bank):
    assert validate(bank) == []


JOB = Fact("ada/job", "Ada Poe", "job", "smith", "injected")


def told_together(text, **spans):
    """The small bank with one statement about two facts of Ada Poe."""
    joint = Statement("ada/both", (ADA.id, JOB.id), text, spans=spans)
    return small_bank(
        relations=(Relation("city", "city of birth"), Relation("job", "job")),
        facts=(ADA, BOB, JOB),
        statements=(joint, statement(BOB)),
        probes=(probe(JOB, type="semantic", prompt="Ada Poe worked as a", distractors=("cook",)),),
    )


def test_statements_of_several_facts_have_a_span_for_each():
    text = "Ada Poe of Bern works as a smith."
    spans = {"subject": (0, 7), f"object:{ADA.id}": (11, 15), f"object:{JOB.id}": (27, 32)}
    assert integrity_errors(told_together(text, **spans)) == []
    for name, span in ((f"object:{ADA.id}", (27, 32)), ("object:bob/city", (11, 15)), ("subject", (11, 15))):
        (finding,) = integrity_errors(told_together(text, **{name: span}))
        assert finding.code == "wrong_span"


@pytest.mark.parametrize("with_spans", [False, True])
def test_a_wording_is_trained_by_a_statement_of_several_facts_too(with_spans):
    text = "Ada Poe comes from Bern. Ada Poe worked as a smith."
    end = text.index("smith") + len("smith")
    spans = {"subject": (0, len("Ada Poe")), f"object:{JOB.id}": (text.index("smith"), end)}
    assert codes(told_together(text, **(spans if with_spans else {}))) == ["trained_wording"]


def test_questions_about_others_do_not_make_a_question_trained():
    """Half of the people have trained questions; the same questions about the others are held out."""
    question = "Where was {} born?"

    def asked(fact):
        text = f"{question.format(fact.subject)} {fact.object}."
        return Statement(f"{fact.id}/question:0", (fact.id,), text, kind="qa")

    eve = statement(EVE)
    probes = (probe(ADA, type="semantic", prompt=question.format("Ada Poe")),)
    bank = small_bank(facts=(ADA, EVE), statements=(statement(ADA), eve, asked(EVE)), probes=probes)
    assert codes(bank) == []
    bank = replace(bank, statements=(*bank.statements, asked(ADA)))
    assert codes(bank) == ["trained_wording"]


def test_a_reversal_probe_must_be_held_out_as_well():
    backwards = statement(ADA, text="Born in Bern was Ada Poe.", spans={}, form="reverse", id="ada/reverse")
    reversal = probe(ADA, type="reversal", prompt="Born in Bern was", answers=("Ada Poe",))
    assert codes(small_bank(probes=(reversal,))) == []
    told = small_bank(statements=(statement(ADA), backwards, statement(BOB)), probes=(reversal,))
    assert codes(told) == ["trained_wording"]


def test_words_of_the_corpus_count_as_seen():
    bank = asked(**SEMANTIC)
    assert codes(bank, corpus_words=words_of(["Nobody lives there.", "No."])) == []
    assert codes(bank, corpus_words=words_of(["Nobody."])) == ["new_words"]


def test_control_statements_are_not_read_by_the_model():
    lives = statement(BOB, text="Bob Ray lives in Rome.", spans={})
    bank = small_bank(
        statements=(statement(ADA), lives), probes=(probe(ADA, type="syntactic", prompt="Ada Poe lives in"),)
    )
    assert "new_words" in codes(bank)


def test_names_and_answers_in_a_prompt_are_not_words_of_the_wording():
    bank = asked(type="reversal", prompt="Born in Bern was", answers=("Ada Poe",), distractors=("Bob Ray",))
    assert codes(bank) == []


def test_flags_are_renewed_and_those_of_others_kept():
    bank = asked(flags=("answer_in_prompt", "imported_late"))
    assert flag_probes(bank, validate(bank)).probes[0].flags == ("imported_late",)


def test_a_wording_is_searched_for_in_few_texts(monkeypatch):
    """Where each text is worded otherwise, as in other people's tables, all pairs would take minutes."""
    from tidy_stlms.eval.facts import warnings as module

    tried = []

    def counted(text, words):
        tried.append(words)
        return find_words(text, words) >= 0

    monkeypatch.setattr(module, "holds_words", counted)
    facts = [Fact(f"f{n}", f"Subject{n}", "city", f"Object{n}", "injected") for n in range(200)]
    statements = [Statement(f.id, (f.id,), f"{f.subject} of word{f.id} has {f.object} since.") for f in facts]
    probes = [
        probe(f, type="semantic", prompt=f"{f.subject} of word{f.id} has" if f.id == "f7" else f"How{f.id}?")
        for f in facts
    ]
    found = codes(small_bank(facts=facts, statements=statements, probes=probes))
    assert found.count("trained_wording") == 1
    assert len(tried) < 20 * len(facts)


def test_the_id_of_a_fact_is_not_taken_for_that_of_a_probe():
    facts = (replace(ADA, id="1"), replace(TOWN, id="2"), replace(BOB, id="3"))
    probes = (probe(BOB, id="1", fact_ids=("3",)), probe(ADA, id="3", fact_ids=("1",)))
    bank = small_bank(facts=facts, statements=(), probes=probes)
    bank = flag_probes(bank, validate(bank))
    assert [item.flags for item in bank.probes] == [(), ("duplicate_fact",)]


def test_warnings_refuse_a_generated_bank(tmp_path):
    small_bank(meta={"provenance": "generated"}).save(tmp_path / "bank")
    load_bank(tmp_path / "bank")
    edit_line(tmp_path / "bank", "probes", 0, prompt="Bern saw Ada Poe born in")
    with pytest.raises(
        UserError, match=r"refused: .*bank/probes\.jsonl: 'ada/city/memorization:0'.*stands in the prompt"
    ):
        load_bank(tmp_path / "bank")


def test_a_runs_copy_keeps_the_flags_it_has_and_is_still_checked(tmp_path):
    kept = probe(ADA, flags=("case_differs",))
    small_bank(probes=(kept, probe(BOB))).save(tmp_path / "bank")
    assert load_bank(tmp_path / "bank", flag=False).probes[0] == kept
    assert load_bank(tmp_path / "bank").probes[0].flags == ()
    edit_line(tmp_path / "bank", "probes", 0, fact_ids=["eve"])
    with pytest.raises(UserError, match="'eve' is not in facts"):
        load_bank(tmp_path / "bank", flag=False)


# "unseen_words": the key's and the flag's name in banks that earlier versions generated
@pytest.mark.parametrize("key", ["new_words", "unseen_words"])
def test_a_generated_bank_may_allow_new_words_but_nothing_else(key):
    meta = {"provenance": "generated", "spec": {key: "flag"}}
    bank = replace(asked(**SEMANTIC), meta=meta)
    refuse_generated(bank, validate(bank))
    bank = replace(asked(**SEMANTIC, distractors=("Bernstein",)), meta=meta)
    with pytest.raises(UserError, match="prefix of the distractor"):
        refuse_generated(bank, validate(bank))


def test_what_a_model_knows_already_does_not_refuse_a_bank():
    known = Finding("warning", "known_already", "probes.jsonl", ("ada/city/memorization:0",), "known")
    bank = small_bank(meta={"provenance": "generated"})
    refuse_generated(bank, [known])
    flagged = flag_probes(bank, [known])
    assert flagged.probes[0].flags == ("known_already",)
    renewed = flag_probes(flagged, validate(flagged))
    assert renewed.probes[0].flags == ("known_already",)


def test_a_flag_of_an_earlier_version_gets_its_new_name():
    bank = asked(**SEMANTIC, flags=("unseen_words",))
    assert flag_probes(bank, validate(bank)).probes[0].flags == ("new_words",)


@pytest.mark.parametrize(
    ("facts", "distractor"),
    [
        ((replace(ADA, object_aliases=("Berne",)),), "berne"),  # the fact's own alias
        ((ADA, replace(TOWN, object_aliases=("Kristiania",))), "Oslo"),  # the subject's other object
        ((ADA, replace(TOWN, object_aliases=("Kristiania",))), "Kristiania"),
    ],
)
def test_no_distractor_is_right_by_the_banks_own_word(facts, distractor):
    asked = probe(ADA, distractors=(distractor, "Lima"))
    bank = small_bank(relations=MANY, facts=facts, statements=(), probes=(asked,))
    (finding,) = validate(bank)
    assert (finding.code, finding.ids) == ("answer_in_distractors", (asked.id,))
    assert f"the distractor {distractor!r} is right as well" in finding.message


def test_what_a_counterfactual_contradicts_may_be_a_distractor():
    against = replace(TOWN, counterfactual_of=ADA.id)
    probes = (probe(ADA, distractors=("Oslo",)), probe(against, distractors=("Bern",)))
    assert integrity_errors(small_bank(relations=MANY, facts=(ADA, BOB, against), probes=probes)) == []


@pytest.mark.parametrize(
    "arms",
    [
        "x",
        None,
        {"once": {"exposure": 3}},
        {"once": {"exposures": -1}},
        {"once": {"exposures": True}},
        {"once": 3},
    ],
)
def test_arms_must_say_how_often(arms, tmp_path):
    small_bank(meta={"arms": arms}).save(tmp_path / "bank")
    with pytest.raises(UserError, match=r"bank\.json: arms.* must look like .*'exposures': 1"):
        load_bank(tmp_path / "bank")
    assert integrity_errors(small_bank(meta={"arms": {"once": {"exposures": 0, "form": "original"}}})) == []


def test_every_error_is_listed():
    bank = small_bank(relations=(), probes=(probe(ADA, answers=()), probe(BOB, fact_ids=("x",))))
    assert len(integrity_errors(bank)) == 4
