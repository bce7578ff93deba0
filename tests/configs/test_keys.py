"""Names of keys from the sources: those of the classes, told before anything heavy is imported."""

import dataclasses
import subprocess
import sys

import pytest
from transformers import PreTrainedConfig, TrainingArguments

from modeling_stlm import STLMByteConfig, STLMConfig
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.keys import check_model_keys, check_names, describe_keys, model_fields
from tidy_stlms.configs.schema import RunConfig, STLMTrainingArguments
from tidy_stlms.configs.source_fields import classes_in_source, fields_in_source, package_folder


def names_of(dataclass):
    return {field.name for field in dataclasses.fields(dataclass) if not field.name.startswith("_")}


def test_the_sources_show_the_names_that_the_classes_have():
    source = classes_in_source(package_folder("transformers") / "training_args.py")["TrainingArguments"]
    assert {field.name for field in fields_in_source(source)} == names_of(TrainingArguments)
    check_names({"training": dict.fromkeys(names_of(STLMTrainingArguments))}, "f")
    for field in dataclasses.fields(RunConfig):
        if field.name != "training":
            check_names({field.name: dict.fromkeys(names_of(field.type))}, "f")
    of_transformers = names_of(PreTrainedConfig) - {"dtype"}
    assert set(model_fields("stlm")) == names_of(STLMConfig) - of_transformers
    assert set(model_fields("stlm_byte")) == names_of(STLMByteConfig) - of_transformers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"training": {"max_step": 3}},
            "f: training.max_step: no such key; did you mean training.max_steps?",
        ),
        ({"training": {"warmup_step": 3}}, "did you mean training.warmup_steps?"),
        ({"training": {"bf_16": True}}, "did you mean training.bf16?"),
        ({"data": {"train_file": "a"}}, "did you mean data.train_files?"),
        ({"evaluation": {"recal_steps": 3}}, "did you mean evaluation.recall_steps?"),
        ({"trianing": {"max_steps": 3}}, "f: trianing: no such key; did you mean training?"),
        ({"training": {"context_window": 3}}, "did you mean data.context_window?"),
        ({"model": {"hidden_size": 3}}, "did you mean model.config.hidden_size?"),
        (
            {"tokenizer": {"vocab_size": 3}},
            "did you mean tokenizer.train.vocab_size or model.config.vocab_size?",
        ),
        ({"tokenizer": {"train": {"vocab": 3}}}, "did you mean tokenizer.train.vocab_size?"),
        ({"max_steps": 3}, "f: max_steps: no such key; did you mean training.max_steps?"),
        ({"zzz": 3}, "f: zzz: no such key; the sections are model, tokenizer"),
        ({"x" * 10**5: 3}, "no such key"),
    ],
)
def test_a_wrong_key_gets_the_nearest_right_one(values, message):
    with pytest.raises(UserError) as error:
        check_names(values, "f")
    assert message in str(error.value)
    assert len(str(error.value)) < 300


def test_fields_of_the_model_too():
    check_model_keys("gpt2", {"anything": 3})  # the sources of other types are not read
    with pytest.raises(
        UserError, match=r"model.config.hiden_size: no such key; did you mean model.config.hidd"
    ):
        check_model_keys("stlm", {"hiden_size": 3})


@pytest.mark.parametrize("key", ["training.max_step=3", "model.config.hiden_size=3", "data.train_file=a"])
def test_a_wrong_key_is_named_before_transformers_is_imported(key):
    code = (
        "import sys\n"
        "from tidy_stlms.scripts.__main__ import main\n"
        f"assert main(['train', 'configs/quickstart.yaml', {key!r}]) == 2\n"
        "print(*[name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no such key; did you mean" in done.stderr
    assert done.stdout.strip() == ""


def test_every_listed_key_has_a_meaning_and_a_default():
    lines = describe_keys().splitlines()
    keys = [number for number, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    assert [lines[n] for n in keys if not lines[n + 1].startswith("      ")] == []
    assert "  facts.overrides: dict[str, Any] = {}" in lines
    assert "  logging.tags: list[str] = []" in lines
    assert not [line for line in lines if len(line) > 115]
