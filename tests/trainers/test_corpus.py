"""Corpora: the documents arrive whole, the cache is never half-written, mistakes are named."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tidy_stlms.configs.corpora import short_names
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import DataSection, ModelSection, TokenizerSection, TokenizerTraining
from tidy_stlms.eval.texts import read_texts
from tidy_stlms.trainers.corpus import prepare_corpus
from tidy_stlms.trainers.documents import load_documents
from tidy_stlms.trainers.synthetic import synthetic_documents
from tidy_stlms.trainers.tokenizer import load_tokenizer

TEXTS = ["One two three.", "Four five\nsix.", "Seven élan 東京.", "Eight nine ten eleven."]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe_tokenizer(TEXTS, 300)


def write(path, texts):
    """The same documents in the format of `path`'s ending."""
    if path.suffix == ".txt":
        path.write_text("\n\n\n".join(texts) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": t}) + "\n" for t in texts), encoding="utf-8")
    elif path.suffix == ".csv":
        rows = ['"{}",x\n'.format(t.replace('"', '""')) for t in texts]
        path.write_text("text,other\n" + "".join(rows), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": texts}), path)
    return str(path)


def files(path, **changes):
    return DataSection(**{"name": "files", "train_files": path, "validation_files": path, **changes})


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_tokens(tmp_path, tokenizer, ending):
    data = files(write(tmp_path / f"corpus.{ending}", TEXTS))
    corpus = prepare_corpus(load_documents(data, 0, tmp_path), tokenizer, tmp_path, progress=False)
    ids = np.fromfile(corpus.folder / "train.bin", corpus.dtype).tolist()
    assert corpus.dtype == "uint16"
    assert corpus.tokens == {"train": len(ids), "validation": len(ids)}
    expected = [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id] for t in TEXTS]
    assert ids == [i for document in expected for i in document]


@pytest.mark.parametrize(("documents", "count"), [("block", 3), ("line", 4), ("file", 1)])
def test_documents_of_a_text_file(tmp_path, documents, count):
    (tmp_path / "a.txt").write_text("a b\nc\n\nd\n  \n\ne\n", encoding="utf-8")
    data = files(str(tmp_path / "a.txt"), documents=documents)
    assert len(load_documents(data, 0, tmp_path).train) == count


def test_texts_of_every_format_are_read_without_a_copy(tmp_path):
    """Those of a .txt file by lines, whatever `data.documents` makes of it."""
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
    (tmp_path / "b.jsonl").write_text('{"x": "one"}\n{"x": "two\\nthree"}\n')
    (tmp_path / "c.csv").write_text('x,y\none,1\n"two\nthree",2\n')
    pq.write_table(pa.table({"x": ["one", None, "two\nthree"]}), tmp_path / "d.parquet")
    assert list(read_texts([str(tmp_path / "a.txt")], "--corpus", "text")) == ["one", "two", "three"]
    assert list(read_texts([str(tmp_path / "[bcd].*")], "--corpus", "x")) == 3 * ["one", "two\nthree"]
    with pytest.raises(UserError, match=r"--corpus: .*: no such file"):
        read_texts([str(tmp_path / "gone.txt")], "--corpus", "x")
    with pytest.raises(UserError, match="column 'z', only 'x'"):
        list(read_texts([str(tmp_path / "d.parquet")], "--corpus", "z"))


def test_held_out_documents_follow_fraction_and_seed(tmp_path):
    data = DataSection(name="synthetic", max_documents=200, validation_fraction=0.1)
    first, again = load_documents(data, 1, tmp_path), load_documents(data, 1, tmp_path)
    assert (len(first.train), len(first.validation)) == (180, 20)
    assert not set(first.train["text"]) & set(first.validation["text"])
    assert first.key == again.key
    assert first.validation["text"] == again.validation["text"]
    other = load_documents(data, 2, tmp_path)
    assert other.key != first.key


def test_the_order_of_the_documents_is_not_written_to_the_cache(tmp_path):
    (tmp_path / "c.txt").write_text("\n\n".join(f"Document {n}." for n in range(10)))
    data = DataSection(name="files", train_files=str(tmp_path / "c.txt"))
    written = []
    for seed in (0, 0, 1):
        load_documents(data, seed, tmp_path / "cache")
        written.append(sorted(path.name for path in (tmp_path / "cache").rglob("*")))
    assert written[0] == written[1] == written[2]


def test_key_changes_with_content_columns_and_tokenizer(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    keys = set()
    for texts, documents in ((TEXTS, "block"), (TEXTS, "line"), ([*TEXTS, "more"], "block")):
        data = files(write(path, texts), documents=documents)
        keys.add(prepare_corpus(load_documents(data, 0, tmp_path), tokenizer, tmp_path, False).key)
    other = train_bpe_tokenizer(TEXTS, 290)
    data = files(write(path, TEXTS))
    keys.add(prepare_corpus(load_documents(data, 0, tmp_path), other, tmp_path, False).key)
    assert len(keys) == 4


def test_the_same_file_read_another_way_gives_other_documents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n\nc\n", encoding="utf-8")
    for documents, texts in (("block", ["a\nb", "c"]), ("line", ["a", "b", "c"]), ("file", ["a\nb\n\nc\n"])):
        assert list(load_documents(files(str(path), documents=documents), 0, tmp_path).train["text"]) == texts
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"text": "x", "body": "y"}\n')
    for column, text in (("text", "x"), ("body", "y")):
        assert list(load_documents(files(str(rows), text_column=column), 0, tmp_path).train["text"]) == [text]


def test_an_empty_row_is_told_on_every_run_and_trains_no_tokenizer(tmp_path, caplog):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [None, *TEXTS, ""]}), path)
    section = TokenizerSection(train=TokenizerTraining(vocab_size=300))
    for _ in range(2):
        caplog.clear()
        documents = load_documents(
            files(str(path), validation_files=write(tmp_path / "v.txt", TEXTS)), 0, tmp_path
        )
        assert caplog.messages == [f"{path}: skipped 2 rows without text (null, empty or white space)"]
        assert list(documents.train["text"]) == TEXTS
        assert len(load_tokenizer(section, ModelSection(), documents, None, tmp_path)) == 300


def test_a_file_with_a_separator(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("One.\n\nStill one.\n<|endoftext|>\nTwo.\n")
    texts = [
        list(load_documents(files(str(path), separator=separator), 0, tmp_path).train["text"])
        for separator in ("<|endoftext|>", None)
    ]
    assert texts == [["One.\n\nStill one.", "Two."], ["One.", "Still one.\n<|endoftext|>\nTwo."]]


@pytest.mark.parametrize(
    ("name", "content", "changes", "remedy"),
    [
        ("a.txt", "One.\nTwo.\n", {}, "set data.documents=line, or give data.validation_files"),
        ("a.txt", "One.\n\n", {}, "give data.validation_files"),
        ("a.txt", "One.\n", {"documents": "line"}, "give data.validation_files"),
        (
            "a.txt",
            "One.\n<|a|>\n\nTwo.\n",
            {"documents": "file"},
            "set data.documents=block, set data.documents=line, or give data.validation_files",
        ),
        (
            "a.txt",
            "One.\n<|endoftext|>\nTwo.\n",
            {},
            "set data.separator='<|endoftext|>' if that stands between its documents, set "
            "data.documents=line, or give data.validation_files",
        ),
        ("a.txt", "One.\n--\n", {"separator": "--"}, "give data.validation_files"),
        ("a.jsonl", '{"text": "One."}\n', {}, "give data.validation_files"),
    ],
)
def test_a_file_of_one_document_names_what_would_help(tmp_path, name, content, changes, remedy):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError) as error:
        load_documents(files(str(path), validation_files=None, **changes), 0, tmp_path)
    assert str(error.value) == (
        f"data.train_files: {path}: has 1 document, so none can be held out; {remedy}"
    )


def test_interrupted_preparation_is_redone(tmp_path, tokenizer, monkeypatch):
    data = files(write(tmp_path / "a.txt", TEXTS))
    documents = load_documents(data, 0, tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tidy_stlms.trainers.corpus.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus(documents, tokenizer, tmp_path, progress=False)
    assert list((tmp_path / "corpora").iterdir()) == []
    corpus = prepare_corpus(documents, tokenizer, tmp_path, progress=False)
    stamp = os.stat(corpus.folder / "train.bin").st_mtime_ns
    assert prepare_corpus(documents, tokenizer, tmp_path, progress=False) == corpus
    assert os.stat(corpus.folder / "train.bin").st_mtime_ns == stamp  # found, not made again


def test_large_vocabularies_take_four_bytes(tmp_path, tokenizer):
    class Large(type(tokenizer)):
        def __len__(self):
            return 70_000

    large = Large(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>")
    data = files(write(tmp_path / "a.txt", TEXTS))
    corpus = prepare_corpus(load_documents(data, 0, tmp_path), large, tmp_path, progress=False)
    assert corpus.dtype == "uint32"
    assert corpus.blocks("train", 4)[0].dtype == np.int64


def mistake(tmp_path, tokenizer, **changes):
    data = DataSection(**{"name": "files", "validation_files": write(tmp_path / "v.txt", TEXTS), **changes})

    def prepare():
        corpus = prepare_corpus(load_documents(data, 0, tmp_path), tokenizer, tmp_path, progress=False)
        corpus.blocks("train", 1000)

    with pytest.raises(UserError) as error:
        prepare()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_mistakes_are_named(tmp_path, tokenizer):
    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    assert "data.train_files: give" in mistake(tmp_path, tokenizer)
    assert "nowhere.txt: no such file" in mistake(tmp_path, tokenizer, train_files="nowhere.txt")
    assert "holds no text" in mistake(tmp_path, tokenizer, train_files=file("empty.txt", b"\n \n"))
    assert "x.zip: cannot read .zip" in mistake(tmp_path, tokenizer, train_files=file("x.zip", b""))
    assert "latin.txt, line 1: not UTF-8 (byte 0xe9)" in mistake(
        tmp_path, tokenizer, train_files=file("latin.txt", b"caf\xe9 au lait")
    )
    latin = file("latin.jsonl", b'{"text": "caf\xe9"}\n')
    assert "latin.jsonl, line 1: not UTF-8" in mistake(tmp_path, tokenizer, train_files=latin)
    broken = file("broken.jsonl", b'{"text": "a"}\n{"text":\n')
    assert "broken.jsonl, line 2: not valid JSON" in mistake(tmp_path, tokenizer, train_files=broken)
    for path in (
        file("c.jsonl", b'{"body": "a"}\n'),
        file("c.csv", b"body,x\na,b\n"),
        str(tmp_path / "c.parquet"),
    ):
        pq.write_table(pa.table({"body": ["a"]}), tmp_path / "c.parquet")
        message = mistake(tmp_path, tokenizer, train_files=path)
        assert "column 'text', only 'body'" in message
        assert "data.text_column" in message
    assert "not a Parquet file" in mistake(tmp_path, tokenizer, train_files=file("bad.parquet", b"torn"))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "zero.parquet")
    assert "zero.parquet: holds no text" in mistake(
        tmp_path, tokenizer, train_files=str(tmp_path / "zero.parquet")
    )
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    assert "holds no text" in mistake(tmp_path, tokenizer, train_files=str(tmp_path / "numbers.parquet"))
    short = write(tmp_path / "short.txt", TEXTS)
    assert "less than one row of 1000" in mistake(tmp_path, tokenizer, train_files=short)


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path):
    bare = train_bpe_tokenizer(TEXTS, 300)
    bare.eos_token = None
    data = files(write(tmp_path / "a.txt", TEXTS))
    with pytest.raises(UserError, match="no end-of-text token"):
        prepare_corpus(load_documents(data, 0, tmp_path), bare, tmp_path, progress=False)


def test_an_unreachable_hub_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"data.name=simple_en_wiki: cannot load wikimedia/wikipedia .* Hub"):
        load_documents(DataSection(name="simple_en_wiki"), 0, tmp_path)


def test_short_names_name_parts():
    for name, parts in short_names().items():
        assert all(part["path"].count("/") == 1 for part in parts), name
    assert len(short_names()["stlm"]) == 4


def test_synthetic_documents_are_seeded_and_hold_no_braces():
    documents = list(synthetic_documents(50, 3))
    assert documents == list(synthetic_documents(50, 3))
    assert documents != list(synthetic_documents(50, 4))
    assert not any("{" in document for document in documents)


def test_a_damaged_cache_is_named_and_not_trained_on(tmp_path, tokenizer):
    documents = load_documents(DataSection(name="synthetic", max_documents=40), 1, tmp_path)
    corpus = prepare_corpus(documents, tokenizer, tmp_path, progress=False)
    for name, content in (
        ("train.bin", (corpus.folder / "train.bin").read_bytes()[:-2]),
        ("validation.bin", None),
        ("meta.json", b"{}"),
        ("meta.json", b"{"),
        ("meta.json", None),
    ):
        file = corpus.folder / name
        before = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(UserError, match=rf"{corpus.key}: is damaged; remove it"):
            prepare_corpus(documents, tokenizer, tmp_path, progress=False)
        file.write_bytes(before)
    assert prepare_corpus(documents, tokenizer, tmp_path, progress=False) == corpus
