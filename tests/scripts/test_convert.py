"""`stlm convert` as users of Tidy-STLMs meet it."""

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from modeling_stlm.tidy.architecture import FIELDS, FIXED, leaves
from tests.configs.test_tidy import FULL
from tests.modeling_stlm.tidy_reference import TidyModel, tidy_config
from tidy_stlms.configs.load import load_config
from tidy_stlms.eval.models.load import load_model
from tidy_stlms.scripts.convert import main


@pytest.fixture
def checkpoint(tmp_path):
    config = tidy_config(model__vocab_size=260)
    torch.manual_seed(0)
    content = {
        "model": TidyModel(config["model"]).state_dict(),
        "config": OmegaConf.create(config),
        "iter_num": 5,
    }
    torch.save(content, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_a_checkpoint_with_its_own_tokenizer(checkpoint, tmp_path, capsys):
    (tmp_path / "bpe_wiki_260.model").write_text("97 98\n256 99\n")
    out = tmp_path / "models/out"
    assert main(["tidy", str(checkpoint), str(out), "--tokenizer", str(tmp_path / "bpe_wiki_260.model")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"{out}: converted from {checkpoint}" in printed.out
    model, tokenizer = load_model(out, device="cpu")
    assert tokenizer("abcab")["input_ids"] == [257, 256]
    assert (model.config.pad_token_id, model.config.eos_token_id) == (258, 259)
    generated = model.generate(**tokenizer("ab", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert generated.shape[1] <= 4


def test_without_a_tokenizer_it_warns_once_and_converts(checkpoint, tmp_path, capsys):
    assert main(["tidy", str(checkpoint), str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stlm: warning: no tokenizer")
    assert (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize(
    "arguments", [["missing.pt", "out"], ["a.pt", "."], ["a.pt", "out", "--tokenizer", "b.model"]]
)
def test_mistakes_are_one_line_and_exit_code_2(checkpoint, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.model").write_text("no pairs\n")
    before = sorted(tmp_path.rglob("*"))
    assert main(["tidy", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stlm: error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_is_written_and_what_is_missing_is_said(tmp_path, capsys):
    (tmp_path / "full.yaml").write_text(FULL)
    assert main(["tidy-config", str(tmp_path / "full.yaml"), str(tmp_path / "ours.yaml")]) == 0
    printed = capsys.readouterr().out
    run, _ = load_config([tmp_path / "ours.yaml"])
    assert run.model.config["num_key_value_heads"] == 4
    assert run.model.config["position_embedding_type"] == "rotary"
    assert (run.training.max_steps, run.training.learning_rate) == (30000, 6e-4)
    assert "  trainer.eval[0].benchmarks: " in printed.partition("different here:")[2]
    for key in ("general.paths.data_dir", "trainer.inject.inject_data"):
        assert f"  {key}: " in printed.partition("not carried over:")[2]
    assert main(["tidy-config", str(tmp_path / "full.yaml"), str(tmp_path / "ours.yaml")]) == 2


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "full.yaml").write_text(FULL)
    assert main(["tidy-config", str(tmp_path / "full.yaml"), str(tmp_path / "full.yaml/ours.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"stlm: error: {tmp_path / 'full.yaml/ours.yaml'}: cannot be written")


def test_every_key_of_the_model_is_read():
    model = yaml.safe_load(FULL)["model"]
    unread = {key for key, _ in leaves(model)} - FIXED.keys() - FIELDS.keys()
    assert unread == {"embedder.tokenizer_type", "embedder.dataset_name"}


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("ffn_type: swiglu", "ffn_type: moe", "ffn_type=moe"),
        ("batch_size: 24", "batch_size: -24", "per_device_train_batch_size"),
        ("max_iters: 30000", "max_iters: 0", "max_epochs"),
        ("seed: 489", "seed: '${oc.env:HOME}'", "general.seed"),
    ],
)
def test_configs_that_cannot_be_are_refused(tmp_path, capsys, old, new, part):
    assert old in FULL
    (tmp_path / "full.yaml").write_text(FULL.replace(old, new))
    assert main(["tidy-config", str(tmp_path / "full.yaml"), str(tmp_path / "ours.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line
    assert not (tmp_path / "ours.yaml").exists()
