"""Benchmarks on a model of short context: what does not fit is left out, all else is as lm-eval has it."""

import json
import re
from types import SimpleNamespace

import lm_eval.tasks
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM

import tidy_stlms.eval.study.benchmarks
from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.eval import tiny
from tidy_stlms.eval.study.benchmarks import BOOTSTRAP, SEEDS, run_benchmarks
from tidy_stlms.eval.study.fitting import FittingLM, FittingTasks

CONTEXT = 32
NEEDS = "none of the 2 examples of {} fits: the shortest needs {} tokens, and the model reads 32"
SHORT = [("a stone", ["is hard", "is soft"]), ("a river", ["runs", "sits"]), ("one", ["two", "three"])] * 3
LONG = ("a farmer", ["walks", "walks to the market in the winter, and back again"])
HEAD = """
custom_dataset: !function utils.load
test_split: test
fewshot_split: test
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
CHOICE = "output_type: multiple_choice\ndoc_to_target: 0\n"
PAIRS = f"{CHOICE}doc_to_text: ''\ndoc_to_choice: wholes\n"  # as BLiMP: all of the text is scored
QUESTIONS = f"{CHOICE}doc_to_text: text\ndoc_to_choice: choices\n"
SAYS = "output_type: generate_until\ndoc_to_text: text\ndoc_to_target: right\n"
TASKS = {
    "pairs_short": PAIRS,
    "pairs_mixed": PAIRS,
    "pairs_long": PAIRS,
    "questions_mixed": QUESTIONS,
    "shots_mixed": f"{QUESTIONS}num_fewshot: 1\nfewshot_delimiter: '; '\n",
    "says_mixed": f"{SAYS}generation_kwargs: {{until: ['.'], max_gen_toks: 20}}\n",
    "says_long": f"{SAYS}generation_kwargs: {{until: ['.']}}\n",
    "rolls_mixed": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n",
}
GROUPS = {
    "all_fit": "[pairs_short]",
    "some_fit": "[pairs_short, pairs_mixed]",
    "one_without": "[pairs_short, pairs_long]",
}
UTILS = """
import json
from pathlib import Path
from datasets import Dataset

def load(file, **others):
    rows = json.loads((Path(__file__).parent / file).read_text())
    return {"test": Dataset.from_list(rows)}
"""


def documents(kind):
    pairs = {"short": SHORT, "mixed": [*SHORT[:4], LONG, *SHORT[4:]], "long": [LONG, LONG]}[kind]
    return [
        {
            "text": text,
            "choices": choices,
            "wholes": [f"{text} {choice}" for choice in choices],
            "right": choices[0],
        }
        for text, choices in pairs
    ]


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "utils.py").write_text(UTILS)
    for kind in ("short", "mixed", "long"):
        (folder / f"{kind}.json").write_text(json.dumps(documents(kind)))
    for name, lines in TASKS.items():
        head = HEAD.replace("metric: acc", "metric: exact_match") if name.startswith("says") else HEAD
        if name.startswith("rolls"):
            head = re.sub("metric: acc.*true", "metric: bits_per_byte", HEAD)
        data = f"dataset_kwargs: {{file: {name.rpartition('_')[2]}.json}}\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}{head}{lines}")
    for name, members in GROUPS.items():
        mean = "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
        (folder / f"{name}.yaml").write_text(f"group: {name}\ntask: {members}\n{mean}")
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tidy_stlms.eval.study.benchmarks, "task_manager", lambda: manager)
        yield manager


@pytest.fixture(scope="module")
def pair():
    tokenizer = byte_tokenizer()
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return tiny.stlm(len(tokenizer), max_position_embeddings=CONTEXT, **shape), tokenizer


def by_lm_eval(pair, manager, name, **options):
    model, tokenizer = pair
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16)
    seeds = dict.fromkeys(SEEDS, 0)
    return simple_evaluate(
        model=harness, tasks=[name], task_manager=manager, bootstrap_iters=BOOTSTRAP, **seeds, **options
    )


@pytest.mark.parametrize("name", ["pairs_short", "all_fit", "rolls_mixed"])
def test_where_all_fits_the_figures_are_lm_evals_own_to_the_bit(pair, manager, name):
    theirs = by_lm_eval(pair, manager, name)
    (ours,) = run_benchmarks(*pair, [name]).values()
    metric = "bits_per_byte" if name.startswith("rolls") else "acc"
    assert ours[metric].value == theirs["results"][name][f"{metric},none"]
    stderr = theirs["results"][name][f"{metric}_stderr,none"]
    assert ours[metric].stderr == (None if stderr == "N/A" else stderr)
    assert ours["n"] == 10 if name.startswith("rolls") else 9
    assert "n_too_long" not in ours


@pytest.mark.parametrize("name", ["pairs_short", "rolls_mixed", "says_mixed"])
def test_a_model_trained_behind_end_of_text_is_asked_as_lm_eval_does_with_bos(pair, manager, name):
    """Its tokenizer adds no BOS, as GPT-2's; BOS is its end-of-text."""
    model = pair[0]
    without, with_bos = byte_tokenizer(bos=False), byte_tokenizer(bos=True)
    bare = run_benchmarks(model, without, [name])[name]
    assert bare == run_benchmarks(model, with_bos, [name], prefix="none")[name]
    # lm-eval's own figures, by the test above; of whole texts they would hold that of BOS behind BOS
    expected = bare if name == "rolls_mixed" else run_benchmarks(model, with_bos, [name])[name]
    assert run_benchmarks(model, without, [name], prefix="eos")[name] == expected
    harness = FittingLM(pretrained=model, tokenizer=without, bar=None, prefix=(without.eos_token_id,))
    assert harness.tok_encode("a") == [without.eos_token_id, ord("a")]
    padded, mask = harness.tok_batch_encode(["a", "ab"])
    assert padded[mask.bool()].tolist() == [without.eos_token_id, *b"a", without.eos_token_id, *b"ab"]


def test_an_example_of_which_a_candidate_is_too_long_is_left_out_and_counted(pair, manager):
    found = run_benchmarks(
        *pair, ["pairs_short", "pairs_mixed", "questions_mixed", "some_fit", "pairs_short"]
    )
    assert found["pairs_mixed"] == found["pairs_short"] | {"n_too_long": 1}  # the same other examples
    assert found["questions_mixed"]["n_too_long"] == 1
    assert found["questions_mixed"]["n"] == 9
    assert found["some_fit"]["n"] == 18
    assert found["some_fit"]["n_too_long"] == 1
    assert found["some_fit"]["acc"].value == pytest.approx(found["pairs_short"]["acc"].value)


def test_what_is_left_out_does_not_change_the_few_shot_examples_of_the_others(pair, manager, monkeypatch):
    score, asked = HFLM._loglikelihood_tokens, []

    def spy(self, requests, **options):
        asked.append({texts for texts, *_ in requests})
        return score(self, requests, **options)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", spy)
    wide = tiny.stlm(len(pair[1]), max_position_embeddings=512, hidden_size=16, num_hidden_layers=1)
    assert run_benchmarks(wide, pair[1], ["shots_mixed"])["shots_mixed"]["n"] == 10
    found = run_benchmarks(*pair, ["shots_mixed"])["shots_mixed"]
    assert found["n_too_long"] >= 1
    assert found["n"] + found["n_too_long"] == 10
    assert asked[1] < asked[0]


def test_generation_counts_the_room_for_new_tokens(pair, manager):
    found = run_benchmarks(*pair, ["says_mixed"])["says_mixed"]
    assert found["n"] == 10
    (found,) = run_benchmarks(*pair, ["says_long"]).values()
    assert found == {"error": NEEDS.format("says_long", 256 + 9)}


@pytest.mark.parametrize("name", ["pairs_long", "one_without"])
def test_a_benchmark_of_which_nothing_fits_says_what_it_needs(pair, manager, name, caplog):
    found = run_benchmarks(*pair, [name, "pairs_short"])
    assert found[name] == {"error": NEEDS.format("pairs_long", 59)}
    assert "acc" in found["pairs_short"]
    assert f"benchmark {name}: none of the 2 examples" in caplog.text


def test_an_error_without_a_text_shows_what_failed(pair, manager, monkeypatch):
    monkeypatch.setattr(HFLM, "loglikelihood", lambda *_, **__: 1 // len(()))
    (result,) = run_benchmarks(*pair, ["pairs_short"]).values()
    assert result["error"].startswith("ZeroDivisionError: ")

    def empty(*_, **__):
        raise AssertionError

    monkeypatch.setattr(HFLM, "loglikelihood", empty)
    (result,) = run_benchmarks(*pair, ["pairs_short"]).values()
    assert result["error"] == "AssertionError: in test_fitting.py: raise AssertionError"


def test_lm_evals_bars_become_one_a_benchmark_or_none(pair, manager, capfd):
    run_benchmarks(*pair, ["some_fit"])
    assert capfd.readouterr() == ("", "")
    run_benchmarks(*pair, ["some_fit"], progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip()]
    assert {line.partition(":")[0] for line in lines} == {"some_fit"}
    assert "36/36" in lines[-1]


def test_tasks_are_filtered_however_lm_eval_asks_for_them():
    """0.4.10 and 0.4.11 call `load_task_or_group`, later versions `load`."""

    def task(name):
        return SimpleNamespace(config=SimpleNamespace(task=name), doc_iterator=lambda **_: enumerate("abc"))

    harness = SimpleNamespace(too_long={"one": {1}})
    nested = {"group": {"sub": {"one": task("one")}}, "two": task("two")}
    flat = {"tasks": {"one": task("one")}, "groups": {}}
    manager = SimpleNamespace(load=lambda _: flat, load_task_or_group=lambda _: nested, task_index={})
    tasks = FittingTasks(manager, harness)
    assert list(tasks.load([""])["tasks"]["one"].doc_iterator()) == [(0, "a"), (2, "c")]
    tasks.load_task_or_group([""])
    assert list(nested["group"]["sub"]["one"].doc_iterator(rank=0)) == [(0, "a"), (2, "c")]
    assert len(list(nested["two"].doc_iterator())) == 3
    assert tasks.task_index == {}
