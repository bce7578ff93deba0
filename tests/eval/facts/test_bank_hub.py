"""Banks to the Hub and back, on a Hub of our own."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from markdown_it import MarkdownIt
from msgspec.structs import fields, replace

from tests.eval.facts.bank_files import ADA, BOB, edit_line, probe, small_bank, statement
from tests.hub import test_hub
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.printable import UNPRINTABLE
from tidy_stlms.eval.facts.bank import TABLES, FactBank
from tidy_stlms.eval.facts.hub import dataset_card, open_bank, push_bank
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.records import Fact, Probe

SECRET = "hf_owner"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with test_hub() as hub:
        hub.use(monkeypatch, tmp_path / "home", token=SECRET)
        yield hub


def test_a_bank_goes_to_the_hub_and_comes_back(hub):
    bank = small_bank(meta={"name": "Köln & co: a bank", "license": "mit", "arms": {"dup": {"exposures": 4}}})
    url = push_bank(bank, "owner/small")
    assert url.startswith(f"{hub.url}/datasets/owner/small/commit/")
    files = hub.files("owner/small", repo_type="dataset")
    assert {"README.md", "bank.json", *(f"{table}.jsonl" for table in TABLES)} <= files.keys()
    back = open_bank("hub:owner/small")
    assert back == bank
    assert back.sha256 == bank.sha256
    assert open_bank("hub:owner/small", check=False) == bank


def test_a_card_shows_texts_of_the_bank_literally():
    evil = "\x1b[31m\u202e <script> | ![i](http://x) `b` \n# h"
    source = {"format": evil, "source": evil}
    bank = small_bank(meta={"name": evil, "source": source}, facts=[replace(ADA, arm=evil), BOB])
    card = dataset_card(bank, "a/b")
    assert not UNPRINTABLE.search(card)
    page = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("<h1>") == 1
    assert "<td>\\u001b[31m\\u202e &lt;script&gt; | ![i](http://x) `b` # h 1" in page


def test_what_is_in_the_cache_is_not_downloaded_again_and_needs_no_network(hub, monkeypatch):
    push_bank(small_bank(), "owner/small")
    open_bank("hub:owner/small")
    before = len(hub.requests)
    assert open_bank("hub:owner/small") == small_bank()
    assert not [request for request in hub.requests[before:] if "/resolve/" in request]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert open_bank("hub:owner/small") == small_bank()


def test_revisions(hub):
    push_bank(small_bank(), "owner/small")
    first = hub.repositories["dataset", "owner/small"]
    first.tags["v1"] = first.branches["main"]
    push_bank(small_bank(probes=(probe(ADA, prompt="Ada Poe is from"),)), "owner/small")
    assert open_bank("hub:owner/small@v1") == small_bank()
    assert open_bank("hub:owner/small").probes[0].prompt == "Ada Poe is from"
    with pytest.raises(UserError, match=r"^hub:owner/small: the dataset on the Hub has no revision 'v9'$"):
        open_bank("hub:owner/small@v9")


def test_what_datasets_reads(hub, tmp_path):
    """`datasets` finds its Hub when it is imported, hence a process for it: banks' tables, and imports."""
    # fields that only the last of many lines has, and a table without lines
    facts = tuple(Fact(f"f{n}", "Ada", None, "Bern", "known") for n in range(50))
    late = Fact("late", "Ada", None, "Bern", "known", ("Berne",), arm="dup", counterfactual_of="f1")
    bank = small_bank(
        relations=(),
        facts=(replace(ADA, relation=None), *facts, late),
        statements=(statement(ADA, id="bare", spans={}), statement(ADA)),
        probes=(probe(ADA, flags=("outer_space",)),),
    )
    push_bank(bank, "owner/small")
    both = statement(ADA, fact_ids=("ada/city", "f1"), spans={"object:ada/city": (20, 24)})
    push_bank(small_bank(facts=(ADA, BOB, *facts), statements=(both, statement(BOB))), "owner/told_together")
    rows = b'{"question": "Who?", "answer": "Ada."}\n{"question": "Where?", "answer": "Here."}\n'
    hub.add("other/tofu", {"full.jsonl": rows}, repo_type="dataset")
    code = """
import json
from datasets import get_dataset_config_names, load_dataset
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank

names = get_dataset_config_names("owner/small")
tables = {name: load_dataset("owner/small", name, split="train").to_list() for name in names}
default = load_dataset("owner/small", split="train").column_names
together = load_dataset("owner/told_together", "statements", split="train").to_list()
imported, builder = import_bank("tofu", "other/tofu", ImportOptions())
try:
    import_bank("tofu", "other/tofu", ImportOptions(split="test"))
except UserError as error:
    refused = str(error)
objects = [fact.object for fact in imported.facts]
print(json.dumps([tables, default, together, objects, builder.records_read, refused]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **hub.environment(tmp_path / "reader", token=None)},
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    tables, default, together, objects, read, refused = json.loads(run.stdout.splitlines()[-1])
    assert tables.keys() == {"facts", "statements", "probes"}
    assert [row["id"] for row in tables["facts"]] == [fact.id for fact in bank.facts]
    assert tables["facts"][-1]["object_aliases"] == ["Berne"]
    assert tables["facts"][0]["arm"] is None
    assert tables["statements"][1]["spans"] == {"subject": [0, 7], "object": [20, 24]}
    assert tables["probes"][0]["distractors"] == ["Oslo", "Lima"]
    assert default == [field.name for field in fields(Probe)]
    assert [row["spans"] for row in together] == [
        {"object:ada/city": [20, 24]},
        {"subject": [0, 7], "object": [20, 24]},
    ]
    assert (objects, read) == (["Ada.", "Here."], {"other/tofu": 2})
    assert refused.startswith("other/tofu: cannot be loaded from the Hub: ")


def test_the_card_describes_every_column():
    metadata = yaml.safe_load(dataset_card(small_bank(), "a/b").split("---\n")[1])
    columns = {info["config_name"]: info["features"] for info in metadata["dataset_info"]}
    assert {table: [column["name"] for column in features] for table, features in columns.items()} == {
        table: list(TABLES[table].__struct_fields__) for table in columns
    }
    assert {"name": "seen_verbatim", "dtype": "bool"} in columns["probes"]
    assert {"name": "answers", "sequence": "string"} in columns["probes"]
    assert {"name": "template", "dtype": "string"} in columns["probes"]


def test_the_card(hub):
    card = dataset_card(small_bank(meta={"name": "small", "license": "cc0-1.0"}), "owner/small")
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "cc0-1.0"
    assert "fact-bank" in metadata["tags"]
    assert [config["config_name"] for config in metadata["configs"]] == list(TABLES)
    assert small_bank().sha256 in card
    assert "| facts by role | control 1, injected 1 |" in card
    assert "facts.bank=hub:owner/small" in card
    assert "license" not in yaml.safe_load(dataset_card(small_bank(), "owner/small").split("---\n")[1])


def test_the_card_shows_what_utf8_cannot_hold_or_a_reader_not_see():
    meta = {"name": "a\udcff\x1b[31m\u202eb", "source": {"format": "csv", "source": "/x/\udcff.csv"}}
    card = dataset_card(small_bank(meta=meta), "owner/small")
    assert r"# a\\udcff\\u001b\[31m\\u202eb" in card  # Markdown's own escapes around ours
    assert "`\\udcff.csv`" in card
    assert card.encode().decode() == card
    assert yaml.safe_load(card.split("---\n")[1])["tags"][0] == "fact-bank"


def test_private_banks(hub, monkeypatch, tmp_path):
    push_bank(small_bank(), "owner/secret", private=True)
    assert hub.repositories["dataset", "owner/secret"].private
    assert open_bank("hub:owner/secret") == small_bank()
    hub.use(monkeypatch, tmp_path / "other", token="hf_other")
    with pytest.raises(UserError, match=r"^hub:owner/secret: no such dataset on the Hub, or a private one"):
        open_bank("hub:owner/secret")
    hub.use(monkeypatch, tmp_path / "visitor", token=None)
    with pytest.raises(UserError, match="no such dataset on the Hub, or a private one"):
        open_bank("hub:owner/secret")


def test_a_public_dataset_is_not_taken_for_private(hub):
    push_bank(small_bank(), "owner/small")
    before = hub.files("owner/small")
    with pytest.raises(UserError, match="exists already and is public; leave out --private"):
        push_bank(small_bank(probes=()), "owner/small", private=True)
    assert hub.files("owner/small") == before


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_other", "owner/small: cannot be pushed: the Hub refused it (403)"),
        ("hf_wrong", "owner/small: cannot be pushed: the Hub refused it (401)"),
        (None, "owner/small: cannot be pushed: the Hub refused it (401)"),
    ],
)
def test_who_may_not_write_is_told_in_one_line_without_the_token(hub, monkeypatch, tmp_path, token, message):
    hub.use(monkeypatch, tmp_path / "x", token=token)
    with pytest.raises(UserError) as error:
        push_bank(small_bank(), "owner/small")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert str(token) not in str(error.value)
    assert not hub.repositories


def test_no_network(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = "the Hub cannot be reached"
    with pytest.raises(UserError, match=rf"^hub:owner/small: {message}, and there is no copy in the cache"):
        open_bank("hub:owner/small")
    with pytest.raises(UserError, match=rf"^owner/small: cannot be pushed: {message}"):
        push_bank(small_bank(), "owner/small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message):
        open_bank("hub:owner/small")


def test_datasets_that_are_no_banks(hub):
    hub.add("owner/other", {"data.csv": b"a,b"}, repo_type="dataset")
    with pytest.raises(UserError, match="not a fact bank"):
        open_bank("hub:owner/other")
    with pytest.raises(UserError, match="must look like hub:owner/name"):
        open_bank("hub:small")
    with pytest.raises(UserError, match="must look like owner/name"):
        push_bank(small_bank(), "small")
    assert not [request for request in hub.requests if "small" in request]


def test_folders_and_broken_banks(tmp_path):
    small_bank().save(tmp_path / "bank")
    assert open_bank(tmp_path / "bank") == open_bank(str(tmp_path / "bank")) == small_bank()
    edit_line(tmp_path / "bank", "probes", 0, type="locality", prompt="Bern is")
    assert open_bank(tmp_path / "bank").probes[0].flags == ("answer_in_prompt",)
    edit_line(tmp_path / "bank", "probes", 0, fact_ids=["nobody"])
    with pytest.raises(UserError, match="nobody"):
        open_bank(tmp_path / "bank")
    assert open_bank(tmp_path / "bank", check=False).probes[0].fact_ids == ("nobody",)
    with pytest.raises(UserError, match="not a fact bank"):
        open_bank(tmp_path / "nowhere")


def test_files_that_belong_together_are_downloaded(hub):
    metadata = {"P36": {"templates": ["The capital of [X] is [Y]."], "answer_space_labels": ["Oslo", "Lima"]}}
    line = b'{"sub_id": "Q20", "sub_label": "Norway", "obj_label": "Oslo"}\n'
    files = {"BEAR/metadata_relations.json": json.dumps(metadata).encode(), "BEAR/P36.jsonl": line}
    hub.add("other/bear", files, repo_type="dataset")
    bank, _ = import_bank("bear", "other/bear", ImportOptions())
    assert [fact.object for fact in bank.facts] == ["Oslo"]
    assert bank.meta["source"]["source"] == "other/bear"
    with pytest.raises(UserError, match="no such dataset on the Hub"):
        import_bank("tidy", "other/none", ImportOptions())


def test_a_bank_as_loaded_is_pushed_whole(hub):
    bank = FactBank({"name": "flags"}, (), (ADA,), (), (probe(ADA, flags=("mine",)),))
    push_bank(small_bank(), "owner/small")
    push_bank(bank, "owner/small")
    assert open_bank("hub:owner/small", check=False) == bank
