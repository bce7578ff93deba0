"""Prompts and benchmarks of a config of Tidy-STLMs."""

import pytest

from tests.configs.test_tidy import convert


@pytest.mark.parametrize(
    "prompts",
    [
        ["one", "two"],
        ["one", {"sentence": "two"}],
        [{"answer": "no sentence"}, {"sentence": "one"}, "two"],
    ],
)
def test_prompts_may_be_plain_strings(tmp_path, prompts):
    done, run = convert(tmp_path, trainer__prompt__input_prompts=prompts)
    assert run.evaluation.prompts == [{"sentence": "one"}, {"sentence": "two"}]
    assert len([key for key in done.left_behind if "input_prompts" in key]) == len(prompts) - 2


def test_benchmarks_that_lm_eval_has_are_carried_and_others_listed(tmp_path):
    named = ["winograd", "hellaswag", "stories", "arc", "mmlu", "arc_easy"]
    evaluators = [
        {"evaluator": "mcq", "benchmarks": named},
        {"evaluator": "mcq", "benchmarks": ["blimp"], "num_samples": 50},
        {"evaluator": "mcq", "benchmarks": ["piqa"], "num_samples": 60},
        {"evaluator": "mcq", "benchmarks": ["stories"], "num_samples": 50},
        {"evaluator": "glue", "benchmarks": ["mmlu"]},
    ]
    done, run = convert(tmp_path, trainer__eval=evaluators)
    tasks = ["winogrande", "hellaswag", "arc_easy", "mmlu", "blimp", "piqa"]
    assert (run.evaluation.benchmarks, run.evaluation.benchmark_limit) == (tasks, 50)
    assert done.changed["trainer.eval[0].benchmarks"].endswith("not carried over: stories")
    left = {key for key in done.left_behind if key.startswith("trainer.eval")}
    assert left == {
        "trainer.eval[2].num_samples",
        *(f"trainer.eval[3].{name}" for name in ("evaluator", "benchmarks", "num_samples")),
        *(f"trainer.eval[4].{name}" for name in ("evaluator", "benchmarks")),
    }
    _, run = convert(tmp_path, trainer__training__max_iters=-1, trainer__training__max_epochs=2)
    assert (run.evaluation.benchmarks, run.evaluation.benchmark_steps) == (["blimp", "arc_easy"], 0)
