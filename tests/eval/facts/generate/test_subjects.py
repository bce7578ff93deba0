"""Names of subjects."""

import pytest

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.generate.spec import NameSpec
from tidy_stlms.eval.facts.generate.subjects import draw_names, names_in

PEOPLE = "configs/facts/people.yaml"
SMALL = ["people=12", "use=[profession]"]


def test_names_that_the_corpus_knows_are_not_given():
    plain = generate_from_spec(PEOPLE, SMALL)
    names = sorted({fact.subject for fact in plain.facts})
    texts = (f"It is said that {name.upper()}, of all people, came." for name in names[:5])
    made = generate_from_spec(PEOPLE, SMALL, corpus=texts)
    check_generated(made)
    given = {fact.subject for fact in made.facts}
    assert len(given) == 24
    assert not given & set(names[:5])
    # where the corpus knows nobody, nothing changes
    others = [f"{name.split()[0]} and {name.split()[1]}son" for name in names]
    assert generate_from_spec(PEOPLE, SMALL, corpus=others).sha256 == plain.sha256


def test_names_are_found_as_whole_words_in_any_case():
    names = ["Ann Lee", "Bo", "Acme and Sons"]
    assert names_in(["ann  lee.", "Bob", "ACME AND SONS!"], names) == {"Ann Lee", "Acme and Sons"}
    assert names_in(["Joann Lee", "Ann Leeson", "Ann, Lee"], names) == {"Ann Lee"}
    assert names_in(["So said", "Acme", "and", "", "Sons, and Ann", "Lee to Bo"], names) == set(names)
    assert names_in([], names) == set()


def test_names_may_come_from_a_provider_or_a_list():
    firms = draw_names(NameSpec(faker="company", pattern="[A-Z][a-z]+ (Inc|Ltd)"), 20, {"smith"}, 0)
    assert len(set(firms)) == 20
    assert all(firm.endswith(("Inc", "Ltd")) and "Smith" not in firm for firm in firms)
    cities = NameSpec(words=["Ur", "Uruk", "Nippur", "Tell Nippur", "Abu Shahrain"])
    assert sorted(draw_names(cities, 3, set(), 0)) == ["Abu Shahrain", "Nippur", "Ur"]
    with pytest.raises(UserError, match=r"names: there are 3, people \+ control is 4"):
        draw_names(cities, 4, set(), 0)
    with pytest.raises(UserError, match="1 more stand in the corpus"):
        draw_names(NameSpec(words=["Ur", "Nippur"]), 2, set(), 0, corpus=["In Ur."])
    with pytest.raises(UserError, match=r"names\.words: 'Mt. Ida' holds a full stop"):
        draw_names(NameSpec(words=["Ur", "Mt. Ida"]), 1, set(), 0)


def test_no_name_stands_in_another():
    firms = draw_names(NameSpec(faker="company", locale="fr_FR", pattern=".+"), 200, set(), 0)
    assert len(firms) == 200
    assert not [firm for firm in firms if names_in([firm], firms) != {firm}]
