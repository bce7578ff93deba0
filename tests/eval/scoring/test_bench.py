"""The benchmark: all methods give the same numbers, and the report says what was timed."""

import json

import pytest

from tidy_stlms.eval.scoring import bench
from tidy_stlms.eval.scoring.bench import bench_recall, build_workload, score_in_loop
from tidy_stlms.eval.scoring.encoding import encode_items
from tidy_stlms.eval.scoring.scorer import Scores, score
from tidy_stlms.scripts.bench import main

TINY = {
    "vocab_size": 8000,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    # far from equal probabilities, so that ranks do not depend on the last bits
    "initializer_range": 1.0,
}


@pytest.fixture(scope="module", autouse=True)
def tiny_size():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tiny", "1M"):
            patch.setitem(bench.SIZES, name, TINY)
        patch.setattr(bench, "OTHER_PEOPLE", 40)
        yield


@pytest.fixture(scope="module")
def workload():
    return build_workload(n_probes=12, n_candidates=4, size="tiny")


def test_the_workload(workload):
    assert [len(item.candidates) for item in workload.items] == [4] * 12
    candidates = encode_items(workload.tokenizer, workload.items)
    ids = {token_id for candidate in candidates for token_id in candidate.ids}
    assert 5000 < max(ids) < 8000  # spread over the model's vocabulary
    text = workload.items[0].prompt
    assert workload.tokenizer.decode(workload.tokenizer.encode(text)) == text
    again = build_workload(n_probes=12, n_candidates=4, size="tiny")
    assert again.items == workload.items


def test_the_loop_gets_the_scorers_numbers(workload):
    candidates = encode_items(workload.tokenizer, workload.items)
    right_answers = [candidate for candidate in candidates if candidate.candidate == 0]
    ranks, logprobs = score_in_loop(workload.model, right_answers)
    for result, own_ranks, own_logprobs in zip(
        score(workload.model, workload.tokenizer, workload.items), ranks, logprobs, strict=True
    ):
        assert result.token_ranks == own_ranks
        assert result.token_logprobs == pytest.approx(own_logprobs, abs=1e-4)


def test_the_report(workload):
    lines = []
    report = bench_recall(workload, repeats=2, n_loop=3, n_ranked=8, progress=lines.append)
    assert json.loads(json.dumps(report)) == report
    speeds = [
        "loop_probes_per_second",
        "lm_eval_probes_per_second",
        "ours_probes_per_second",
        "lm_eval_candidates_per_second",
        "ours_candidates_per_second",
    ]
    for name in speeds:
        first, second = sorted(report["rates"][name])
        assert 0 < first <= report[name] <= second
    assert report["times_loop"] == pytest.approx(
        report["ours_probes_per_second"] / report["loop_probes_per_second"], rel=0.02
    )
    assert all(0 <= value < 1e-4 for value in report["largest_difference_nats"].values())
    assert len(report["largest_difference_nats"]) == 3
    assert (report["n_probes"], report["n_candidates"]) == (12, 4)
    assert (report["loop_probes"], report["ranked_probes"]) == (3, 8)
    assert len(lines) == 2 * 5


def test_speeds_of_different_numbers_are_refused(workload, monkeypatch):
    def wrong(*args, **kwargs) -> list[Scores]:
        results = score(*args, **kwargs)
        results[0].logprobs[0] -= 0.01
        return results

    monkeypatch.setattr("tidy_stlms.eval.scoring.scorer.score", wrong)
    with pytest.raises(RuntimeError, match=r"differ by 0\.01 nats"):
        bench_recall(workload, repeats=1, n_loop=2)


def test_the_command(workload, monkeypatch, capsys):
    monkeypatch.setattr(bench, "build_workload", lambda **asked: seen.update(asked) or workload)
    seen = {}
    assert main(["recall", "--candidates", "4", "--repeats", "1", "--loop-probes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "loop as in Tidy-STLMs" in printed
    assert "12 probes" in printed
    assert seen == {"n_probes": 1000, "n_candidates": 4, "size": "50M", "name": None, "device": "cpu"}


def test_the_quick_command_measures_what_is_asked_for(capsys):
    assert (
        main(["recall", "--json", "--quick", "--repeats", "1", "--probes", "30", "--parameters", "tiny"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert (report["n_probes"], report["repeats"], report["n_candidates"]) == (30, 1, 10)
    assert report["ranked_probes"] == 20  # as --quick has it
    assert report["ours_probes_per_second"] > 0
    assert max(report["largest_difference_nats"].values()) < 1e-3


def test_mistakes_in_the_command(capsys):
    assert main(["recall", "--parameters", "3B"]) == 2
    assert "--parameters 3B: not one of 1M, 10M, 50M, 124M, tiny" in capsys.readouterr().err
    assert main(["recall", "--probes", "0"]) == 2
    assert main(["recall", "--candidates", "1"]) == 2
