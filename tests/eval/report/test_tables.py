"""Tables of a study: exact cells, what is marked, and that nothing incomparable stands side by side."""

import dataclasses
import html
import math
import re

import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from tests.eval.report.study_example import (
    CHECKPOINTS,
    EXPOSURES,
    FAILED,
    HOSTILE,
    MEASURED,
    OTHER,
    TWIN,
    example_study,
    model_info,
    study_of,
)
from tidy_stlms.configs.files import write_json
from tidy_stlms.configs.markdown import markdown_text
from tidy_stlms.configs.printable import printable
from tidy_stlms.configs.records import to_row
from tidy_stlms.eval.recall.compare import is_comparable
from tidy_stlms.eval.recall.metrics import METRICS
from tidy_stlms.eval.recall.results import Estimate
from tidy_stlms.eval.report.cells import Cell, Column, StudyTable, number
from tidy_stlms.eval.report.model_tables import model_tables
from tidy_stlms.eval.report.order import NAMES, tokenizer_groups
from tidy_stlms.eval.report.run_table import recall_table
from tidy_stlms.eval.report.study_tables import (
    benchmark_tables,
    comparison_tables,
    corrected_tables,
    dose_tables,
    heldout_tables,
    overview_tables,
    relation_tables,
    study_tables,
    token_tables,
)
from tidy_stlms.eval.study.heldout import HeldoutEstimate
from tidy_stlms.eval.study.study import SUMMARY, read_study


@pytest.fixture(scope="module")
def study():
    return example_study()


def figure(mean, half=0.05, n=10):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n, "n_facts": n}


def small(accuracies, comparisons=(), role="injected", metric="accuracy"):
    """A study of models a, b, c ... that differ in one figure of one probe type."""
    names = [chr(ord("a") + place) for place in range(len(accuracies))]
    return study_of(
        [model_info(name, tokenizer="t") for name in names],
        recall={
            name: {role: {"semantic": {metric: figure(value)}}}
            for name, value in zip(names, accuracies, strict=True)
        },
        comparisons=[
            {
                "a": a,
                "b": b,
                "role": role,
                "type": "semantic",
                "metric": metric,
                "difference": difference,
                "low": difference - 0.1,
                "high": difference + 0.1,
                "p": p / 2,
                "p_holm": p,
                "n": 10,
            }
            for a, b, difference, p in comparisons
        ],
    )


def column(table, name):
    return [row[table.header.index(name)] for row in table.rows]


def test_the_overview_shows_every_figure_of_the_study(study):
    tables = {table.key: table for table in overview_tables(study)}
    assert list(tables) == ["recall-injected", "recall-control", "recall-neighbour"]
    table = tables["recall-injected"]
    assert table.header == ("probe", "model", "accuracy", "exact match", "rank", "bits/byte", "n")
    assert [(row[0].figure, row[1].figure) for row in table.rows] == [
        (kind, model) for kind in ("memorization", "semantic", "reversal") for model in MEASURED
    ]
    for kind, model, accuracy, _, rank, *_, n in table.rows:
        estimates = study.recall[model.figure]["injected"][kind.figure]
        wanted = estimates["accuracy"]
        assert (accuracy.value, accuracy.low, accuracy.high) == (wanted.mean, wanted.low, wanted.high)
        assert accuracy.text == f"{wanted.mean:.2f} [{wanted.low:.2f}, {wanted.high:.2f}]"
        assert rank.value == estimates["candidate_rank"].mean
        assert n.value == wanted.n


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy", (0.2, 0.9, 0.5), "b"),
        ("accuracy", (0.9, 0.2, 0.9), "ac"),
        ("accuracy", (0.5, 0.5), ""),
        ("accuracy", (0.5,), ""),
        ("candidate_rank", (3.0, 1.5, 2.0), "b"),
        ("bits_per_byte", (0.3, 1.5), "a"),
    ],
)
def test_the_best_of_a_group_is_marked(metric, values, best):
    (table,) = overview_tables(small(values, metric=metric))
    assert "".join(row[1].figure for row in table.rows if row[2].best) == best


def test_nobody_is_best_at_control_facts():
    (table,) = overview_tables(small((0.1, 0.9), role="control"))
    assert not any(cell.best for cell in column(table, "accuracy"))


@pytest.mark.parametrize(
    ("comparisons", "verdict"),
    [
        ([("a", "b", -0.4, 0.01), ("c", "a", 0.4, 0.04)], True),
        ([("a", "b", -0.4, 0.01), ("a", "c", -0.4, 0.05)], False),
        ([("a", "b", -0.4, 0.01)], None),  # against c nothing was tested
        ([("a", "b", -0.4, 0.30)], False),
        ([("b", "c", -0.4, 0.30)], None),  # says nothing of the best
        ([], None),
    ],
)
def test_a_best_that_is_not_told_from_every_other_is_not_significant(comparisons, verdict):
    (table,) = overview_tables(small((0.9, 0.5, 0.4), comparisons))
    best, *others = column(table, "accuracy")
    assert best.best
    assert best.significant is verdict
    assert all(other.significant is None for other in others)


def test_figures_by_the_token_never_stand_beside_those_of_another_tokenizer(study):
    groups = [set(models) for models in tokenizer_groups(study).values()]
    assert groups == [{*CHECKPOINTS, TWIN}, {OTHER}]
    by_token = {"perplexity", "token rank", "log-probability", "greedy match"}
    by_token |= {"binding (nats)", "subject shift (nats)", "answer familiarity (nats)"}
    seen = set()
    for table in study_tables(study):
        words = {*table.header} | {word for word in by_token if table.title.endswith(word)}
        if words & by_token:
            seen |= words & by_token
            assert not table.comparable, table.key
            places = [place for place, name in enumerate(table.header) if name in ("model", "A", "B")]
            sides = [{row[place].figure for place in places} for row in table.rows]
            if table.section == "comparisons":  # by the row: each pair shares one
                assert all(any(side <= group for group in groups) for side in sides), table.key
            else:
                assert any(set().union(*sides) <= group for group in groups), table.key
    assert seen == by_token
    assert all(table.comparable for table in overview_tables(study))


def test_which_figures_are_comparable_is_said_once():
    """One function says it; every metric with a name in tables is either comparable or of one tokenizer."""
    of_one_tokenizer = {"logprob", "greedy_match", "perplexity", "token_rank"}
    of_one_tokenizer |= {"answer_familiarity", "subject_shift", "binding"}
    assert {metric for metric in {*METRICS, *NAMES} if not is_comparable(metric)} == of_one_tokenizer


def test_token_tables_name_their_tokenizer(study):
    titles = [table.title for table in token_tables(study)]
    assert len(titles) == 2 * 3
    assert "Figures by the token, injected facts, tokenizer 3fa2" in titles


@pytest.mark.parametrize(
    ("metric", "difference", "p", "role", "winner"),
    [
        ("accuracy", 0.4, 0.01, "injected", "b"),
        ("accuracy", -0.4, 0.01, "injected", "a"),
        ("candidate_rank", 0.4, 0.01, "injected", "a"),
        ("accuracy", 0.4, 0.05, "injected", ""),
        ("accuracy", 0.4, 0.01, "control", ""),
    ],
)
def test_a_comparison_names_the_better_model_where_the_difference_is_significant(
    metric, difference, p, role, winner
):
    study = small((0.5, 0.5), [("a", "b", difference, p)], role=role, metric=metric)
    (table,) = comparison_tables(study)
    (row,) = table.rows
    assert "".join(cell.figure for cell in row if cell.best) == winner
    assert [cell.significant for cell in row[4:6]] == [p < 0.05] * 2
    assert row[4].figure == ("+0.40" if difference > 0 else "−0.40")


def test_what_was_compared_with_held_out_text_stands_in_its_own_section():
    study = small((0.5, 0.5), [("a", "b", -0.0123, 0.001)], metric="bits_per_byte")
    (comparison,) = study.comparisons
    study = replace(
        study,
        comparisons=(replace(comparison, role="heldout", type="documents"),),
        heldout={"a": HeldoutEstimate(bits_per_byte=1.5, low=1.4, high=1.6, n_bytes=9, n_documents=2)},
    )
    assert comparison_tables(study) == []
    _, differences = heldout_tables(study)
    assert differences.section == "heldout"
    assert differences.rows[0][4].figure == "−0.012"
    assert differences.rows[0][3].best  # fewer bits


def test_corrected_figures_are_grey_where_they_may_be_zero():
    cases = {"memorization": 0.06, "semantic": 0.04, "reversal": 0.0001}
    entries = {
        kind: {"accuracy_over_control": {"mean": 0.1, "se": 0.1, "low": 0.01, "high": 0.3, "p": p, "n": 5}}
        for kind, p in cases.items()
    }
    (table,) = corrected_tables(
        study_of([model_info("a", tokenizer="t")], corrected={"a": {"injected": entries}})
    )
    assert [cell.significant for cell in column(table, "accuracy over control")] == [False, True, True]


def test_the_parts_of_a_gain_stand_where_they_were_measured(study):
    _, run, other, answers = corrected_tables(study)
    assert run.title == "Subject shift and binding, tokenizer 3fa2"
    assert {cell.figure for cell in column(run, "probe")} == {"memorization", "semantic"}
    assert other.title == "Subject shift and binding, tokenizer b7d1"
    assert [(row[0].figure, row[2].text, row[3].text) for row in other.rows] == [
        (kind, "−0.50 [−1.40, +0.40]", "+2.31 [+1.20, +3.40]") for kind in ("memorization", "semantic")
    ]
    assert [(row[2].significant, row[3].significant) for row in other.rows] == [(False, True)] * 2
    assert answers.title == "Answer familiarity, tokenizer b7d1"
    assert answers.header == ("probe", "model", "answer familiarity (nats)")
    assert [row[2].figure for row in answers.rows] == ["+2.31"] * 3


def test_doses_go_up_within_each_model(study):
    accuracy, *by_token = dose_tables(study)
    assert [cell.value for cell in column(accuracy, "exposures")] == [0, *EXPOSURES.values()] * 15
    assert [cell.figure for cell in column(accuracy, "facts")] == ["control", *["injected"] * 3] * 15
    assert [cell.figure for cell in column(accuracy, "model")][:8] == [CHECKPOINTS[0]] * 4 + [
        CHECKPOINTS[1]
    ] * 4
    points = [point for point in study.dose_response if point.metric == "accuracy"]
    assert sum(cell.value for cell in column(accuracy, "n")) == sum(point.n for point in points)
    assert [table.comparable for table in by_token] == [False, False]


def test_control_people_and_an_arm_of_no_exposures_are_two_rows(study):
    points = tuple(
        replace(point, exposures=0, role="never") if point.exposures == 1 else point
        for point in study.dose_response
    )
    accuracy, *_ = dose_tables(replace(study, dose_response=points))
    facts = [(row[2].figure, row[3].value) for row in accuracy.rows[:4]]
    assert facts == [("control", 0), ("never", 0), ("injected", 8), ("injected", 64)]


def test_held_out_text_and_its_failures(study):
    (table,) = heldout_tables(study)
    assert [cell.text for cell in column(table, "bits/byte")] == [
        "1.412 [1.382, 1.442]",
        "1.398 [1.368, 1.428]",
        "failed",
    ]
    assert [cell.best for cell in column(table, "bits/byte")] == [False, True, False]
    assert f"{OTHER} failed: held-out text <i>missing</i>." in table.note


def test_benchmarks_side_by_side_with_their_failures(study):
    (table,) = benchmark_tables(study)
    assert table.header == ("task", "metric", CHECKPOINTS[-1], OTHER)
    assert [tuple(cell.text for cell in row) for row in table.rows] == [
        ("blimp", "acc", "0.541 ±0.011", "0.720 ±0.011"),
        ("hellaswag", "acc", "0.310 ±0.020", "failed"),
        ("hellaswag", "acc_norm", "0.330 ±0.020", "failed"),
        ("probe:cola", "matthews", "0.120", "0.120"),
    ]
    assert [cell.best for cell in column(table, OTHER)] == [True, False, False, False]
    assert f"hellaswag failed on {OTHER}: no local copy" in table.note


def test_a_lower_perplexity_of_a_benchmark_is_better():
    scores = {
        name: {"lambada": {"perplexity": {"value": value, "stderr": None}}}
        for name, value in (("a", 9), ("b", 7))
    }
    (table,) = benchmark_tables(study_of([model_info("a"), model_info("b")], benchmarks=scores))
    assert [cell.best for cell in table.rows[0][2:]] == [False, True]


def test_a_score_that_is_not_a_number_is_an_empty_cell_also_when_it_was_read_from_a_file(tmp_path):
    scores = {"a": {"probe:stsb": {"pearson": {"value": math.nan, "stderr": math.nan}, "n": 8}}}
    study = study_of([model_info("a")], benchmarks=scores)
    write_json(tmp_path / SUMMARY, to_row(study))  # as null: JSON has no NaN
    (table,) = benchmark_tables(read_study(tmp_path))
    assert table.rows[0][-1].figure == ""


def test_a_runs_table_shows_names_of_arms_literally():
    after = {"a|b\x1b[31m <b>": {"semantic": {"accuracy": Estimate(0.5, 0.25, 0.75, 4, 4)}}}
    header, _, row = recall_table(after).markdown().splitlines()
    assert header == "| probe | metric | a\\|b\\\\u001b\\[31m \\<b\\> |"
    assert row == "| semantic | accuracy | 0.50 [0.25, 0.75] |"


def test_examples_that_were_left_out_are_said_and_make_no_winner():
    scores = {
        "a": {"blimp": {"acc": {"value": 0.9, "stderr": None}, "n": 60, "n_too_long": 7}},
        "b": {"blimp": {"acc": {"value": 0.8, "stderr": None}, "n": 67}},
    }
    models = [model_info("a"), model_info("b")]
    (table,) = benchmark_tables(study_of(models, benchmarks=scores))
    assert not any(cell.best for cell in table.rows[0])
    said = "blimp on a: 7 examples are longer than the model's context and left out, 60 count."
    assert said in table.note
    assert "blimp" not in table.note.replace(said, "")
    scores["a"]["blimp"] = scores["a"]["blimp"] | {"n": 67}
    del scores["a"]["blimp"]["n_too_long"]
    (table,) = benchmark_tables(study_of(models, benchmarks=scores))
    assert [cell.best for cell in table.rows[0]] == [False, False, True, False]


def test_a_benchmark_that_failed_everywhere_still_has_its_row():
    study = study_of([model_info("a")], benchmarks={"a": {"mmlu": {"error": "offline"}}})
    (table,) = benchmark_tables(study)
    assert [cell.figure for cell in table.rows[0]] == ["mmlu", "", "failed"]


def test_relations(study):
    assert {cell.figure for table in relation_tables(study) for cell in column(table, "relation")} == {
        "birth_city",
        "<b>employer</b>",
    }


def test_arms_are_told_apart_in_every_table():
    study = example_study(by_arm=True)
    arms = [f"{arm} ({n} exposure{'s' if n > 1 else ''})" for arm, n in EXPOSURES.items()]
    titles = [table.title for table in study_tables(study)]
    for start in ("Recall of", "Recall by relation,", "Figures by the token,"):
        own = [title for title in titles if title.startswith(start)]
        words = [f"facts of arm {arm}" for arm in arms] + ["control facts", "neighbour facts"]
        assert all(any(word in title for word in words) for title in own)
        assert all(any(word in title for title in own) for word in words)
    accuracy, binding, *_ = corrected_tables(study)
    assert accuracy.header == ("probe", "facts", "model", "accuracy over control")
    for table in (accuracy, binding):
        assert list(dict.fromkeys(cell.figure for cell in column(table, "facts"))) == arms
    differences = comparison_tables(study)[0]
    roles = [cell.figure for cell in column(differences, "role")]
    assert list(dict.fromkeys(roles)) == arms
    # the better model is marked for arms too
    assert any(cell.best for row in differences.rows for cell in row[2:4])


def test_the_models_and_what_failed(study):
    (table,) = model_tables(study)
    assert [cell.figure for cell in column(table, "model")] == [*MEASURED, FAILED]
    assert column(table, "failed with")[-1].figure == "out of memory <b>at</b> layer 3"
    assert column(table, "parameters")[0].text == "947,328"
    assert "flagged probes" not in table.header  # a column without a single entry


def test_how_the_models_were_asked():
    check = {"lookahead": 0.0, "padding": 2.4e-7, "shared_prompt": None, "generation": 0.31}
    infos = [
        model_info("run", prefix="none", prefix_as_trained=False, attention="sdpa", self_check=check),
        model_info("hub", prefix="bos"),
    ]
    models, checks = study_tables(study_of(infos))
    assert [cell.text for cell in column(models, "prefix")] == ["none (not as in training)", "bos"]
    assert "may know more" in models.note
    assert [cell.text for cell in checks.rows[0]] == ["run", "0", "2e-07", "no", "3e-01"]
    assert len(checks.rows) == 1


def test_a_study_of_nothing_has_only_its_models():
    assert [table.key for table in study_tables(study_of([model_info("a")]))] == ["models"]


def test_repeated_labels_are_repeats_only_below_equal_labels():
    rows = [tuple(Cell(text) for text in texts) for texts in ("aax", "aax", "abx", "cbx")]
    table = StudyTable("", "", "", tuple(Column(name) for name in "pqr"), rows, n_labels=2)
    assert table.repeats() == [
        (False, False, False),
        (True, True, False),
        (True, False, False),
        (False, False, False),  # the same second label, of another group
    ]
    assert table.markdown().splitlines()[2:] == [
        "| a | a | x |",
        "|  |  | x |",
        "|  | b | x |",
        "| c | b | x |",
    ]
    assert len(table.markdown(limit=2).splitlines()) == 4
    grouped_by_one = dataclasses.replace(table, n_groups=1)
    assert grouped_by_one.markdown().splitlines()[3] == "|  | a | x |"


def test_comparisons_name_both_models_in_every_row(study):
    for table in comparison_tables(study):
        assert table.n_labels == 4
        assert not any(repeat for repeats in table.repeats() for repeat in repeats[2:])


def test_markdown_marks_what_is_best():
    cells = (
        Cell("a", value="a"),
        Cell("1", "[0, 2]", 1.0, best=True),
        Cell("2", best=True, significant=False),
    )
    table = StudyTable("", "", "", (Column("m"), Column("x"), Column("y")), [cells])
    assert table.markdown().splitlines()[-1] == "| a | **1 [0, 2]** | *2* |"


LINE_STARTS = ("- x", "+ x", " * x", "1. x", "12) x", "# x", "> x", "---", "===", "    x", "\t- x", "~~~")


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "a|b\nc\r\nd",
        "[x](javascript:alert(1))",
        "**b** _i_",
        "\\| \\",
        *LINE_STARTS,
        "\x1b[31m\u202e",
    ],
)
def test_markdown_shows_any_text_literally(text):
    rows, shown = [(Cell(text, value=text), Cell("1"))], printable(" ".join(text.split())).split()
    markdown = StudyTable("", "", "", (Column("name"), Column("x")), rows).markdown()
    page = MarkdownIt().enable("table").render(f"{markdown}\n{markdown_text(text)}\n")
    cells = re.findall(r"<(?:td|p).*?>(.*?)</(?:td|p)>", page)
    assert [html.unescape(cell).split() for cell in cells] == [shown, ["1"], shown]


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.456, False, "0.46"),
        (-0.456, False, "−0.46"),
        (0.456, True, "+0.46"),
        (-0.001, True, "0.00"),
        (0.001, True, "0.00"),
        (12345.678, False, "12,345.68"),
    ],
)
def test_numbers(value, signed, text):
    assert number(value, 2, signed) == text
