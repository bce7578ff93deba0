"""Files of rows, whole and damaged: what is read, and what is named."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.file_kinds import kind_of, stem_of
from tidy_stlms.eval.rows import Broken, read_rows

ROWS = [{"text": "a\nb"}, {"text": "élan 東京"}]
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CONTENTS = {
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": json.dumps(ROWS).encode(),
    ".csv": 'text\n"a\nb"\nélan 東京\n'.encode(),
}


@pytest.fixture
def read(tmp_path):
    """`read(name, content)` writes a file and reads it: rows, and reasons of broken ones by place."""

    def run(name, content):
        (tmp_path / name).write_bytes(content)
        rows = list(read_rows(tmp_path / name))
        whole = [row for _, row in rows if not isinstance(row, Broken)]
        return whole, {place: row.reason for place, row in rows if isinstance(row, Broken)}

    return run


def packed(content, packing):
    if packing == ".gz":
        return gzip.compress(content)
    return pa.Codec("zstd").compress(content, asbytes=True) if packing else content


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_every_kind_is_read_packed_or_not_in_any_case(read, kind, packing):
    for name in (f"a{kind}{packing}", f"B{kind}{packing}".upper()):
        assert read(name, packed(CONTENTS[kind], packing)) == (ROWS, {})
        assert (kind_of(name), stem_of(name)) == (kind, name[0])
    # streams behind each other are one, as of parallel compressors
    if packing and kind != ".json":
        rest = CONTENTS[kind].removeprefix(b"text\n")
        both = packed(CONTENTS[kind], packing) + packed(rest, packing)
        assert read(f"c{kind}{packing}", both) == (2 * ROWS, {})


def test_what_ends_a_row_and_what_does_not(read):
    assert read("a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r') == (
        [{"text": "a"}, {"text": "b"}],
        {},
    )
    assert read("b.csv", b"\xef\xbb\xbf text ,x\ra,\rb,1") == (
        [{"text": "a", "x": None}, {"text": "b", "x": "1"}],
        {},
    )
    inside = '{"text": "a\u2028b\x85c"}\n'
    assert read("c.json", 2 * inside.encode()) == (2 * [{"text": "a\u2028b\x85c"}], {})


def test_json_that_holds_one_object_or_lines(read):
    assert read("a.json", b'{\n "text": "a"\n}') == ([{"text": "a"}], {})
    # each line begins with a brace, and none is an object by itself
    nested = {"data": [{"text": "a"}] * 9}
    assert read("b.json", json.dumps(nested).replace(", {", ",\n{").encode()) == ([nested], {})
    rows, broken = read("c.json", b'{"text": "a"}\n{"text": "b"\n{"text": "c"}\n')
    assert (rows, list(broken)) == ([{"text": "a"}, {"text": "c"}], ["line 2"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a", "text": "b"}', "has the key 'text' twice"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not valid JSON: a number has too many digits"),
        (b'{"a":' * 100_000, "not valid JSON: is nested too deeply"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 0xe9)"),
        (b'{"text": "\xed\xa0\xbd"}', "not UTF-8 (byte 0xed)"),
        (b'{"text": "a\0"}', "holds a NUL byte"),
        (b'\xef\xbb\xbf{"text": "a"}', "not valid JSON: "),
        (b'{"text":', "not valid JSON: Expecting value (column 9)"),
    ],
)
def test_a_broken_line_is_named_and_the_next_one_read(read, line, reason):
    rows, broken = read("a.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "c"}\n')
    assert (rows, list(broken)) == ([{"text": "a"}, {"text": "c"}], ["line 2"])
    assert reason in broken["line 2"]
    with pytest.raises(UserError, match=r"a\.json(, line 1)?: (not|holds)"):  # nothing in a list is sure then
        read("a.json", b"[" + line + b"]")


@pytest.mark.parametrize(
    ("rows", "place", "reason"),
    [
        (b"a,1\nb\n", "line 3", "has 1 cell, the header has 2; add the cells"),
        (b"a,1\nb,2,3\n", "line 3", "has 3 cells, the header has 2; a cell that holds a comma needs quotes"),
        (b"a,1\nb\0,2\n", "line 3", "holds a NUL byte"),
        (b"a,1\nb\xff,2\n", "line 3", "not UTF-8 (byte 0xff)"),
    ],
)
def test_a_broken_row_of_a_table(read, rows, place, reason):
    whole, broken = read("a.csv", b"text,n\n" + rows)
    assert (whole, list(broken)) == ([{"text": "a", "n": "1"}], [place])
    assert reason in broken[place]


def test_cells_are_text_as_written(read):
    assert read("a.csv", b"text,n\n007,1\nNA,2\n1e5,3\n")[0] == [
        {"text": "007", "n": "1"},
        {"text": "NA", "n": "2"},
        {"text": "1e5", "n": "3"},
    ]


def test_two_columns_of_one_name_are_refused(read, tmp_path):
    with pytest.raises(UserError, match=r"a\.csv: the header names 'text' twice"):
        read("a.csv", b"text, text\na,b\n")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: the header names 'text' twice"):
        list(read_rows(tmp_path / "a.parquet"))


def test_files_that_cannot_be_read_are_one_line(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    whole = gzip.compress(JSON_LINES)
    for name, content, reason in (
        ("a.jsonl.gz", whole[:-9], "Truncated compressed stream; copy or download the file again"),
        ("b.jsonl.gz", whole[:-8] + bytes(8), "incorrect data check"),
        (
            "c.jsonl.gz",
            JSON_LINES,
            "incorrect header check; copy or download the file again, or take the ending off",
        ),
        ("d.jsonl.zst", JSON_LINES, "Unknown frame descriptor; copy or download the file again, or take"),
        ("i.jsonl.zst", whole, "is compressed with gzip; rename it to i.jsonl.gz"),
        ("j.csv", b"PAR1\0", "is a Parquet file; rename it to j.parquet"),
        ("k.parquet", whole, "is compressed with gzip; decompress it"),
        ("l.json", b"%PDF-1.7\n", "is a PDF document; save its text by itself"),
        ("e.parquet.gz", b"", "decompress it"),
        ("f.parquet", b"PAR1", "not a Parquet file, or a broken one"),
        ("g.pdf", b"", "cannot read .pdf files, only .jsonl"),
        ("h.pdf.gz", b"", "cannot read .pdf files, only .jsonl"),
        ("pipe.csv", None, "is a pipe or a device"),
        ("folder.csv", None, "is a folder"),
        ("gone.csv", None, "no such file"),
        ("n" * 300 + ".csv", None, "File name too long"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as error:
            list(read_rows(tmp_path / name))
        assert name in str(error.value)
        assert reason in str(error.value)
        assert "\n" not in str(error.value)


def test_a_column_of_parquet_that_is_not_utf8(tmp_path):
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0])), pa.py_buffer(b"\xff\xfe")]
    )
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet, rows 1 to 1: .*utf-8"):
        list(read_rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    "text",
    ['a,b\n1,"x"y,"He said:\nZ,2,was wrong"\n3,4,5\n', 'a,b\n1,"2\n3,4\n5,6\n'],
    ids=["misplaced", "unclosed"],
)
def test_a_misplaced_quote_ends_the_reading(tmp_path, text):
    """Rows after it would begin anywhere, also inside a cell."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.csv, lines? 2.*: not valid CSV .*is a quote missing"):
        list(read_rows(path))


def test_a_blank_line_of_one_column_is_a_row_without_a_value(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\n"a"\n\n"b"\n')
    assert [row for _, row in read_rows(path)] == [{"text": "a"}, {"text": None}, {"text": "b"}]


def test_a_quote_inside_an_unquoted_cell_is_text(read):
    assert read("a.csv", b'text,n\nA "Big" B,1\n') == ([{"text": 'A "Big" B', "n": "1"}], {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "id;text\n7;sentence\n",
            "'id;text', so the file seems to be separated by semicolons, not by",
        ),
        ("a.csv", "id\ttext\n7\tb\n", "separated by tabs, not by commas; give it the ending .tsv"),
        ("a.csv", "id|text\n7|b\n", "separated by bars, not by commas; save it with commas"),
        ("a.tsv", "id,text\n7,b\n", "separated by commas, not by tabs; give it the ending .csv"),
        ("a.tsv", "id;text\n7;b\n", "separated by semicolons, not by tabs; save it with tabs"),
    ],
)
def test_a_table_with_another_separator_is_refused(read, name, content, message):
    with pytest.raises(UserError) as error:
        read(name, content.encode())
    assert f"{name}: the header is one cell, " in str(error.value)
    assert message in str(error.value)


def test_a_header_of_one_column_may_be_a_sentence(read):
    assert read("a.tsv", b"Well, then\nb\n") == ([{"Well, then": "b"}], {})


def test_a_cell_that_holds_whole_rows_is_warned_of(read, caplog):
    rows = [f"row {number},{number},x\r\n" for number in range(9)]
    rows[1] = 'row 1,"1,x\r\n'
    rows[8] = 'row 8,8",x\r\n'
    whole, broken = read("a.csv", "".join(["text,n,m\r\n", *rows]).encode())
    assert (len(whole), broken) == (2, {})
    assert [message.partition("a.csv")[2] for message in caplog.messages] == [
        ", lines 3 to 10: one cell holds lines that look like whole rows; is a quote missing?"
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["Oslo, Norway", "Lima, Peru"],
        ["The fox came home,", "The hen went out,"],
        ["No comma here", "Nor here"],
        ["a,b", "one line of another kind"],
    ],
)
def test_texts_of_several_lines_are_not_taken_for_rows(read, lines, caplog):
    text = "\n".join(5 * lines)
    assert read("a.csv", f'text,n\n"{text}",1\n'.encode()) == ([{"text": text, "n": "1"}], {})
    assert not caplog.messages
