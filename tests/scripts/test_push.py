"""Pushing to a Hub over HTTP, and reading back where this project is not installed."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import modeling_stlm
from tests.hub import test_hub
from tidy_stlms.scripts.__main__ import main

REPO = "owner/little"

STRANGER = """
import sys
sys.path = [p for p in sys.path if "editable" not in p]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
for name in ("modeling_stlm", "tidy_stlms"):
    sys.modules[name] = None  # importing it raises ImportError
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
source, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True).eval()
base = AutoModel.from_pretrained(source, trust_remote_code=True).eval()
ids = AutoTokenizer.from_pretrained(source)("The old farmer", return_tensors="pt")["input_ids"]
writer = pipeline("text-generation", model=source, trust_remote_code=True)
said = writer("The old farmer", max_new_tokens=4, do_sample=False)[0]["generated_text"]
with torch.no_grad():
    torch.save([ids, model(ids).logits, base(ids).last_hidden_state, said], out)
"""


@pytest.fixture
def hub():
    with test_hub() as server:
        yield server


@pytest.fixture
def online(hub, monkeypatch, tmp_path):
    """The Hub of this process."""
    hub.use(monkeypatch, tmp_path / "home")
    return hub


def read_card(card: bytes) -> tuple[dict, str]:
    _, metadata, body = card.decode().split("---\n", 2)
    return yaml.safe_load(metadata), body


def error_of(capsys, arguments) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stlm: error: ")]
    assert len(lines) == 1
    assert "hf_" not in lines[0]
    return lines[0]


def test_a_pushed_run_opens_where_the_project_is_not_installed(run, online, tmp_path, capsys):
    assert main(["push", str(run), REPO, "--license", "mit"]) == 0
    assert REPO in capsys.readouterr().out
    environment = {**os.environ, **online.environment(tmp_path / "stranger", token=None)}
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, REPO, str(tmp_path / "out.pt")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    ids, logits, hidden, said = torch.load(tmp_path / "out.pt")
    model = AutoModelForCausalLM.from_pretrained(run).eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits)
        assert torch.equal(model.model(ids).last_hidden_state, hidden)
        longer = model.generate(ids, max_new_tokens=4, do_sample=False)[0]
    assert said == AutoTokenizer.from_pretrained(run).decode(longer, skip_special_tokens=True)


def test_the_card_and_what_goes_along(run, online):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["push", str(run), REPO, "--license", "mit"]) == 0
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    files = online.files(REPO)
    assert {"model.safetensors", "modeling_stlm.py", "configuration_stlm.py", "tokenizer.json"} <= set(files)
    assert {"config.yaml", "plan.parquet", "figures/recall.png", "facts/bank.json"} <= set(files)
    assert not [name for name in files if "checkpoint" in name or name.endswith((".bin", ".pt", ".pth"))]
    assert all(b"hf_owner" not in data for data in files.values())

    metadata, body = read_card(files["README.md"])
    assert metadata["library_name"] == "transformers"
    assert metadata["license"] == "mit"
    results = metadata["model-index"][0]["results"]
    recall = json.loads((run / "summary.json").read_text())["recall"]["after"]
    wanted = {
        (role, kind): round(figures["accuracy"]["mean"], 4)
        for role, kinds in recall.items()
        for kind, figures in kinds.items()
    }
    assert len(wanted) >= 6
    found = {
        (result["dataset"]["split"], result["dataset"]["config"]): [m["value"] for m in result["metrics"]]
        for result in results
    }
    assert found == {place: [value] for place, value in wanted.items()}
    bank = json.loads((run / "facts/bank.json").read_text())
    assert results[0]["dataset"]["revision"] == bank["sha256"]
    for part in (
        bank["sha256"],
        "6 exposures each",
        'from_pretrained("owner/little"',
        "stlm train RUN/config.yaml",
    ):
        assert part in body
    assert "![" in body
    assert files["figures/recall.png"] == (run / "figures/recall.png").read_bytes()


def test_a_checkpoint_goes_to_a_branch_and_its_card_says_so(run, online):
    assert main(["push", str(run / "checkpoint-8"), REPO, "--revision", "step-8", "--private"]) == 0
    files = online.files(REPO, "step-8")
    assert files["model.safetensors"] == (run / "checkpoint-8/model.safetensors").read_bytes()
    assert {"modeling_stlm.py", "tokenizer.json", "config.yaml"} <= set(files)
    _, body = read_card(files["README.md"])
    assert "the weights of checkpoint-8" in body
    assert "| memorization |" not in body  # what was measured is the final model
    assert online.repositories["model", REPO].private
    assert "model.safetensors" not in online.files(REPO, "main")


def test_a_folder_that_is_no_checkpoint_does_not_belong_to_the_run_around_it(run, online, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run / "checkpoint-8", tmp_path / "run/checkpoint-best")
    assert main(["push", str(tmp_path / "run/checkpoint-best"), REPO]) == 0
    files = online.files(REPO)
    assert "model.safetensors" in files
    assert not {"config.yaml", "plan.parquet"} & set(files)


def test_other_model_folders_keep_their_card_or_get_one(run, online, tmp_path):
    shutil.copytree(run / "checkpoint-8", tmp_path / "plain")
    assert main(["push", str(tmp_path / "plain"), REPO]) == 0
    metadata, body = read_card(online.files(REPO)["README.md"])
    assert metadata["tags"] == ["tidy-stlms"]
    assert "2 layers" in body
    assert "needs transformers 5.21 or newer" in body
    mine = '---\ntags:\n- mine\n---\n\n# My words\n\nfrom_pretrained("path/to/plain")\n'
    (tmp_path / "plain/README.md").write_text(mine)
    assert main(["push", str(tmp_path / "plain"), REPO]) == 0
    assert online.files(REPO)["README.md"].decode() == mine.replace("path/to/plain", REPO)
    assert main(["push", str(tmp_path / "plain"), REPO, "--license", "mit"]) == 0
    metadata, body = read_card(online.files(REPO)["README.md"])
    assert metadata == {"tags": ["mine"], "license": "mit"}
    assert "# My words" in body


def test_local_paths_are_no_ids_and_adapters_say_whose_they_are(tmp_path):
    from tidy_stlms.eval.report.card import _dataset_ids, plain_card

    assert _dataset_ids("simple_en_wiki") == ["wikimedia/wikipedia"]
    assert _dataset_ids("some/dataset") == ["some/dataset"]
    assert _dataset_ids("./mydata") == _dataset_ids("/data/x/y") == _dataset_ids("synthetic") == []
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    metadata, body = read_card(plain_card(tmp_path, REPO, None).encode())
    assert (metadata["library_name"], metadata["base_model"]) == ("peft", "owner/base")
    assert "a LORA adapter of `owner/base`" in body


def test_metadata_that_the_hub_refuses_is_one_line(run, online, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise ValueError('Invalid metadata in README.md.\n- "license" must be one of [...]')

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", refuse)
    assert '"license" must be one of' in error_of(capsys, ["push", str(run), REPO, "--license", "mitt"])


def test_what_cannot_be_pushed_is_one_line(run, hub, monkeypatch, tmp_path, capsys):
    hub.use(monkeypatch, tmp_path / "home", token="hf_other")
    assert "use a token that may write there" in error_of(capsys, ["push", str(run), REPO])
    hub.use(monkeypatch, tmp_path / "home", token="hf_wrong")
    assert "use a token that may write there" in error_of(capsys, ["push", str(run), REPO])
    hub.use(monkeypatch, tmp_path / "home", token=None)
    assert "hf auth login" in error_of(capsys, ["push", str(run), REPO])
    hub.use(monkeypatch, tmp_path / "home")
    assert "Repo id" in error_of(capsys, ["push", str(run), "a/b/c"])
    assert "no such folder" in error_of(capsys, ["push", str(tmp_path / "none"), REPO])
    assert "not a model" in error_of(capsys, ["push", str(tmp_path), REPO])
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in error_of(capsys, ["push", str(run), REPO])
    assert not hub.repositories


def test_training_pushes_its_checkpoints_with_their_code(tiny, online, tmp_path, capsys):
    keys = ["training.push_to_hub=true", f"training.hub_model_id={REPO}", "training.hub_always_push=true"]
    assert main(["train", *tiny("run", *keys, "model.license=mit")]) == 0
    repository = online.repositories["model", REPO]
    pushed = [(repository.messages[sha], files) for sha, files in repository.commits.items()]
    steps = [f"Training in progress, step {step}" for step in (4, 8, 12)]
    assert [message for message, _ in pushed] == ["initial commit", *steps, "End of training"]
    for message, files in pushed[1:]:
        assert {"model.safetensors", "modeling_stlm.py", "configuration_stlm.py", "tokenizer.json"} <= set(
            files
        ), message
        assert not [name for name in files if name.endswith((".bin", ".pt"))]
        assert all(b"hf_owner" not in data for data in files.values())
    weights = [files["model.safetensors"] for _, files in pushed[1:]]
    assert weights[1] == (tmp_path / "run/checkpoint-8/model.safetensors").read_bytes()
    assert weights[2] == weights[3] == (tmp_path / "run/model.safetensors").read_bytes()
    assert len(set(weights)) == 3
    assert "| memorization |" in read_card(online.files(REPO)["README.md"])[1]
    assert not (tmp_path / "run/.push").exists()


def test_a_hub_that_fails_costs_a_run_nothing(tiny, online, tmp_path, capsys, monkeypatch, caplog):
    keys = ["training.push_to_hub=true", f"training.hub_model_id={REPO}"]

    def gone(*args, **kwargs):
        raise ConnectionError("connection reset")

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", gone)
    with caplog.at_level(logging.WARNING):
        error = error_of(capsys, ["train", *tiny("run", *keys)])
    assert "the run is whole" in error
    assert f"stlm push {tmp_path / 'run'} {REPO}" in error
    assert "training goes on" in caplog.text
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 12
    assert (tmp_path / "run/model.safetensors").exists()


def test_a_run_that_may_not_push_does_not_begin(tiny, hub, monkeypatch, tmp_path, capsys):
    hub.use(monkeypatch, tmp_path / "home", token="hf_other")
    keys = ["training.push_to_hub=true", f"training.hub_model_id={REPO}"]
    assert "training.push_to_hub" in error_of(capsys, ["train", *tiny("run", *keys)])
    assert not (tmp_path / "run/config.yaml").exists()
    error = error_of(capsys, ["train", *tiny("run", "training.hub_token=hf_secret")])
    assert "training.hub_token: would be written" in error


def test_old_code_beside_the_weights_is_refreshed(run, online, tmp_path):
    shutil.copytree(run, tmp_path / "old")
    (tmp_path / "old/modeling_stlm.py").write_text("raise ImportError('made for another transformers')\n")
    (tmp_path / "old/mine.py").write_text("# of the user's own\n")
    assert main(["push", str(tmp_path / "old"), REPO]) == 0
    files = online.files(REPO)
    current = Path(modeling_stlm.__file__).parent
    for name in ("modeling_stlm.py", "configuration_stlm.py"):
        assert files[name] == (current / name).read_bytes()
    assert files["mine.py"] == b"# of the user's own\n"
    assert "made for another" in (tmp_path / "old/modeling_stlm.py").read_text()  # the folder stays as it is
