"""Banks to and from the Hub, as datasets.

    open_bank("banks/people")               # a folder
    open_bank("configs/facts/...")          # a bank that the package ships
    open_bank("hub:owner/people@v1")        # a Hub dataset; the revision may be left out

huggingface_hub keeps a bank from the Hub in its cache: later reads need no network. It also reads the token
itself, so that no message of ours can show it.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from tidy_stlms.configs.errors import UserError, one_line
from tidy_stlms.configs.files import find_shipped, write_whole
from tidy_stlms.configs.markdown import markdown_code, markdown_text
from tidy_stlms.configs.printable import printable
from tidy_stlms.eval.facts.bank import TABLES, FactBank
from tidy_stlms.eval.facts.summary import bank_summary
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.eval.hub import hub_errors, writing_hub_cache

PREFIX = "hub:"
REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
BANK_FILES = ["bank.json", *(f"{table}.jsonl" for table in TABLES)]
SPANS = {"subject": ["int64"], "object": ["int64"]}


def open_bank(name: str | Path, *, check: bool = True) -> FactBank:
    """Read a bank from a folder or, as `hub:owner/name[@revision]`, from the Hub.

    With `check` the bank is checked and flagged; without it is only read (`load_bank`).
    Raises UserError if there is no such bank, or the Hub cannot be reached.
    """
    folder = bank_folder(name)
    return load_bank(folder, check=check)


def bank_folder(name: str | Path) -> Path:
    """The folder of a bank that `open_bank` can read. Downloads a bank of the Hub."""
    if not str(name).startswith(PREFIX):
        return find_shipped(name)
    repo_id, _, revision = str(name).removeprefix(PREFIX).partition("@")
    folder = download(repo_id, revision or None, allow_patterns=BANK_FILES)
    if not (folder / "bank.json").is_file():
        raise UserError(f"{name}: the dataset is not a fact bank (it holds no bank.json)")
    return folder


@writing_hub_cache()
def download(repo_id: str, revision: str | None = None, allow_patterns: list[str] | None = None) -> Path:
    """Download a Hub dataset, unless it is in the cache; returns its folder. UserError if that fails."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    if not REPO_ID.fullmatch(repo_id):
        raise UserError(
            f"{PREFIX}{repo_id}: must look like {PREFIX}owner/name or {PREFIX}owner/name@revision"
        )
    try:
        return Path(
            snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=allow_patterns)
        )
    except (OSError, HTTPError, ValueError) as error:
        raise UserError(f"{PREFIX}{repo_id}: {_reason(error, revision)}") from None


def push_bank(bank: FactBank, repo_id: str, *, private: bool = False) -> str:
    """Upload `bank` as the Hub dataset `repo_id`, which is made if it does not exist.

    Returns the address of the commit.

    Raises UserError if the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    if not REPO_ID.fullmatch(repo_id):
        raise UserError(f"{repo_id}: must look like owner/name")
    disable_progress_bars()
    api = HfApi()
    with hub_errors(f"{repo_id}: cannot be pushed"):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.dataset_info(repo_id).private:
            raise UserError(
                f"{repo_id}: exists already and is public; leave out --private, or take another name"
            )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "bank"
            bank.save(folder)
            write_whole(folder / "README.md", dataset_card(bank, repo_id))
            commit = api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=folder,
                commit_message=f"Fact bank {bank.sha256[:12]}",
            )
    return str(commit.commit_url)


def dataset_card(bank: FactBank, repo_id: str) -> str:
    """The README.md of a bank on the Hub: metadata for `datasets`, counts, and how to load it."""
    import yaml

    summary = bank_summary(bank)
    tables = [table for table in TABLES if getattr(bank, table)]  # `datasets` cannot read an empty file
    metadata = {
        **({"license": bank.meta["license"]} if bank.meta.get("license") else {}),
        "pretty_name": printable(str(bank.meta.get("name") or repo_id)),
        "tags": ["fact-bank", "factual-recall", "knowledge-acquisition", "tidy-stlms"],
        "configs": [
            {
                "config_name": table,
                "data_files": f"{table}.jsonl",
                **({"default": True} if table == "probes" else {}),
            }
            for table in tables
        ],
        "dataset_info": [
            {
                "config_name": table,
                "features": [_feature(name, dtype) for name, dtype in _columns(bank, table).items()],
            }
            for table in tables
        ],
    }
    counts = [("facts by role", summary.facts), ("facts by arm", summary.arms)]
    counts += [(f"{probe_type} probes by role", roles) for probe_type, roles in summary.types.items()]
    counts.append(("probes by flag", summary.flags))
    rows = [
        f"| {markdown_text(what)} | {markdown_text(_listed(by_name))} |"
        for what, by_name in counts
        if by_name
    ]
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    card = CARD.format(
        front=front,
        name=markdown_text(metadata["pretty_name"]),
        facts=len(bank.facts),
        statements=len(bank.statements),
        probes=len(bank.probes),
        origin=_origin(bank.meta),
        rows="\n".join(rows),
        sha256=bank.sha256,
        repo_id=repo_id,
    )
    return printable(card)


CARD = """\
---
{front}---

# {name}

A fact bank for Tidy STLMs: {facts:,} facts, {statements:,} statements \
(what is trained on), {probes:,} probes (what is asked). {origin}

| | |
| --- | --- |
{rows}
| sha256 of the content | `{sha256}` |

Facts of role `injected` are trained on, `control` facts get the same questions and are never trained on, \
`neighbour` facts should stay as they are, `known` facts are real.

```bash
stlm facts show hub:{repo_id}
stlm recall MODEL --facts hub:{repo_id}
stlm train CONFIG.yaml facts.bank=hub:{repo_id}
```

```python
from datasets import load_dataset

probes = load_dataset("{repo_id}", "probes", split="train")  # or facts, statements, relations
```
"""


def _origin(meta: dict[str, Any]) -> str:
    source = meta.get("source")
    if isinstance(source, dict) and source.get("format"):
        file = Path(str(source.get("source"))).name
        return f"Imported from {markdown_code(str(source['format']))}: {markdown_code(file)}."
    return "Generated: people and facts are invented." if meta.get("provenance") == "generated" else ""


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _columns(bank: FactBank, table: str) -> dict[str, Any]:
    """The types of a table's columns by name, in the words of `datasets`.

    The card states them because `datasets` cannot guess them: fields with their default are not written.
    """
    columns: dict[str, Any] = {}
    for field in msgspec.structs.fields(TABLES[table]):
        if field.name == "spans":
            # a span may be called `object:FACT`; free JSON (datasets >= 5) takes any name
            usual = all(SPANS.keys() >= statement.spans.keys() for statement in bank.statements)
            columns["spans"] = SPANS if usual else "json"
        elif field.type is bool:
            columns[field.name] = "bool"
        else:
            columns[field.name] = ["string"] if "tuple" in str(field.type) else "string"
    return columns


def _feature(name: str, dtype: Any) -> dict[str, Any]:
    """The description of a column in the metadata of a dataset card."""
    if isinstance(dtype, list):
        return {"name": name, "sequence": dtype[0]}
    if isinstance(dtype, dict):
        return {"name": name, "struct": [_feature(inner, of_inner) for inner, of_inner in dtype.items()]}
    return {"name": name, "dtype": dtype}


def _reason(error: BaseException, revision: str | None) -> str:
    """Why a dataset cannot be downloaded, in one line."""
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = getattr(getattr(error, "response", None), "status_code", None)
    message = str(error)
    if isinstance(error, RevisionNotFoundError):
        return f"the dataset on the Hub has no revision {revision!r}"
    if status == 401 and "Invalid" in message:
        return "the Hub does not accept the token, or there is none: `hf auth login`, or set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "no such dataset on the Hub, or a private one that needs `hf auth login`"
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)) or (
        status is None and not isinstance(error, ValueError)
    ):
        return (
            "the Hub cannot be reached, and there is no copy in the cache; see to the network, HF_HUB_OFFLINE"
        )
    return one_line(error, 200)
