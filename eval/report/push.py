"""Pushes a model folder to the Hub: weights, code, tokenizer, card, and the records of a run.

Everything goes in one commit, so that a repository never holds half a model. Nothing in the folder is
changed. An STLM gets this project's current code, not the code in its folder. Optimizer states, pickles
(`training_args.bin`), checkpoints and the bank's facts are not pushed. `facts/bank.json` is: it has
the bank's hash and what it was generated from.
"""

import warnings
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.checkpoint_mark import check_weights_of_run
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.eval.hub import hub_errors
from tidy_stlms.eval.models.lookup import check_model_path
from tidy_stlms.eval.report.card import plain_card, run_card
from tidy_stlms.eval.run_folder import is_run

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
    "*.py",
)
# Files of a run that are there from its beginning, and those of a finished run.
RUN_FILES = ("config.yaml", "environment.json", "plan.parquet", "facts/bank.json")
END_FILES = ("summary.json", "metrics.jsonl", "report.md", "figures/*.png")


def files_to_push(folder: Path) -> list[str]:
    """Paths inside `folder` that go to the Hub, the card not among them."""
    patterns = (*MODEL_FILES, *((*RUN_FILES, *END_FILES) if is_run(folder) else ()))
    names = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    return sorted(names)


def push_model(
    folder: Path,
    repo_id: str,
    *,
    run_folder: Path | None = None,
    private: bool | None = None,
    revision: str | None = None,
    license: str | None = None,
    message: str = "Upload model",
) -> tuple[str, int]:
    """Push a model folder; returns the address of the commit and the number of files.

    Args:
        folder: Of a run, a checkpoint, or any model that `from_pretrained` reads.
        repo_id: `user/name`; made if it does not exist. `name` alone is under the token's own user.
        run_folder: For a checkpoint: the run that it belongs to, whose config, plan and bank's hash go along.
        private: For a new repository; an existing one stays as it is.
        revision: A branch, made if it does not exist; `main` when left out.
        license: Named on the card instead of the run's own.

    Raises:
        UserError: Where the folder holds no model or a damaged one, there is no network, or the token has no
            right to write.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_model_path(folder)
    check_weights_of_run(folder)
    records = run_folder or folder
    files = {name: folder / name for name in files_to_push(folder)} | _current_code(folder)
    if run_folder is not None:
        files |= {name: run_folder / name for name in RUN_FILES if (run_folder / name).is_file()}
    if not any(name.endswith((".safetensors", ".bin")) for name in files):
        raise UserError(f"{folder}: holds no weights to push")
    for path in files.values():
        if path.suffix == ".safetensors":
            _check_readable(path)
    _card(folder, records, repo_id, license)  # reads the other files: nothing is made on the Hub if it cannot
    api = HfApi()
    with hub_errors(f"push to {repo_id}"):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        card = _card(folder, records, repo_id, license)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd("README.md", card.encode())]
        operations += [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        with warnings.catch_warnings():  # it warns of the plan: a table in a model's repository
            warnings.simplefilter("ignore", UserWarning)
            commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    return str(commit.commit_url), len(operations)


def _check_readable(weights: Path) -> None:
    """Raise UserError if a safetensors file is cut off, or is not one."""
    from safetensors import safe_open

    with reading(f"{weights}: is damaged", ", so nothing is pushed"), safe_open(weights, framework="pt"):
        pass


def _current_code(folder: Path) -> dict[str, Path]:
    """An STLM's code as this project has it now. The code beside older weights may not fit the transformers
    that people load them with."""
    import modeling_stlm

    current = Path(modeling_stlm.__file__).parent
    names = [path.name for path in folder.glob("*_stlm*.py") if (current / path.name).is_file()]
    return {name: current / name for name in names}


def _card(folder: Path, records: Path, repo_id: str, license: str | None) -> str:
    if not is_run(records):
        return plain_card(folder, repo_id, license)
    bank = load_bank(records / "facts", flag=False) if (records / "facts").exists() else None
    return run_card(records, bank, repo_id=repo_id, license=license, model_folder=folder)
