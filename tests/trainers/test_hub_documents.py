"""Corpora of the Hub: only what is needed is downloaded, once, and the same documents come either way."""

import io
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import test_hub
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import DataSection
from tidy_stlms.trainers.documents import load_documents

TEXTS = [None if i % 10 == 3 else "" if i % 10 == 4 else f"document {i:04d}" for i in range(3000)]


def parquet(texts):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "n": list(range(len(texts)))}), buffer, row_group_size=100)
    return buffer.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with test_hub() as server:
        server.use(monkeypatch, tmp_path / "home", token=None)
        for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE"):
            monkeypatch.setattr(f"datasets.config.{name}", server.url if name == "HF_ENDPOINT" else False)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
        parts = {f"data/train-{i:05d}-of-00003.parquet": parquet(TEXTS[1000 * i :][:1000]) for i in range(3)}
        parts["data/validation-00000-of-00001.parquet"] = parquet(["v 1", "v 2", "v 3"])
        server.add("owner/corpus", parts, "dataset")
        yield server


@pytest.fixture
def load(tmp_path):
    """`load(...)` reads a corpus: its documents in the order of their numbers, and its key."""

    def run(cache="cache", **data):
        documents = load_documents(DataSection(**{"name": "owner/corpus", **data}), 0, tmp_path / cache)
        return sorted([*documents.train["text"], *documents.validation["text"]]), documents.key

    return run


def downloads(hub):
    files = [request for request in hub.requests if request.startswith("GET") and ".parquet" in request]
    hub.requests.clear()
    return {file.rpartition("/")[2] for file in files}


def test_only_what_the_first_documents_need_is_downloaded_and_once(hub, load, caplog):
    with caplog.at_level(logging.WARNING):
        first = load(max_documents=100)
    assert first[0] == [text for text in TEXTS if text][:100]
    assert "owner/corpus: skipped 26 rows without text (null, empty or white space)" in caplog.messages
    assert downloads(hub) == {"train-00000-of-00003.parquet"}
    assert load(max_documents=100) == first
    assert downloads(hub) == set()
    whole, key = load()
    assert whole == [text for text in TEXTS if text]
    assert key != first[1]
    downloads(hub)
    # cut from the whole one, which lies on the disk now
    assert load(cache="another", max_documents=100) == first
    assert downloads(hub) == set()


def test_a_new_commit_is_another_corpus(hub, load, monkeypatch):
    before = load(max_documents=2)
    hub.add("owner/corpus", {"data/train.parquet": parquet(["new 1", "new 2", "new 3"])}, "dataset")
    after = load(max_documents=2)
    assert after[0] == ["new 1", "new 2"]
    assert after[1] != before[1]
    # without a network, what was read last
    for module in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    assert load(max_documents=2) == after
    with pytest.raises(UserError, match="cannot load owner/corpus from the Hub"):
        load(max_documents=3)


def test_a_split_and_parts_of_it(hub, load):
    assert load(split="validation")[0] == ["v 1", "v 2", "v 3"]
    for count in (None, 2):  # from the disk, and again from our cache
        assert load(split="validation[1:]", max_documents=count)[0] == ["v 2", "v 3"]
    assert len(load(split="train[:1%]")[0]) == 24
    with pytest.raises(UserError, match=r'cannot load .*: Unknown split "odd"'):
        load(split="odd")


def test_a_split_of_a_stream(hub, load):
    assert load(split="train[2005:2015]+validation", max_documents=9)[0] == [
        *(f"document {i}" for i in (2005, 2006, 2007, 2008, 2009, 2010, 2011, 2012)),
        "v 1",
    ]
    assert downloads(hub) >= {"train-00002-of-00003.parquet", "validation-00000-of-00001.parquet"}
    with pytest.raises(UserError, match=r"does not say how many rows .* as in train"):
        load(split="train[:1%]", max_documents=9)
    with pytest.raises(UserError, match=r"cannot load .*: Bad split: odd"):
        load(split="odd", max_documents=9)
    with pytest.raises(UserError, match="owner/corpus, row 1: column 'n' holds no text, but 0"):
        load(text_column="n", max_documents=9)
    assert len(load(max_documents=9)[0]) == 9


def test_a_mix_takes_its_next_part_only_when_needed(hub, load, monkeypatch):
    hub.add("owner/more", {"train.jsonl": b'{"q": "why", "a": ["so"]}\n{"q": "how", "a": []}\n'}, "dataset")
    parts = [
        {"path": "owner/corpus", "split": "validation"},
        {"path": "owner/more", "template": "{q}? {a[0]}"},
    ]
    monkeypatch.setattr("tidy_stlms.trainers.hub_documents.short_names", lambda: {"mix": parts})
    assert load(name="mix", max_documents=3)[0] == ["v 1", "v 2", "v 3"]
    assert not any("owner/more" in request for request in hub.requests)
    assert load(name="mix", max_documents=4)[0] == ["v 1", "v 2", "v 3", "why? so"]
    with pytest.raises(UserError, match="owner/more, row 2: does not fit"):
        load(name="mix")


def test_a_broken_file_of_the_hub_is_one_line_with_its_reason(hub, load):
    hub.add("owner/broken", {"train.parquet": b"torn"}, "dataset")
    for count in (None, 2):
        with pytest.raises(UserError, match=r"cannot load owner/broken from the Hub: .*(Parquet|magic)"):
            load(name="owner/broken", max_documents=count)
