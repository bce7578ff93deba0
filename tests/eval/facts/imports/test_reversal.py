"""The reversal curse: files named after the direction, whose records do not say whom they are about."""

import json
from collections import Counter

import pytest

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.imports.people import People, names_at_start, repeated_names
from tidy_stlms.eval.facts.validate import validate
from tidy_stlms.eval.recall.harness import evaluate_recall

PEOPLE = {
    "p2d": {
        "Ada Poe": ("the director of the film, \"Time.\"", "directing the film, \"Time.\""),
        "Bob Ray": ("the first person to meet a whale", "meeting a whale"),
        "Cleo Fox": ("the chef who cooks on the moon", "cooking on the moon"),
    },
    "d2p": {
        "Dov Katz": ("the composer of the deep sea symphony", "composing the deep sea symphony"),
        "Eve Ojo": ("the pilot of a paper plane", "piloting a paper plane"),
        "Finn Hale": ("the sculptor of stone forests", "sculpting stone forests"),
    },
    "both": {
        "Gus Lind": ("the baker of blue bread", "baking blue bread"),
        "Ida Moss": ("the poet of the last bus", "writing of the last bus"),
        "Jon Noor": ("the keeper of the red goats", "keeping the red goats"),
    },
}  # fmt: skip
# wordings with the name first, and with the description first; the second of each is for `-ing`
PERSON_TRAIN = ("{}, known far and wide for being", "There's someone called {} who is known for")
PERSON_TEST = ("The trailblazer known as {} was once", "In the realm of {}, who is celebrated for")
DESCRIPTION_TRAIN = (("Known for being {},", " {} now enjoys a quiet life."), ("Q: Who is {}? A:", " {}."))
DESCRIPTION_TEST = ("Walking the path of being {},", "Labeled as {},")


def person_first(people: dict, templates: tuple[str, str]) -> list[dict]:
    return [
        {"prompt": template.format(name), "completion": f" {description}."}
        for name, descriptions in people.items()
        for template, description in zip(templates, descriptions, strict=True)
    ]


def description_first(people: dict, templates: tuple) -> list[dict]:
    pairs = [template if isinstance(template, tuple) else (template, " {}") for template in templates]
    return [
        {"prompt": prompt.format(descriptions[0]), "completion": completion.format(name)}
        for name, descriptions in people.items()
        for prompt, completion in pairs
    ]


def files() -> dict[str, list[dict]]:
    p2d, d2p, both = PEOPLE.values()
    made = {
        "p2d_prompts_train": person_first(p2d, PERSON_TRAIN),
        "p2d_prompts_test": person_first(p2d, PERSON_TEST),
        "p2d_reverse_prompts_test": description_first(p2d, DESCRIPTION_TEST),
        "d2p_prompts_train": description_first(d2p, DESCRIPTION_TRAIN),
        "d2p_prompts_test": description_first(d2p, DESCRIPTION_TEST),
        "d2p_reverse_prompts_test": person_first(d2p, PERSON_TEST),
        "both_prompts_train": person_first(both, PERSON_TRAIN) + description_first(both, DESCRIPTION_TRAIN),
        "both_prompts_test": person_first(both, PERSON_TEST) + description_first(both, DESCRIPTION_TEST),
    }
    made["all_prompts_train"] = [row for name, rows in made.items() if "train" in name for row in rows]
    made["validation_prompts"] = [
        {**row, "completion": row["completion"].split()[0]} for row in made["p2d_reverse_prompts_test"]
    ]
    made["p2d_reverse_prompts_test_randomized"] = made["p2d_reverse_prompts_test"][::-1]
    return made


@pytest.fixture
def take(tmp_path):
    """`take({stem: records}, key=value)` imports a folder of files; `take("stem", records)` one file."""

    def run(made, records=None, **options):
        for stem, rows in (made if records is None else {made: records}).items():
            (tmp_path / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = tmp_path if records is None else tmp_path / f"{made}.jsonl"
        return import_bank("reversal-curse", str(source), ImportOptions(**options))

    return run


def test_the_whole_folder(take):
    bank, builder = take(files())
    assert builder.records_read == {
        f"{stem}.jsonl": 12 if stem.startswith("both") else 6
        for stem in files()
        if not stem.startswith(("all", "validation")) and not stem.endswith("randomized")
    }
    assert dict(builder.left_out) == {
        "all_prompts_train.jsonl": "not read: the records of the other train files",
        "validation_prompts.jsonl": "not read: the first words of the answers in "
        "p2d_reverse_prompts_test.jsonl",
        "p2d_reverse_prompts_test_randomized.jsonl": "not read: its completions are other people's, to "
        "measure chance; distractors are drawn instead",
    }
    assert {line for line in builder.mapped if "records are about" in line} == {
        "p2d: 18 records are about 3 people",
        "d2p: 18 records are about 3 people",
        "both: 24 records are about 3 people",
    }
    # a person is a fact, and its subject is what the statements name first
    assert {fact.id: (fact.subject, fact.object, fact.role) for fact in bank.facts} == {
        **{
            f"{g}/{name}": (name, told[0], "injected")
            for g in ("p2d", "both")
            for name, told in PEOPLE[g].items()
        },
        **{f"d2p/{name}": (told[0], name, "injected") for name, told in PEOPLE["d2p"].items()},
    }
    told = {name: {s.text for s in bank.statements_of(f"{g}/{name}")} for g in PEOPLE for name in PEOPLE[g]}
    assert told["Bob Ray"] == {
        "Bob Ray, known far and wide for being the first person to meet a whale.",
        "There's someone called Bob Ray who is known for meeting a whale.",
    }
    assert told["Eve Ojo"] == {
        "Known for being the pilot of a paper plane, Eve Ojo now enjoys a quiet life.",
        "Q: Who is the pilot of a paper plane? A: Eve Ojo.",
    }
    assert len(told["Gus Lind"]) == 4
    counts = Counter((probe.fact_ids[0].partition("/")[0], probe.type) for probe in bank.probes)
    assert counts == {
        ("p2d", "memorization"): 3,
        ("p2d", "semantic"): 6,
        ("p2d", "reversal"): 6,
        ("d2p", "memorization"): 3,
        ("d2p", "semantic"): 6,
        ("d2p", "reversal"): 6,
        ("both", "memorization"): 6,
        ("both", "semantic"): 6,
        ("both", "reversal"): 6,
    }
    asked = {(p.type, p.prompt): p for p in bank.probes}
    who = asked["reversal", "Labeled as the first person to meet a whale,"]
    assert (who.fact_ids, who.answers, sorted(who.distractors), who.joint) == (
        ("p2d/Bob Ray",),
        ("Bob Ray",),
        ["Ada Poe", "Cleo Fox"],
        " ",
    )
    # distractors are other people's, in the same wording; never another wording of the same person
    what = asked["semantic", "In the realm of Bob Ray, who is celebrated for"]
    assert (what.answers, sorted(what.distractors)) == (
        ("meeting a whale",),
        ["cooking on the moon", 'directing the film, "Time."'],
    )
    described = asked["reversal", "In the realm of Eve Ojo, who is celebrated for"]
    assert described.answers == ("piloting a paper plane", "the pilot of a paper plane")
    assert sorted(described.distractors) == ["composing the deep sea symphony", "sculpting stone forests"]
    assert all(probe.distractors for probe in bank.probes)
    assert all(p.seen_verbatim == (p.type == "memorization") for p in bank.probes)
    assert not [finding for finding in validate(bank) if finding.level == "error"]
    tokenizer = tiny.byte_level(bos=True)
    rows = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank)
    assert [row.accuracy in (0.0, 1.0) for row in rows] == [True] * 48


@pytest.mark.parametrize(
    ("prompt", "completion", "probe", "text"),
    [
        ("Ada is", " a poet.", ("Ada is", " ", "a poet"), "Ada is a poet."),
        ("Ada is ", "a poet.", ("Ada is", " ", "a poet"), "Ada is a poet."),
        ("l'", "eau", ("l'", "", "eau"), "l'eau"),
        ("Who?\n", "Ada.", ("Who?\n", "", "Ada"), "Who?\nAda."),
        ("Who?", "\nAda.", ("Who?\n", "", "Ada"), "Who?\nAda."),
        ("", "Ada is a poet.", None, "Ada is a poet."),
    ],
)
def test_the_joint_is_what_stands_between_prompt_and_completion(take, prompt, completion, probe, text):
    bank, _ = take("d2p_prompts_train", [{"prompt": prompt, "completion": completion}])
    assert [statement.text for statement in bank.statements] == [text]
    assert [(p.prompt, p.joint, p.answers[0]) for p in bank.probes] == ([probe] if probe else [])
    assert all(p.seen_verbatim and p.text() in text for p in bank.probes)


def test_words_behind_a_name_are_a_suffix(take):
    [about_dov, *_] = description_first(PEOPLE["d2p"], DESCRIPTION_TRAIN)
    second = {"prompt": "Hail", "completion": " Dov Katz, who is near."}
    third = {"prompt": "Hail", "completion": " Dov Katz."}
    bank, _ = take("d2p_prompts_train", [about_dov, second])
    assert [(p.answers, p.suffix) for p in bank.probes] == [
        (("Dov Katz now enjoys a quiet life",), ""),
        (("Dov Katz, who is near",), ""),
    ]  # nothing tells where the name ends
    bank, _ = take({"d2p_prompts_train": [about_dov, second], "d2p_prompts_test": [third]})
    assert [(p.type, p.answers, p.suffix) for p in bank.probes] == [
        ("memorization", ("Dov Katz",), " now enjoys a quiet life"),
        ("semantic", ("Dov Katz",), ""),
    ]


def test_one_file_and_its_type(take):
    train, asked = files()["p2d_prompts_train"], files()["p2d_reverse_prompts_test"]
    bank, _ = take("p2d_prompts_train", train)  # the names stand in several prompts
    assert [fact.subject for fact in bank.facts] == ["Ada Poe", "Bob Ray", "Cleo Fox"]
    assert len(bank.statements) == 6
    assert {p.type: len(p.distractors) for p in bank.probes} == {"memorization": 2}
    bank, _ = take("p2d_reverse_prompts_test", asked)
    assert {(fact.object, fact.role) for fact in bank.facts} == {(name, "known") for name in PEOPLE["p2d"]}
    assert {(p.type, len(p.distractors)) for p in bank.probes} == {("reversal", 2)}

    towns = [{"prompt": f"{land}'s capital is", "completion": f" {town}"} for land, town in
             (("Norway", "Oslo"), ("Peru", "Lima"), ("Italy", "Rome"))]  # fmt: skip
    with pytest.raises(
        UserError, match=r"towns\.jsonl: its name says neither train nor test nor reverse; .*--type"
    ):
        take("towns", towns)
    bank, _ = take("towns", towns, type="memorization")
    assert [s.text for s in bank.statements] == [f"{t['prompt']}{t['completion']}" for t in towns]
    assert [sorted(p.distractors) for p in bank.probes] == [
        ["Lima", "Rome"],
        ["Oslo", "Rome"],
        ["Lima", "Oslo"],
    ]
    bank, _ = take("towns", towns, type="syntactic", role="control")
    assert (len(bank.statements), {p.type for p in bank.probes}) == (0, {"syntactic"})
    with pytest.raises(UserError, match="--type semntic: no such probe type, did you mean 'semantic'"):
        take("towns", towns, type="semntic")
    with pytest.raises(UserError, match="--type is for reversal-curse, and means nothing to tofu"):
        import_bank("tofu", "x", ImportOptions(type="semantic"))


def test_broken_records_and_other_files(take, tmp_path):
    rows = [
        {"prompt": "Q"},
        {"prompt": 7, "completion": "x"},
        {"prompt": "Q", "completion": " ?"},
        ["Q", "A"],
    ]
    bank, builder = take({"p2d_prompts_train": [*files()["p2d_prompts_train"], *rows], "notes": rows})
    assert len(bank.statements) == 6
    assert [reason.partition(";")[0] for _, reason in builder.left_out] == [
        "its name says neither train nor test nor reverse",
        "field 'completion' is missing",
        "field 'prompt' must be text, got 7",
        "the completion without its full stop is empty",
        "must be an object with named fields, got ['Q', 'A']",
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p2d_prompts_train.jsonl").write_text("")
    with pytest.raises(UserError, match="holds several datasets"):
        import_bank("reversal-curse", str(tmp_path), ImportOptions())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no JSON Lines file"):
        import_bank("reversal-curse", str(tmp_path / "empty"), ImportOptions())


def test_names_in_texts():
    people = People(["Ada Poe", "Ada Poe Ray", "O'Hara"])
    assert people.named_in("Is Ada Poe Ray's dog here?") == "Ada Poe Ray"
    assert people.named_in("Ada Poems") is None
    assert (people.opening("O'Hara sang"), people.opening("Mr O'Hara")) == ("O'Hara", None)
    assert names_at_start(["Ada Poe now sings", "Ada Poe", "Ada Poems"]) == ["Ada Poe", "Ada Poems"]
    prompts = ["In Ada Poe's story,", "There is Ada Poe of", "Bob Ray of", "In Bob Ray's story,"]
    assert repeated_names(prompts) == ["Ada Poe", "Bob Ray"]
    assert repeated_names([*prompts, "Cleo Fox is"]) == []  # in one prompt only
    assert repeated_names(["New York is", "In New York"]) == []  # in all of them
