"""`stlm info`: figures of configs, run folders and models, and the sizes that are shipped."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from modeling_stlm import STLMConfig
from tidy_stlms.configs.load import load_config
from tidy_stlms.scripts.info import main

CONFIGS = Path(__file__).parent.parent.parent / "configs"
SIZES = sorted(path.stem for path in (CONFIGS / "models").glob("*.yaml"))
# every size says these, so that nothing of a file in front of it shows through
SHAPE = {
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
}


def figures(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_sizes_are_there():
    assert set(SIZES) >= {"stlm_10m", "stlm_50m", "stlm_100m", "gpt2_small", "ffn_shared_50m"}


@pytest.mark.parametrize("size", [size for size in SIZES if not size.startswith("byte")])
def test_sizes_have_the_parameters_that_their_first_line_states(size, capsys):
    path = CONFIGS / "models" / f"{size}.yaml"
    stated = int(re.match(r"# ([\d,]+) parameters", path.read_text()).group(1).replace(",", ""))
    assert figures(capsys, str(path))["total"] == stated
    millions = int(re.search(r"(\d+)m$", size.replace("gpt2_small", "124m")).group(1))
    assert abs(stated / 1e6 - millions) < 0.02 * millions
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["model"]
    assert set(content["model"]["config"]) >= SHAPE


def test_the_byte_model_has_the_parameters_that_its_first_line_states(capsys):
    path = "configs/models/byte_10m.yaml"
    assert (
        re.match(r"# ([\d.]+)M parameters", (CONFIGS / "models/byte_10m.yaml").read_text()).group(1) == "10.1"
    )
    found = figures(capsys, path)
    assert found["total"] == 10_136_640
    assert found["vocabulary"] == {"size": 258, "source": "bytes"}
    assert main([path]) == 0
    assert "training FLOPs a byte: 23.25 M in rows of 1,024, for words of 5 bytes" in capsys.readouterr().out


def test_the_default_size_is_the_default_model(capsys):
    content = yaml.safe_load((CONFIGS / "models/stlm_50m.yaml").read_text())
    assert STLMConfig(**content["model"]["config"]).to_dict() == STLMConfig().to_dict()


def test_gpt2_small_has_the_parts_of_gpt2(capsys, tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    gpt2 = figures(capsys, str(tmp_path))
    ours = figures(capsys, "configs/models/gpt2_small.yaml")
    for key in ("parameters", "total", "training_flops_per_token", "cache_bytes_per_token", "context_window"):
        assert ours[key] == gpt2[key]


def test_the_experiment_of_gpt2_small_trains_that_size():
    experiment, _ = load_config([CONFIGS / "experiments/gpt2_small.yaml"])
    size = yaml.safe_load((CONFIGS / "models/gpt2_small.yaml").read_text())["model"]["config"]
    assert experiment.model.config == size
    assert (experiment.dropout.schedule, experiment.dropout.start) == ("constant", 0.1)
    assert experiment.data.name == "wikitext-103"


@pytest.mark.parametrize("more", [[], ["configs/experiments/simple_en_wiki_inject.yaml"]])
def test_a_size_in_front_of_an_experiment_is_what_it_trains(more, capsys):
    files = ["configs/experiments/simple_en_wiki.yaml", *more]
    assert figures(capsys, *files)["total"] == 49_857_536
    assert figures(capsys, "configs/models/stlm_10m.yaml", *files)["total"] == 10_040_000


def test_figures_of_a_run_folder_are_those_of_its_model(run, capsys):
    found = figures(capsys, str(run))
    model = AutoModelForCausalLM.from_pretrained(run)
    assert found["total"] == sum(found["parameters"].values()) == model.num_parameters()
    assert found["context_window"] == 64
    # no weights are read
    (run / "model.safetensors").rename(run / "hidden")
    try:
        assert figures(capsys, str(run)) == found
    finally:
        (run / "hidden").rename(run / "model.safetensors")


def test_figures_of_another_architecture(tmp_path, capsys):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4))
    model.save_pretrained(tmp_path)
    assert figures(capsys, str(tmp_path))["total"] == model.num_parameters()
    # and of a run that goes on training it
    (tmp_path / "run.yaml").write_text(f"model: {{name_or_path: {tmp_path}}}\ndata: {{context_window: 16}}")
    found = figures(capsys, str(tmp_path / "run.yaml"))
    assert found["total"] == model.num_parameters()
    assert found["context_window"] == 16


@pytest.mark.parametrize(
    ("overrides", "size", "source"),
    [
        (["tokenizer.train.vocab_size=300"], 300, "tokenizer.train.vocab_size"),
        (["model.config.vocab_size=400"], 400, "model.config.vocab_size"),
        (["tokenizer.bytes=true"], 258, "bytes"),
        (["tokenizer.name_or_path={run}"], None, "the tokenizer {run}"),
        (["tokenizer.name_or_path=some/where"], 50257, "assumed, since the tokenizer some/where is not"),
    ],
)
def test_the_vocabulary_and_where_it_is_from_are_said(run, tmp_path, capsys, overrides, size, source):
    config = tmp_path / "model.yaml"
    config.write_text("model: {config: {hidden_size: 32, num_hidden_layers: 2}}")
    found = figures(capsys, str(config), *[item.format(run=run) for item in overrides])
    if size is None:
        size = AutoModelForCausalLM.from_pretrained(run).config.vocab_size
    assert found["vocabulary"]["size"] == size
    assert source.format(run=run) in found["vocabulary"]["source"]
    assert found["parameters"]["embeddings"] == size * 32


def test_the_table_shows_the_same(capsys):
    assert main(["configs/models/stlm_10m.yaml", "model.config.num_ffn_groups=1"]) == 0
    shown = capsys.readouterr().out
    assert "configs/models/stlm_10m.yaml model.config.num_ffn_groups=1" in shown
    for text in ("feed-forward", "230,400", "8,888,000", "35.55 MB in float32", "66.13 M in rows of 512"):
        assert text in shown  # shared feed-forwards: fewer parameters, as many operations


def test_mistakes_exit_2_with_one_line(tmp_path, capsys):
    LlamaConfig().save_pretrained(tmp_path)
    (tmp_path / "adapter").mkdir()
    adapter = {"base_model_name_or_path": str(tmp_path)}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(adapter))
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "adapter/adapter_model.safetensors").touch()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/config.json").write_text('{"model_type": "strange"}')
    (tmp_path / "run.yaml").write_text(f"model: {{name_or_path: {tmp_path}}}\ndata: {{context_window: 4096}}")
    config = "configs/models/stlm_10m.yaml"
    for arguments, expected in (
        (["configs/models/nothing.yaml"], "no such file"),
        ([config, "model.config.hidden_sise=3"], "model.config.hidden_sise: no such key"),
        ([config, "model.config.hidden_size=7"], "`hidden_size` (7) is not a multiple"),
        ([config, "model.config.rope_parameters={rope_type: zz}"], "`rope_parameters.rope_type` is 'zz'"),
        ([config, "model.config.rope_parameters={rope_type: yarn}", "model.config.head_dim=32"], "'factor'"),
        ([config, "data.context_window=4096"], "the model reads at most 512 tokens"),
        (
            [str(tmp_path / "run.yaml")],
            "the model reads at most 2048 tokens",
        ),
        ([config, "model.config.hidden_act=learned"], "`hidden_act` is 'learned'"),
        ([str(tmp_path / "nothing")], "not a model"),
        ([str(tmp_path), config], "give YAML files"),
        ([str(tmp_path), "model.config.hidden_size=8"], "give YAML files"),
        ([str(tmp_path / "adapter")], "an adapter; give its base model"),
        ([str(tmp_path / "strange")], "its config cannot be read"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_a_model_folder_does_not_lend_its_code_to_the_command(tmp_path):
    """`python -m` would look for modules in the working folder first, and a model's folder holds some."""
    config = STLMConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_key_value_heads=None)
    config.save_pretrained(tmp_path)
    for name in ("modeling_stlm", "configuration_stlm", "torch", "yaml"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    command = [sys.executable, "-m", "tidy_stlms.scripts", "info", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "embeddings" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_fields_that_hold_a_list_leave_a_number_unknown(tmp_path, capsys):
    """As in models whose layers differ."""
    GPT2Config(n_layer=1, n_embd=8, n_head=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"head_dim": [4, 4]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert figures(capsys, str(tmp_path))["cache_bytes_per_token"] is not None
    config |= {"num_key_value_heads": [1, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert figures(capsys, str(tmp_path))["total"] > 0
