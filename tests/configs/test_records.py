"""Records: what is written is read again, and a wrong line is named with its field."""

import json

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import write_jsonl
from tidy_stlms.configs.records import Output, Record, from_row, read_records, to_row, write_records


class Estimate(Record, frozen=True):
    mean: float | None
    n: int


class Result(Record, frozen=True):
    probe_id: str
    accuracy: float | None = None
    ranks: tuple[int, ...] = ()
    top_tokens: list[tuple[str, float]] = []
    estimate: Estimate | None = None
    by_type: dict[str, Estimate] = {}


class Line(Record, frozen=True, omit_defaults=True):
    id: str
    label: str | None
    joint: str = " "
    names: tuple[str, ...] = ()
    seen: bool = False


class Score(Output, frozen=True):
    value: float


class Counts(Record, frozen=True, omit_defaults=True):
    id: str
    number: int = 2**70
    word: str = "none"


FULL = Result("p", 0.5, (1, 2), [("Oslo", 0.25)], Estimate(0.5, 3), {"syntactic": Estimate(None, 0)})


def test_what_is_written_is_read_again(tmp_path):
    write_records(tmp_path / "results.jsonl", [FULL, Result("q")])
    assert read_records(tmp_path / "results.jsonl", Result) == (FULL, Result("q"))


def test_a_file_of_a_later_version_is_read_without_its_new_fields(tmp_path):
    write_jsonl(tmp_path / "scores.jsonl", [{"value": 0.5, "new": 1}, {"new": None, "value": 1.0}])
    assert read_records(tmp_path / "scores.jsonl", Score) == (Score(0.5), Score(1.0))
    assert from_row(Score, {"value": 0.5, "new": 1}, "scores") == Score(0.5)


def test_a_record_is_plain_json_to_its_last_part():
    assert to_row(FULL) == {
        "probe_id": "p",
        "accuracy": 0.5,
        "ranks": (1, 2),
        "top_tokens": [("Oslo", 0.25)],
        "estimate": {"mean": 0.5, "n": 3},
        "by_type": {"syntactic": {"mean": None, "n": 0}},
    }
    assert from_row(Result, json.loads(json.dumps(to_row(FULL))), "here") == FULL


def test_defaults_stay_out_of_a_line_where_the_type_says_so(tmp_path):
    assert to_row(Counts("a", int(f"{2**70}"), "-".join(["none"]))) == {
        "id": "a"
    }  # equal, though other objects
    assert to_row(Line("a", None, " ", ())) == {"id": "a"}
    assert to_row(Line("a", "b", "", ("c",), True)) == {
        "id": "a",
        "label": "b",
        "joint": "",
        "names": ("c",),
        "seen": True,
    }
    assert to_row(Result("p")).keys() == set(Result.__struct_fields__)
    write_records(tmp_path / "lines.jsonl", [Line("a", None)])
    assert (tmp_path / "lines.jsonl").read_text() == '{"id": "a"}\n'


def test_null_is_the_default_and_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('\ufeff{"id": "a", "label": null, "joint": null, "names": null}\n\n  \n{"id": "b"}\n')
    assert read_records(path, Line) == (Line("a", None), Line("b", None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_id": None}, "field 'probe_id' is missing; add it"),
        ({"acuracy": 1}, "unknown field 'acuracy', did you mean 'accuracy'?"),
        ({"zzz": 1}, "unknown field 'zzz'; remove it"),
        ({"probe_id": 7}, "field 'probe_id' must be text, got 7"),
        ({"probe_id": "\ud800"}, "field 'probe_id' must be text, got '\\ud800'"),
        ({"accuracy": "high"}, "field 'accuracy' must be a number, got 'high'"),
        ({"accuracy": True}, "field 'accuracy' must be a number, got True"),
        ({"ranks": [1.5]}, "field 'ranks' must be a list of whole numbers, got [1.5]"),
        ({"ranks": 1}, "field 'ranks' must be a list of whole numbers, got 1"),
        ({"estimate": {"mean": 1.0}}, "field 'estimate': Object missing required field `n`"),
        (
            {"by_type": {"reversal": {"mean": "x", "n": 1}}},
            "field 'by_type': Expected `float | null`, got `str` - at `$[...].mean`",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_field(tmp_path, changes, message):
    write_jsonl(tmp_path / "good.jsonl", [to_row(FULL)])
    row = {**to_row(FULL), **changes}
    (tmp_path / "bad.jsonl").write_text((tmp_path / "good.jsonl").read_text() + "\n" + json.dumps(row))
    with pytest.raises(UserError) as error:
        read_records(tmp_path / "bad.jsonl", Result)
    assert str(error.value) == f"{tmp_path / 'bad.jsonl'}: row 2: {message}"


def test_a_line_with_an_id_is_named_by_it(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"id": "a"}\n{"id": "b", "seen": "yes"}\n')
    with pytest.raises(UserError, match=r"lines\.jsonl: 'b': field 'seen' must be true or false, got 'yes'$"):
        read_records(tmp_path / "lines.jsonl", Line)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": ', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"id": "b", "seen": true, "seen": false}', "not valid JSON: an object has the key 'seen' twice"),
        (r'{"id": "b", "\u0069d": "c"}', "not valid JSON: an object has the key 'id' twice"),
        ('{"id": "b", "names": [{"a": 1, "a": 2}]}', "not valid JSON: an object has the key 'a' twice"),
    ],
)
def test_a_line_that_is_no_object_is_named_by_its_number(tmp_path, line, problem):
    (tmp_path / "lines.jsonl").write_text('{"id": "a"}\n\n' + line)
    with pytest.raises(UserError, match=rf"lines\.jsonl, line 3: {problem}"):
        read_records(tmp_path / "lines.jsonl", Line, by_hand=True)
