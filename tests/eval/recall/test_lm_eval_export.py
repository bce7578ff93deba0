"""A bank as lm-eval tasks: lm-eval measures on them what our own harness measures on the bank."""

import json
import math
import shlex
import shutil
import sys

import pytest
import yaml
from msgspec.structs import replace

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank, statement
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_jsonl
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.records import Fact, Probe
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.eval.recall.lm_eval_export import (
    LmEvalPrefix,
    command,
    document,
    export_lm_eval,
    utils_source,
)
from tidy_stlms.eval.scoring.generation import Continuation, exact_match

SUFFIXED = [  # the answer first, without a prompt; the answer inside
    Probe("ada/first", (ADA.id,), "semantic", "", ("Bern",), ("Rome", "Oslo"), " is where Ada Poe was born."),
    Probe("ada/inside", (ADA.id,), "semantic", "The city of", ("Bern",), ("Rome",), " saw Ada Poe's birth."),
    Probe("ada/open", (ADA.id,), "semantic", "Ada Poe was born in", ("Bern", "Berne")),
]
JOINED = [  # without a space before the answer
    Probe("ada/quote", (ADA.id,), "semantic", "Ada Poe's city (“", ("Bern",), ("Rome", "Oslo"), joint=""),
    Probe("ada/elided", (ADA.id,), "semantic", "Ada Poe, née à l'", ("Oslo",), ("Bern", "Rome"), joint=""),
    Probe("ada/hyphen", (ADA.id,), "semantic", "Ada Poe was pre-", ("born",), ("City",), joint=""),
    Probe("ada/chinese", (ADA.id,), "semantic", "她出生的城市是", ("北京",), ("東京", "上海"), joint=""),
]
LINE_END = Probe("ada/line", (ADA.id,), "semantic", "Where was Ada Poe born?\n", ("Bern",), ("Rome",))


@pytest.fixture(scope="module")
def bank() -> FactBank:
    keys = ["people=6", "distractors=3", "use=[birth_city,profession]", "paraphrases=3"]
    made = generate_from_spec("configs/facts/people.yaml", keys, seed=3)
    few = [p for p in made.probes if p.type in ("memorization", "syntactic", "semantic")]
    extra = small_bank()
    return FactBank(
        {"name": "People & places"},
        (*made.relations, *extra.relations),
        (*made.facts, ADA, BOB),
        made.statements,
        (*few, *SUFFIXED, *JOINED, LINE_END),
    )


@pytest.fixture(scope="module")
def trained(bank, tmp_path_factory):
    """A folder with a tiny STLM that has read the bank's statements a few times."""
    texts = [statement.text for statement in bank.statements]
    tokenizer = train_bpe_tokenizer(texts, 300)  # so few that an answer takes several
    injected = [s.text for s in bank.statements if bank.fact_by_id[s.fact_ids[0]].role == "injected"]
    model = tiny.trained_stlm(tokenizer, injected, steps=60)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


def lm_eval_samples(folder, group, model, tokenizer) -> dict[str, list[dict]]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=16),
        tasks=[group],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    assert set(results["group_subtasks"]) == {group}
    return results


def test_lm_eval_measures_what_we_measure(bank, trained, tmp_path):
    _, model, tokenizer = trained
    export = export_lm_eval(bank, tmp_path / "made")
    # the folder finds its data wherever it lies
    shutil.move(tmp_path / "made", tmp_path / "moved")
    results = lm_eval_samples(tmp_path / "moved", export.group, model, tokenizer)
    rows = {row.probe_id: row for row in evaluate_recall(model, tokenizer, bank)}
    assert not any("straddles" in row.flags for row in rows.values())
    probes = {p.id: p for p in bank.probes}

    compared = {"mc": 0, "ll": 0, "gen": 0}
    for task in export.tasks:
        kind = task.rpartition("_")[2]
        samples = results["samples"][task]
        ours = [rows[sample["doc"]["probe_id"]] for sample in samples]
        compared[kind] += len(samples)
        for sample, row in zip(samples, ours, strict=True):
            assert f"{export.group}_{row.role}_{row.type}_{kind}" == task
            if kind == "mc":
                assert (sample["acc"], sample["acc_bytes"]) == (row.accuracy, row.accuracy_norm)
            elif kind == "gen":
                assert sample["exact_match"] == row.exact_match, row
            elif not probes[row.probe_id].suffix:  # else the figures are the whole text's
                assert sample["logprob"] == pytest.approx(row.logprob, abs=1e-4)
                assert sample["greedy_match"] == row.greedy_match
        if kind == "mc":
            mean = sum(row.accuracy for row in ours) / len(ours)
            assert results["results"][task]["acc,none"] == pytest.approx(mean)
        if kind == "ll" and not any(probes[row.probe_id].suffix for row in ours):
            bits = -sum(row.logprob for row in ours) / math.log(2) / sum(row.n_bytes for row in ours)
            assert results["results"][task]["bits_per_byte,none"] == pytest.approx(bits)
    n = len(bank.probes)
    # lm-eval would score the line's end with the answer
    assert compared == {"mc": n - 2, "ll": n - 1, "gen": n - 2}
    assert (export.without_distractors, export.with_suffix, export.behind_white_space) == (1, 2, 1)
    # the comparison says nothing where all models would agree
    for metric in ("accuracy", "accuracy_norm", "exact_match", "greedy_match"):
        figures = [figure for row in rows.values() if (figure := getattr(row, metric)) is not None]
        assert 0 < sum(figures) < len(figures), metric


def test_the_command_that_is_printed_runs(bank, trained, tmp_path, monkeypatch):
    import functools

    import lm_eval.tasks
    from lm_eval._cli import HarnessCLI

    # the thousands of tasks that come with lm-eval take longer to list than these to run
    only_these = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", only_these)
    folder, *_ = trained
    few = FactBank(bank.meta, bank.relations, bank.facts, (), bank.probes[:4])
    export = export_lm_eval(few, tmp_path / "my tasks", name="few")
    words = shlex.split(command(export, tmp_path / "my tasks", LmEvalPrefix(str(folder), "bos", "")))
    assert words[0] == "lm_eval"
    # the model's folder brings its own code
    words += ["--device", "cpu", "--trust_remote_code", "--output_path", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    cli = HarnessCLI()
    cli.execute(cli.parse_args())
    [file] = (tmp_path / "out").rglob("results_*.json")
    assert set(json.loads(file.read_text())["results"]) >= set(export.tasks)


def test_documents_carry_whose_they_are_and_text_to_put_together(bank):
    memorization = next(p for p in bank.probes if p.type == "memorization")
    doc = document(bank, memorization)
    fact = bank.fact_by_id[memorization.fact_ids[0]]
    told = {name: doc[name] for name in ("probe_id", "fact_ids", "role", "relation", "type", "arm")}
    assert told == {
        "probe_id": memorization.id,
        "fact_ids": [fact.id],
        "role": fact.role,
        "relation": fact.relation,
        "type": "memorization",
        "arm": None,
    }
    assert doc["choices"][doc["gold"]] == doc["target"] == f" {fact.object}"
    assert sorted(doc["choices"]) == sorted(f" {text}" for text in (fact.object, *memorization.distractors))
    assert document(bank, SUFFIXED[0])["target"] == "Bern is where Ada Poe was born."
    assert document(bank, SUFFIXED[1])["target"] == " Bern saw Ada Poe's birth."
    assert document(bank, SUFFIXED[2])["answers"] == ["Bern", "Berne"]


def test_the_right_answer_stands_anywhere_among_the_choices(bank):
    # lm-eval decides a tie for the first choice
    places = {document(bank, p)["gold"] for p in bank.probes}
    assert places == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "text",
    ["Bern", " Bern.", "Bern. He", "Bern.5", "Berner", "Bern!", "Bern .", "Bern, in", "Bern\nand", "Rome", "",
     "Berne.", "St. Louis.", "St. Louisa.", "Bern。He", 'Bern".', "北京。他", "北京人", "北京！",
     "Zu\u0308rich.", "Bern।"],
)  # fmt: skip
@pytest.mark.parametrize("terminators", [".", "!?"])
def test_the_exported_exact_match_is_ours(text, terminators):
    space: dict = {"__file__": "utils.py"}
    exec(utils_source(), space)
    answers = ["Bern", "Berne", "St. Louis", "北京", "Zürich"]
    theirs = space["exact_match"]({"answers": answers, "terminators": terminators}, [text.split("\n")[0]])
    ours = exact_match(Continuation(text, ended=True), answers, terminators)
    assert theirs == {"exact_match": float(ours)}


def test_long_answers_are_generated_where_there_is_little_room(trained, tmp_path):
    _, model, tokenizer = trained
    room = model.config.max_position_embeddings
    long = "She was born in Bern. " * (room // 20)  # more bytes than the model has places, and fewer tokens
    bank = small_bank(probes=(probe(ADA, answers=(long.strip(),), distractors=("Oslo",)),))
    bounds = {}
    for name, given in {"bytes": None, "tokens": tokenizer}.items():
        export = export_lm_eval(bank, tmp_path / name, name="long", tokenizer=given)
        config = (
            (tmp_path / name / "long_injected_memorization_gen.yaml").read_text().replace("!function ", "")
        )
        bounds[name] = yaml.safe_load(config)["generation_kwargs"]["max_gen_toks"]
    assert bounds["bytes"] > room > bounds["tokens"]
    results = lm_eval_samples(tmp_path / "tokens", export.group, model, tokenizer)
    [row] = evaluate_recall(model, tokenizer, bank)
    [sample] = results["samples"]["long_injected_memorization_gen"]
    assert sample["exact_match"] == row.exact_match


def test_the_exported_folder_reads_any_text(tmp_path):
    space: dict = {"__file__": str(tmp_path / "utils.py")}
    exec(utils_source(), space)
    asked = probe(ADA, prompt="Ada\u2028Poe\x85is from")
    export_lm_eval(small_bank(probes=(asked,)), tmp_path / "out", name="odd")
    space["DATA"] = tmp_path / "out" / "data"
    [read] = space["load"]("injected_memorization_ll.jsonl")["test"]
    assert read["context"] == asked.prompt


def test_probes_that_no_task_can_ask(tmp_path):
    asked = probe(ADA, prompt="Where?\n", suffix=" of course")
    with pytest.raises(UserError, match="nothing to ask"):
        export_lm_eval(small_bank(probes=(asked,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_left_alone(bank, tmp_path):
    (tmp_path / "mine.yaml").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        export_lm_eval(bank, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    empty = FactBank({}, (), (Fact("f", None, None, "Bern", "known"),), (), ())
    with pytest.raises(UserError, match="no probes"):
        export_lm_eval(empty, tmp_path / "out")


def test_every_task_stands_once_in_the_one_group(bank, tmp_path):
    export = export_lm_eval(bank, tmp_path / "out", name="my bank, 2nd")
    assert export.group == "my_bank_2nd"
    # lm-eval's own tag is no plain YAML
    read = {p.stem: p.read_text().replace("!function ", "") for p in (tmp_path / "out").glob("*.yaml")}
    configs = {name: yaml.safe_load(text) for name, text in read.items()}
    assert configs.pop(export.group)["task"] == list(export.tasks)
    assert sorted(configs) == sorted(export.tasks)
    assert {config["target_delimiter"] for config in configs.values()} == {""}
    assert not any("tag" in config for config in configs.values())
    assert {config["metadata"]["bank_sha256"] for config in configs.values()} == {bank.sha256}


def test_small_banks_need_not_have_every_kind(tmp_path):
    bare = small_bank(probes=(probe(ADA, distractors=()), probe(BOB)))
    export = export_lm_eval(bare, tmp_path / "out")
    assert "small_injected_memorization_mc" not in export.tasks
    assert "small_control_memorization_mc" in export.tasks
    assert export.without_distractors == 1


def test_each_arm_has_tasks_of_its_own(tmp_path):
    cleo, dan = (
        replace(fact, id=f"{fact.id}2", arm=arm) for fact, arm in ((ADA, "so few!"), (ADA, "so_few"))
    )
    facts = (replace(ADA, arm="often"), BOB, cleo, dan, replace(BOB, id="bob2", arm="unseen"))
    facts = tuple(replace(fact, id=f"f{number}") for number, fact in enumerate(facts))
    bank = small_bank(facts=facts, statements=(), probes=[probe(fact) for fact in facts])
    export = export_lm_eval(bank, tmp_path / "made", "small")
    assert [task for task in export.tasks if task.endswith("_ll")] == [
        "small_injected_often_memorization_ll",
        "small_injected_so_few_memorization_ll",
        "small_injected_so_few_3_memorization_ll",  # another arm that would be called the same
        "small_control_memorization_ll",
        "small_unseen_memorization_ll",
    ]
    for task in export.tasks:
        lines = read_jsonl(tmp_path / "made/data" / f"{task.removeprefix('small_')}.jsonl")
        assert len({line["arm"] for line in lines}) == 1


def test_tasks_of_arms_stand_in_the_order_of_exposures(tmp_path):
    arms = ("often", "never", "once", "often")
    facts = (*(replace(ADA, id=f"f{number}", arm=arm) for number, arm in enumerate(arms)), BOB)
    asked = statement(facts[3], id="f3/qa", kind="qa")  # shown twice as often as the other fact of its arm
    planned = {"often": {"exposures": 64}, "never": {"exposures": 0}, "once": {"exposures": 1}}
    bank = small_bank(
        meta={"name": "small", "arms": planned},
        facts=facts,
        statements=(*(statement(fact) for fact in facts), asked),
        probes=[probe(fact) for fact in facts],
    )
    export = export_lm_eval(bank, tmp_path / "made")
    tasks = [task for task in export.tasks if task.endswith("_ll")]
    assert tasks == [
        "small_injected_never_memorization_ll",
        "small_injected_once_memorization_ll",
        "small_injected_often_64_memorization_ll",
        "small_injected_often_128_memorization_ll",
        "small_control_memorization_ll",
    ]
    groups = {
        "never (0 exposures)": "f1",
        "once (1 exposure)": "f2",
        "often (64 exposures)": "f0",
        "often (128 exposures)": "f3",
        "control": BOB.id,
    }
    for task, (group, fact_id) in zip(tasks, groups.items(), strict=True):
        config = yaml.safe_load((tmp_path / f"made/{task}.yaml").read_text().replace("!function ", ""))
        assert config["metadata"]["facts"] == group
        lines = read_jsonl(tmp_path / f"made/data/{task.removeprefix('small_')}.jsonl")
        assert [line["fact_ids"] for line in lines] == [[fact_id]]
    readme = (tmp_path / "made/README.md").read_text()
    assert "- `small_injected_often_128_...`: often (128 exposures)\n" in readme
