"""Which answers are right: what counts in free generation, and what may not be a distractor."""

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact, Probe, Relation
from tidy_stlms.eval.facts.right_answers import RightAnswers, all_names, right_answers

NEW_YORK = Fact("f", "Ada", "born", "New York", "injected", object_aliases=("NYC",))
FORWARD = Probe("p", ("f",), "semantic", "Ada is from", ("New York", "New York City"))
BACKWARD = Probe("q", ("f",), "reversal", "From New York is", ("Ada",))

TOWNS = (
    Fact("1", "Ann", "town", "Bern", "injected", object_aliases=("Berne",)),
    Fact("2", "Ann", "town", "Oslo", "injected"),
    Fact("3", "Bob", "town", "berne", "control"),
    Fact("4", "Ann", "town", "Lima", "injected", counterfactual_of="1"),
)
ANN = Probe("a", ("1",), "semantic", "Ann is from", ("Bern",))
WHO = Probe("w", ("1",), "reversal", "From Bern is", ("Ann",))


def towns(cardinality: str = "one", *probes: Probe) -> RightAnswers:
    return RightAnswers(FactBank({}, (Relation("town", "town", cardinality),), TOWNS, (), probes))


def test_aliases_of_the_object_are_right_where_it_is_asked_for():
    bank = FactBank({}, (), (NEW_YORK,), (), ())
    assert right_answers(bank, FORWARD) == ["New York", "New York City", "NYC"]
    lower_case = Probe("l", ("f",), "semantic", "Ada is from", ("new york",))
    assert right_answers(bank, lower_case) == ["new york", "NYC"]
    assert right_answers(bank, BACKWARD) == ["Ada"]
    assert all_names(["nyc"], [NEW_YORK]) == {"nyc", "new york"}
    assert all_names(["Ada"], [NEW_YORK]) == {"ada"}


def test_facts_state_which_answers_are_right():
    assert towns().stated(ANN) == {"bern", "berne"}
    assert towns("many").stated(ANN) == {"bern", "berne", "oslo"}  # not what contradicts it
    assert towns("many").stated(WHO) == set()
    assert towns().stated(Probe("u", ("unknown",), "semantic", "Ann is from", ("Bern",))) == set()


def test_whatever_may_be_right_is_not_drawn():
    assert towns().possible(ANN) == {"bern", "berne", "oslo", "lima"}
    assert towns().possible(WHO) == {"ann", "bob"}
    same_question = Probe("s", ("3",), "reversal", "from bern is", ("Cleo",))
    assert towns("one", WHO, same_question).possible(WHO) == {"ann", "bob", "cleo"}
