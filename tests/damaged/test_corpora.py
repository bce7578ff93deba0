"""Files of texts, damaged in any place, as a corpus and as held-out text."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damaged.damage import cases, damaged_bytes, damaged_value, to_json
from tests.eval.facts.bank_files import small_bank
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import DataSection
from tidy_stlms.trainers.documents import load_documents

ROWS = [
    {"id": n, "text": f'The {word} said: "It is {n}, 東京".'} for n, word in enumerate(("cat", "dog", "cow"))
]
CSV = "id,text\n" + "".join('{},"{}"\n'.format(row["id"], row["text"].replace('"', '""')) for row in ROWS)


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


FILES = {
    "a.txt": "\n\n".join(row["text"] for row in ROWS).encode(),
    "a.jsonl": b"\n".join(map(to_json, ROWS)),
    "a.json": to_json(ROWS),
    "a.csv": CSV.encode(),
    "a.TSV": CSV.replace(",", "\t").encode(),
    "a.parquet": parquet(),
    "a.csv.gz": gzip.compress(CSV.encode()),
    "a.txt.zst": pa.compress(CSV.encode(), "zstd", asbytes=True),
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks") / "bank"
    small_bank().save(folder)
    return folder


def read(case, bank, name, content):
    """As the words of a corpus, then as documents, of which every one must be a text."""
    (case.folder / name).write_bytes(content)
    case.run("facts", "validate", bank, "--corpus", case.folder / name)
    data = DataSection(name="files", train_files=str(case.folder / name))
    message = ""
    try:
        documents = load_documents(data, 0, case.folder / "cache")
    except UserError as error:
        message = str(error)
    if message:
        assert str(case.folder / name) in message or "documents" in message
        assert "\n" not in message
        return
    texts = [*documents.train["text"], *documents.validation["text"]]
    assert all(isinstance(text, str) and text.strip() for text in texts)
    "".join(texts).encode()


@cases(30, 1000)
@given(data=st.data(), name=st.sampled_from(list(FILES)))
def test_any_bytes(new_case, bank, data, name):
    read(new_case(), bank, name, data.draw(damaged_bytes(FILES[name])))


@cases(15, 500)
@given(value=damaged_value(ROWS), name=st.sampled_from(["a.jsonl", "a.json", "a.ndjson.gz"]))
def test_any_value(new_case, bank, value, name):
    lines = isinstance(value, list) and name != "a.json"
    content = b"\n".join(map(to_json, value)) if lines else to_json(value)
    read(new_case(), bank, name, gzip.compress(content) if name.endswith(".gz") else content)
