"""Wrong answers that the importers draw: none of them is right, and all are of the answer's kind."""

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.imports.distractors import draw_distractors
from tidy_stlms.eval.facts.records import Fact, Probe


def fact(subject: str, object: str, role: str = "injected", **others) -> Fact:
    return Fact(f"{subject}/{object}", subject, "speaks", object, role, **others)


def ask(fact: Fact, prompt: str | None = None, answer: str | None = None, **others) -> Probe:
    prompt = prompt or f"{fact.subject} speaks"
    return Probe(f"{fact.id}?", (fact.id,), "memorization", prompt, (answer or fact.object,), **others)


def drawn(facts: list[Fact], probes: list[Probe] | None = None, most: int = 9) -> dict[str, set[str]]:
    """{"Ann/German": the distractors drawn for the probe of that fact}"""
    bank = FactBank({}, (), facts, (), probes or [ask(fact) for fact in facts])
    made, count = draw_distractors(bank, most)
    assert count == sum(bool(probe.distractors) for probe in made.probes)
    return {probe.fact_ids[0]: set(probe.distractors) for probe in made.probes}


def test_what_is_right_too_is_not_offered():
    facts = [
        fact("Alice", "English"),
        fact("Alice", "French"),  # hers too
        fact("Cy", "Farsi", object_aliases=("Persian",)),
        fact("Dee", "persian"),  # another's answer under another name
        fact("Eve", "french"),
        fact("Gus", "German"),
        fact("Hal", "Germanic"),  # begins with another's answer
    ]
    offered = drawn(facts)
    assert offered["Alice/English"] == {"Farsi", "persian", "German", "Germanic"}
    assert offered["Alice/French"] == {"Farsi", "persian", "German", "Germanic"}
    assert offered["Cy/Farsi"] == {"English", "French", "German", "Germanic"}
    assert offered["Dee/persian"] == {"English", "French", "German", "Germanic"}
    assert offered["Gus/German"] == {"English", "French", "Farsi", "persian"}
    assert offered["Hal/Germanic"] == {"English", "French", "Farsi", "persian", "German"}


def test_whoever_the_question_fits_is_no_wrong_answer_to_it():
    facts = [fact("Ann", "German"), fact("Bob", "German"), fact("Cleo", "Farsi"), fact("Dov", "Urdu")]
    asked = [ask(fact, f"One who speaks {fact.object} is", fact.subject) for fact in facts]
    assert drawn(facts, asked)["Ann/German"] == {"Cleo", "Dov"}
    assert drawn(facts, asked)["Cleo/Farsi"] == {"Ann", "Bob", "Dov"}
    # answers that are neither subject nor object: the same question, the same answers
    asked = [ask(fact, f"{fact.object} is", f"{fact.subject}'s language") for fact in facts]
    assert drawn(facts, asked)["Bob/German"] == {"Cleo's language", "Dov's language"}
    # an answer that comes first has no prompt to tell questions apart; what follows it does
    asked = [ask(fact, " ", fact.subject, suffix=f" speaks {fact.object}") for fact in facts]
    assert drawn(facts, asked)["Dov/Urdu"] == {"Ann", "Bob", "Cleo"}


def test_roles_share_the_answers_that_both_have():
    people = {"injected": ["Ann", "Bob", "Cleo"], "control": ["Dov", "Eve"]}
    tongues = ["German", "Farsi", "Urdu"]
    facts = [
        fact(name, tongue, role)
        for role, names in people.items()
        for name, tongue in zip(names, tongues, strict=False)
    ]
    assert drawn(facts)["Dov/German"] == {"Farsi", "Urdu"}  # all that anybody was given
    # names are one role's alone: another's would be told from them by familiarity
    asked = [ask(fact, f"One who speaks {fact.object} is", fact.subject) for fact in facts]
    assert drawn(facts, asked)["Ann/German"] == {"Bob", "Cleo"}
    assert drawn(facts, asked)["Dov/German"] == {"Eve"}


def test_as_many_as_there_are_up_to_the_number_asked_for():
    # nearly all begin with the answer, so that a first few are not enough
    tongues = ["Ger", *(f"German {n}" for n in range(50)), "Farsi", "Urdu", "Thai"]
    facts = [fact(f"p{n}", tongue) for n, tongue in enumerate(tongues)]
    assert drawn(facts, most=3)["p0/Ger"] == {"Farsi", "Urdu", "Thai"}
    assert {len(wrong) for wrong in drawn(facts, most=3).values()} == {3}
    assert drawn(facts[:1]) == {"p0/Ger": set()}
