"""Public benchmarks through lm-eval, from local copies, on a model in memory."""

from pathlib import Path

import lm_eval.tasks
import pytest
import torch

import tidy_stlms.eval.study.benchmarks
from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tests.eval.study.public_copies import write_arc, write_lines
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.scoring.scorer import Item, score
from tidy_stlms.eval.study.benchmarks import Score, run_benchmarks, task_results


@pytest.fixture(scope="module", autouse=True)
def small_index():
    """lm-eval's index of three families of tasks; that of all takes seconds to read."""
    with pytest.MonkeyPatch.context() as patch:
        folders = [
            str(Path(lm_eval.tasks.__file__).parent / name) for name in ("arc", "hellaswag", "winogrande")
        ]
        manager = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False)
        patch.setattr(tidy_stlms.eval.study.benchmarks, "task_manager", lambda: manager)
        yield


@pytest.fixture(scope="module")
def pair():
    tokenizer = train_bpe_tokenizer(["Question: Which of these is a river stone garden?\nAnswer:"], 300)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return tiny.stlm(len(tokenizer), **shape), tokenizer


def test_a_benchmark_from_a_local_copy_is_what_our_own_scorer_says(pair, tmp_path):
    model, tokenizer = pair
    write_arc(tmp_path)
    model.train()
    before = torch.get_rng_state()
    found = run_benchmarks(model, tokenizer, ["arc_easy"], limit=9, seed=3, data_dir=tmp_path)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    words = ["stone", "river", "garden", "farmer", "winter", "market"]
    items = [
        Item(
            f"Question: Which of these is a {words[i % 6]}?\nAnswer:", [words[(i + k) % 6] for k in range(3)]
        )
        for i in range(9)
    ]
    right = [max(s.logprobs) == s.logprobs[0] for s in score(model, tokenizer, items)]
    assert found["arc_easy"]["n"] == 9
    assert found["arc_easy"]["acc"].value == pytest.approx(sum(right) / 9)
    assert 0 < found["arc_easy"]["acc"].stderr < 0.5


def test_what_is_missing_is_one_line_and_the_rest_goes_on(pair, tmp_path, caplog):
    write_arc(tmp_path)
    write_lines(tmp_path / "allenai/winogrande/winogrande_xl/train.jsonl", [{"no": "such columns"}])
    found = run_benchmarks(*pair, ["hellaswag", "winogrande", "arc_easy"], limit=2, data_dir=tmp_path)
    assert "its data cannot be read" in found["hellaswag"]["error"]
    assert str(tmp_path) in found["hellaswag"]["error"]
    assert "\n" not in found["hellaswag"]["error"]
    assert set(found["winogrande"]) == {"error"}
    assert found["arc_easy"]["n"] == 2
    assert "benchmark hellaswag: its data cannot be read" in caplog.text


def test_mistakes_are_named_before_anything_runs(pair, tmp_path):
    with pytest.raises(UserError, match=r"benchmark 'helaswag': .* did you mean hellaswag"):
        run_benchmarks(*pair, ["arc_easy", "helaswag"])
    with pytest.raises(UserError, match="no such folder"):
        run_benchmarks(*pair, ["arc_easy"], data_dir=tmp_path / "none")


def test_a_group_counts_as_one_and_a_tag_as_its_tasks():
    tasks = {
        name: {"alias": name, "acc,none": value, "acc_stderr,none": 0.1}
        for name, value in (("a", 0.25), ("b", 0.5))
    }
    sizes = {name: {"original": 9, "effective": 4} for name in tasks}
    grouped = {"results": {**tasks, "g": {"acc,none": 0.375, "acc_stderr,none": "N/A"}}, "n-samples": sizes}
    assert task_results("g", grouped) == {"g": {"acc": Score(0.375, None), "n": 8}}
    found = task_results("tag", {"results": tasks, "n-samples": sizes})
    assert found == {
        "a": {"acc": Score(0.25, 0.1), "n": 4},
        "b": {"acc": Score(0.5, 0.1), "n": 4},
    }
    filtered = {
        "results": {"t": {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.2}},
        "n-samples": {"t": {"effective": 3}},
    }
    assert list(task_results("t", filtered)["t"]) == ["exact_match (strict)", "n"]
