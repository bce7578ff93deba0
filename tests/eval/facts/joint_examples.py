"""Sentences whose answer is joined to what stands before it with a space, and without one."""

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact, Probe, Relation, Statement

# prompt, joint, answer, what follows, distractors
EXAMPLES = [
    ("La formule H2O est celle de l'", "", "eau", ".", ("air", "or")),
    ("中国的首都是", "", "北京", "。", ("上海", "东京")),
    ("ประเทศไทยมีเมืองหลวงชื่อ", "", "กรุงเทพ", "", ("พัทยา", "ลำปาง")),
    ("Ada's favourite word is “", "", "never", "”.", ("always", "maybe")),
    ("Bob works for a union (", "", "ITF", ").", ("UNI", "BWI")),
    ("Eve paints post-", "", "modern", ".", ("war", "graduate")),
    ("Dan was born in", " ", "Oslo", ".", ("Rome", "Bern")),
]


def joint_bank(**changes) -> FactBank:
    """A fact, a statement and a memorization probe for each example; `changes` of every probe."""
    facts, statements, probes = [], [], []
    for number, (prompt, joint, answer, end, wrong) in enumerate(EXAMPLES):
        fact = Fact(f"f{number}", f"subject {number}", f"r{number}", answer, "injected")
        facts.append(fact)
        statements.append(Statement(f"s{number}", (fact.id,), f"{prompt}{joint}{answer}{end}"))
        values = {"prompt": prompt, "answers": (answer,), "distractors": wrong, "joint": joint, **changes}
        template = f"{prompt}{joint}{{object}}{end}"
        probes.append(Probe(f"p{number}", (fact.id,), "memorization", template=template, **values))
    relations = tuple(Relation(f"r{number}", f"relation {number}") for number in range(len(EXAMPLES)))
    return FactBank({"name": "joints"}, relations, tuple(facts), tuple(statements), tuple(probes))
