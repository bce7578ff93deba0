"""Files of records, whole and broken: what is read, and what is named."""

import gzip

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.source_files import data_file, read_rows, text_field


@pytest.fixture
def read(tmp_path):
    """`read(name, content)` writes a file and reads it: the records, and what was left out."""

    def run(name: str, content: str) -> tuple[list[dict], list[tuple[str, str]]]:
        (tmp_path / name).write_text(content, encoding="utf-8")
        builder = BankBuilder("jsonl", name)
        records = [record for _, record in read_rows(tmp_path / name, builder)]
        assert builder.records_read[name] == len(records) + len(builder.left_out)
        return records, builder.left_out

    return run


ADA, CLEO = {"name": "Ada", "text": "Ada is from Bern."}, {"name": "Cleo", "text": "Cleo is from Oslo."}


def test_a_quote_that_is_not_closed_is_named_with_all_that_it_swallows(read):
    """The file is refused: rows after it would be read from the middle of cells."""
    header, ada, cleo = "name,text\n", "Ada,Ada is from Bern.\n", "Cleo,Cleo is from Oslo.\n"
    opened = 'Bob,"Bob is from Rome.\n'
    with pytest.raises(UserError, match=r"a\.csv, lines 3 to 4: not valid CSV \(unexpected end of data\)"):
        read("a.csv", header + ada + opened + cleo)
    # the next quote that comes closes it
    with pytest.raises(UserError, match=r"b\.csv, lines 3 to 4: not valid CSV \(',' expected"):
        read("b.csv", header + ada + opened + 'Dov,"Dov, the king"\n' + cleo)
    with pytest.raises(UserError, match=r"c\.csv, lines 1 to 2: not valid CSV"):
        read("c.csv", 'name,"text\n' + ada)


def test_cells_of_several_lines_and_empty_ones(read):
    found = read("a.csv", 'name,text\r\nAda,"""Hi""\r\nBob"\r\n\r\nCleo,\r\n')
    assert found == ([{"name": "Ada", "text": '"Hi"\r\nBob'}, {"name": "Cleo", "text": None}], [])


def test_quotes_are_text_between_tabs(read):
    texts = ['"Hello" said Ann to Bob.', '"Bye, said Bob.', "Hi."]
    records, left_out = read("a.tsv", "text\tn\n" + "".join(f"{text}\t1\n" for text in texts))
    assert [record["text"] for record in records] == texts
    assert left_out == []


def test_a_column_that_stands_twice(read):
    with pytest.raises(UserError, match=r"a\.csv: the header names 'prompt' twice; rename one"):
        read("a.csv", "prompt,prompt\nAda is,Ada was\n")


@pytest.mark.parametrize("comment", ["// authors", "/* {\n{\n{\n */ // [", "\n\n// a\n\t// b"])
def test_a_list_behind_a_comment_is_one(read, comment):
    rows = "".join(f'{{"name": "p{n}"}},\n' for n in range(9))
    records, left_out = read("a.json", f"{comment}\n[\n{rows}]")
    assert (len(records), left_out) == (9, [])


def test_a_line_within_a_text_does_not_end_it(read):
    lines = "".join(f'{{"text": "a\u2028b\x85{n}"}}\n' for n in range(3))
    records, left_out = read("a.json", lines)
    assert ([record["text"] for record in records], left_out) == ([f"a\u2028b\x85{n}" for n in range(3)], [])


def test_a_packed_file_of_a_folder_is_found_by_its_name(tmp_path):
    for name in ("facts", "others"):
        content = f'{{"name": "{name}"}}\n{{oops}}\n'
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    builder = BankBuilder("jsonl", str(tmp_path))
    path = data_file(tmp_path, "facts")
    assert [row for _, row in read_rows(path, builder)] == [{"name": "facts"}]
    assert [where for where, _ in builder.left_out] == ["facts.jsonl.gz, line 2"]
    with pytest.raises(UserError, match="choose one with --config: facts, others"):
        data_file(tmp_path, None)


def test_half_a_character_is_no_text(read):
    [half, whole], _ = read("a.jsonl", '{"text": "a\\ud83d"}\n{"text": "a\\ud83d\\ude00"}\n')
    assert text_field(whole, "text") == "a\U0001f600"
    with pytest.raises(Refused, match=r"field 'text' is not UTF-8: 'a\\ud83d'"):
        text_field(half, "text")
