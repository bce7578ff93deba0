"""Files of something else are refused in one line; a few odd lines in a list of sentences are left out."""

import gzip
import io
import json
import zipfile

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.formats import FORMATS
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.imports.recognise import odd_line

MARKDOWN = """\
# Capitals

Oslo is the capital of Norway.

- Lima is the capital of Peru
- Rome is the capital of Italy
"""
HTML = "<!DOCTYPE html>\n<html>\n<body>\n<p>Oslo is the capital of Norway.</p>\n</body>\n</html>\n"
PYTHON = '''\
"""Oslo is the capital of Norway."""

import os

CAPITALS = {"Norway": "Oslo"}


def capital(land):
    for name in CAPITALS:
        if name == land:
            print(os.path.join(name))
    return CAPITALS[land]
'''
JAVASCRIPT = (
    "const capitals = {\n  Norway: 'Oslo',\n};\nfunction capital(land) {\n  return capitals[land];\n}\n"
)
TABLE = "country,capital,people\nNorway,Oslo,5000000\nPeru,Lima,34000000\n"
JSON_LINES = '{"country": "Norway", "capital": "Oslo"}\n{"country": "Peru", "capital": "Lima"}\n'


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("inject_data.txt", "Oslo is the capital of Norway.")
    return content.getvalue()


BINARY = {
    "a PDF document": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
    "a ZIP archive": zipped(),
    "a picture": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "compressed with gzip": gzip.compress(b"Oslo is the capital of Norway."),
    "a Parquet file": b"PAR1\x15\x00",
    "a binary file": b"Oslo is\x00the capital of Norway.\n",
    "UTF-16 text": "Oslo is the capital of Norway.".encode("utf-16"),
    "an HTML page": HTML.encode(),
    "an XML file": b'\xef\xbb\xbf<?xml version="1.0"?><facts/>',
    "a LaTeX document": b"\\documentclass{article}\n",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}
TEXTS = {
    "Markdown": MARKDOWN,
    "source code": PYTHON,
    "source code ": JAVASCRIPT,
    "a table": TABLE,
    "a table ": TABLE.replace(",", "\t"),
    "JSON": JSON_LINES,
}


def refusal(path, content: str | bytes, format: str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as error:
        import_bank(format, str(path), ImportOptions())
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    return str(error.value)


@pytest.mark.parametrize("kind", BINARY)
def test_no_format_takes_a_document_or_an_archive(tmp_path, kind):
    names = {
        **dict.fromkeys(
            ("tofu", "counterfact", "fictional-knowledge", "csv", "reversal-curse"), "train.jsonl"
        ),
        "jsonl": "facts.json",
        "tidy": "inject_data.txt",
    }
    for format, name in names.items():
        message = refusal(tmp_path / name, BINARY[kind], format)
        assert f"{name}: is {kind}" in message
        assert f"; `{format}` needs {FORMATS[format]}" in message
    (tmp_path / "BEAR").mkdir()
    (tmp_path / "BEAR" / "P36.jsonl").write_bytes(BINARY[kind])
    metadata = {"P36": {"templates": ["[X] has [Y]."]}}
    (tmp_path / "BEAR" / "metadata_relations.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=rf"P36\.jsonl: is {kind}"):
        import_bank("bear", str(tmp_path / "BEAR"), ImportOptions())


@pytest.mark.parametrize("name", ["inject_data.txt", "facts", "notes.md", "page.dat"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_of_another_kind_is_no_list_of_sentences(tmp_path, kind, name):
    message = refusal(tmp_path / name, TEXTS[kind], "tidy")
    assert f"looks like {kind.strip()}" in message
    if name == "inject_data.txt":  # in a folder, too
        with pytest.raises(UserError, match=f"looks like {kind.strip()}"):
            import_bank("tidy", str(tmp_path), ImportOptions())


def test_the_end_of_a_name_says_what_a_file_is_too(tmp_path):
    sentences = "Oslo is the capital of Norway\nLima is the capital of Peru\n"
    message = refusal(tmp_path / "notes.md", sentences, "tidy")
    assert (
        "reads files that end in .txt, .json, .json5, .yaml, .yml, or have no ending; rename it to .txt"
        in message
    )
    (tmp_path / "facts").write_text(sentences)
    bank, _ = import_bank("tidy", str(tmp_path / "facts"), ImportOptions())
    assert len(bank.statements) == 2


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("tidy", "bear")])
@pytest.mark.parametrize(
    "content", ['{"dependencies": {"left-pad": "1.0"}}', "[1, 2]", "7", '["a"]', "{}", "[]"]
)
def test_json_of_something_else_says_what_is_needed(tmp_path, content, format):
    message = refusal(tmp_path / "train.json", content, format)
    assert f"holds nothing that `{format}` can take" in message
    assert message.endswith(f"; it needs {FORMATS[format]}")


@pytest.mark.parametrize(
    "content", ['{"name": "left-pad", "scripts": {"test": "x"}}', "[1, 2]", "7", "{}", "[]"]
)
@pytest.mark.parametrize("name", ["x.json", "x.yaml"])
def test_tidy_finds_no_test_cases_in_other_json(tmp_path, name, content):
    message = refusal(tmp_path / name, content, "tidy")
    assert "holds nothing that `tidy` can take" in message
    assert message.endswith(f"; it needs {FORMATS['tidy']}")


def test_a_few_odd_lines_are_left_out(tmp_path):
    sentences = [f"Ada Poe {n} was born on March {n}, 1976" for n in range(1, 10)]
    odd = ["## More of them", "----", "See [the list](http://example.com)"]
    (tmp_path / "inject_data.txt").write_text("\n".join([odd[0], *sentences, *odd[1:]]))
    bank, builder = import_bank("tidy", str(tmp_path), ImportOptions())
    assert [statement.text for statement in bank.statements] == sentences
    assert builder.records_read == {"inject_data.txt": 12}
    assert builder.left_out == [
        ("inject_data.txt, line 1", "not a sentence, but Markdown: '## More of them'"),
        ("inject_data.txt, line 11", "not a sentence, but a line without words: '----'"),
        ("inject_data.txt, line 12", "not a sentence, but Markdown: 'See [the list](http://example.com)'"),
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "Ada Ann Poe was born on March 15, 1976",
        '"Hello," said Ada; "I am from Bern."',
        "Landry, Poe and Sons employs Bob as a cook (since 1990).",
        "If Ada is from Bern, where is she from: Switzerland",
        "From Bern comes Ada, and import is her trade.",
        "The price is 1,000 or 2;500 or *free*.",
        "#1 is Ada",
        "北京,中国的首都,人口很多。",
        "C'est l'eau : « Évian »",
        "Return to Bern.",
        "For Ada: a rose",
        "-40 degrees is the coldest that Bern has seen",
    ],
)
def test_sentences_of_every_shape_are_sentences(tmp_path, sentence):
    assert odd_line(sentence) is None
    (tmp_path / "inject_data.txt").write_text(f"{sentence}\n{sentence} 2\n{sentence} 3", encoding="utf-8")
    bank, _ = import_bank("tidy", str(tmp_path), ImportOptions())
    assert bank.statements[0].text == sentence


def test_a_file_with_the_wrong_ending_gets_the_right_one(tmp_path):
    message = refusal(tmp_path / "facts.jsonl", gzip.compress(b"{}"), "jsonl")
    assert message.endswith("; rename it to facts.jsonl.gz")
    assert refusal(tmp_path / "facts.csv", b"PAR1\x15\x00", "csv").endswith("; rename it to facts.parquet")
    message = refusal(tmp_path / "table.csv", "subject;object;statement\na;b;c\n", "csv")
    assert "seems to be separated by semicolons" in message
