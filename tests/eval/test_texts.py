"""Texts of files: what a document is, what is skipped and told, what is refused."""

import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.study.heldout import read_documents
from tidy_stlms.eval.texts import TextFormat, expand_files, read_texts, texts_of, told

STORIES = "Once.\n\nThen.\n <|endoftext|> \n\nTwo.\n<|endoftext|>\n<|endoftext|>\n  \nThree\n\n"


def texts(path, **form):
    return list(told(texts_of(path, TextFormat(**form)), str(path)))


def test_a_separator_of_ones_own(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text(STORIES)
    assert texts(path, separator="<|endoftext|>") == ["Once.\n\nThen.", "Two.", "Three"]
    assert texts(path)[1:3] == ["Then.\n <|endoftext|> ", "Two.\n<|endoftext|>\n<|endoftext|>"]
    with pytest.raises(UserError, match=r"stories\.txt: no line is '---'.*set data\.separator"):
        texts(path, separator="---")


def test_lines_that_look_like_separators_are_named(tmp_path, caplog):
    path = tmp_path / "stories.txt"
    path.write_text(STORIES.replace(" <|", "<|"))
    texts(path)
    assert [message.split(";")[0] for message in caplog.messages] == [
        f"{path}: 3 lines hold only <|endoftext|>"
    ]
    caplog.clear()
    texts(path, separator="<|endoftext|>")
    path.write_text("Tags <|a|> inside a line.\n\n<|b|> too\n")
    texts(path)
    assert not caplog.messages


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.json"])
def test_a_row_without_text_is_skipped_and_told(tmp_path, name, caplog):
    path = tmp_path / name
    if name == "a.csv":
        path.write_text('text,n\na,1\n,2\n" ",3\nb,4\n')
    elif name == "a.parquet":
        pq.write_table(pa.table({"text": ["a", None, "", " \u3000", "b"]}), path)
    else:
        path.write_text('{"text": "a"}\n{"text": null}\n{"text": ""}\n{"text": " \\n"}\n{"text": "b"}\n')
    with caplog.at_level(logging.WARNING):
        assert texts(path) == ["a", "b"]
    number = 2 if name == "a.csv" else 3
    assert caplog.messages == [f"{path}: skipped {number} rows without text (null, empty or white space)"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"], pa.string_view()),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
    ],
)
def test_every_kind_of_arrow_text_is_text(tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", row_group_size=1)
    assert texts(tmp_path / "a.parquet") == ["a", "b"]


def test_what_is_no_text_is_refused_with_its_row(tmp_path):
    for content, reason in (
        ('{"text": "a"}\n{"n": 1}\n', "line 2: no column 'text', only 'n'; set data.text_column"),
        ('{"\\u001b\\n \\ud83d": 1}\n', r"line 1: no column 'text', only '\x1b\n \ud83d'; set data"),
        (
            '{"' + 99 * "ab " + '": 1}\n',
            f"line 1: no column 'text', only '{(99 * 'ab ')[:59]}...'; the first row must name the columns",
        ),
        ('{"text": "a"}\n{"text": 1}\n', "line 2: column 'text' holds no text, but 1"),
        ('{"text": "a"}\n[1]\n', "line 2: must be an object with named fields"),
        ('{"text": "a"}\n{"text": "b\\ud83d"}\n', r"line 2: '\ud83d' in column 'text' is a lone surrogate"),
        ('{"text": "a"}\n{oops}\n', "line 2: not valid JSON"),
    ):
        (tmp_path / "a.jsonl").write_text(content)
        with pytest.raises(UserError) as error:
            texts(tmp_path / "a.jsonl")
        assert f"a.jsonl, {reason}" in str(error.value)
    for values, reason in (([1], "holds no text, but int64"), ([["a"]], "holds no text, but list")):
        pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=reason):
            texts(tmp_path / "a.parquet")
    for content in (
        b"a\n\nb\0",
        "hello".encode("utf-16"),
        "hello".encode("utf-16-le"),
        b"a\n\ncaf\xe9",
    ):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.txt, line [13]: (holds a NUL byte|not UTF-8)"):
            texts(tmp_path / "a.txt")


def test_a_path_that_exists_is_no_glob(tmp_path):
    folder = tmp_path / "run [1]*"
    folder.mkdir()
    for name in ("a[1].txt", "a1.txt"):
        (folder / name).write_text("a")
    assert expand_files(str(folder / "a[1].txt"), "--corpus") == [folder / "a[1].txt"]
    (folder / "a[1].txt").unlink()
    (tmp_path / "a1.txt").write_text("a")
    assert expand_files(str(tmp_path / "a[1].txt"), "--corpus") == [tmp_path / "a1.txt"]
    for pattern in ("gone.txt", "nul\0.txt", "~nobody/a.txt"):
        with pytest.raises(UserError, match=r"--corpus: .*: no such file|--corpus: .*null byte"):
            expand_files(pattern, "--corpus")


def test_several_files_in_one_text_are_shown_as_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_text("a")
    for pattern in ("a.txt,b.csv", "a.txt b.csv", "a.txt, b.csv"):
        with pytest.raises(UserError) as error:
            expand_files(pattern, "data.train_files")
        assert str(error.value) == (
            f"data.train_files: {pattern}: no such file; for several files write "
            "data.train_files=[a.txt,b.csv]"
        )
        with pytest.raises(UserError, match=r"; for several files write --corpus a\.txt b\.csv"):
            expand_files([pattern], "--corpus")
    with pytest.raises(UserError, match=r"no such file$"):
        expand_files("a.txt,c.csv", "data.train_files")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\x00", "is compressed with gzip; rename it to a.txt.gz"),
        (b"\x28\xb5\x2f\xfd\x00", "is compressed with zstd; rename it to a.txt.zst"),
        (b"BZh91AY", "is compressed with bzip2; decompress it"),
        (b"PK\x03\x04", "is a ZIP archive, or a Word, Excel or OpenDocument file; unpack the archive"),
        (b"\xff\xfea\0", "is UTF-16 text; convert it to UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "fetch the file with `git lfs pull`"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_first_bytes(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        expand_files(str(tmp_path / "a.txt"), "data.train_files")
    assert f"data.train_files: {tmp_path}/a.txt: is " in str(error.value)
    assert message in str(error.value)


def test_an_option_that_no_file_uses_is_refused(tmp_path):
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_text("content\na\n")
    text, table = str(tmp_path / "a.txt"), str(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"^--text-column='content': is not used, for there is no file with"):
        read_texts([text], "--corpus", "content")
    with pytest.raises(UserError, match=r"^--separator='--': is not used, for there is no \.txt file"):
        read_documents([table], TextFormat("content", separator="--"))
    assert list(read_texts([text, table], "--corpus", "content")) == ["content", "a", "a"]
