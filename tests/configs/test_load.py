"""Configs: every shipped file loads, later ones win, mistakes name the key."""

import copy
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from transformers import get_scheduler

from modeling_stlm import STLMConfig, STLMForCausalLM
from tidy_stlms import configs
from tidy_stlms.configs.checks import RANGES, check_finite, check_values
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.load import config_yaml, load_config, read_config, save_config
from tidy_stlms.configs.schema import STLMTrainingArguments

FOLDER = Path(configs.__file__).parent
RUNS = sorted([FOLDER / "quickstart.yaml", *FOLDER.glob("experiments/*.yaml")])
TOKENIZER = "tokenizer.name_or_path=t"


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_every_shipped_run_loads_and_its_model_can_be_built(file):
    config, merged = load_config([file])
    assert config.training.output_dir == f"outputs/{file.stem}"
    assert yaml.safe_load(config_yaml(merged))["training"]["max_steps"] == config.training.max_steps
    STLMConfig(vocab_size=100, **config.model.config)
    for section in ("spec", "bank"):
        named = getattr(config.facts, section)
        assert named is None or (FOLDER.parent / named).exists()


@pytest.mark.parametrize("more", [[], [FOLDER / "experiments/simple_en_wiki_inject.yaml"]])
def test_simple_wiki_is_tidys_default_model(more):
    config, _ = load_config([FOLDER / "experiments/simple_en_wiki.yaml", *more])
    model = STLMForCausalLM(STLMConfig(vocab_size=50257, **config.model.config))
    assert round(model.num_parameters() / 1e6, 2) == 49.86


def test_simple_wiki_with_injection_is_the_same_run_with_facts():
    plain = FOLDER / "experiments/simple_en_wiki.yaml"
    facts = FOLDER / "experiments/simple_en_wiki_inject.yaml"
    without, with_facts = (
        yaml.safe_load(config_yaml(load_config(files)[1])) for files in ([plain], [plain, facts])
    )
    assert with_facts["training"].pop("output_dir") == "outputs/simple_en_wiki_inject"
    assert without["training"].pop("output_dir") == "outputs/simple_en_wiki"
    changed = {section for section in without if without[section] != with_facts[section]}
    assert changed == {"facts", "injection", "evaluation"}


def test_local_text_has_about_ten_million_parameters_and_quickstart_leaves_head_dim_unset():
    config, _ = load_config([FOLDER / "experiments/local_text.yaml"])
    assert config.injection.exposures
    model = STLMForCausalLM(STLMConfig(vocab_size=50257, **config.model.config))
    assert 9e6 < model.num_parameters() < 11e6
    assert "head_dim" not in load_config([FOLDER / "quickstart.yaml"])[0].model.config


def write(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_later_files_win_and_the_command_line_wins_over_all(tmp_path):
    first = write(tmp_path, "a.yaml", "training: {max_steps: 1, seed: 1}\ntokenizer: {name_or_path: t}")
    second = write(tmp_path, "b.yaml", "training: {max_steps: 2, seed: 2}")
    config, merged = load_config([first, second], ["training.seed=3"])
    assert (config.training.max_steps, config.training.seed) == (2, 3)
    assert config.training.output_dir == "outputs/b"
    again = write(tmp_path, "c.yaml", config_yaml(merged))  # what a run saves loads as the same run
    assert config_yaml(load_config([again])[1]) == config_yaml(merged)


MISTAKES = [
    (
        ["training.learnign_rate=1"],
        "training.learnign_rate: no such key; did you mean training.learning_rate?",
    ),
    (
        ["training.max_step=20"],
        "training.max_step: no such key; did you mean training.max_steps?",
    ),
    (["modle.config.x=1"], "modle: no such key; did you mean model?"),
    (["zzz=1"], "zzz: no such key; the sections are model, tokenizer"),
    (["data.zzz=1"], "data.zzz: no such key; see `stlm train --keys data`"),
    (["training.max_steps=many"], "command line: training.max_steps='many': must be a whole number"),
    (["training=3"], "command line: training=3: must be a mapping of keys"),
    (["model.config=[1]"], "model.config=[1]: must be a mapping of keys"),
    (
        ["injection.strategy=middle"],
        "injection.strategy='middle': must be one of uniform, random, start, end",
    ),
    (["injection.window=2"], "injection.window=2.0: must be at least 0.0 and at most 1.0"),
    (
        ["training.eval_strategy=sometimes"],
        "training.eval_strategy='sometimes': must be one of no, steps, epoch",
    ),
    (["training.train_sampling_strategy=random"], "training.train_sampling_strategy='random': must stay"),
    (["training.seed=${oc.env:HOME}"], "resolvers are not allowed"),
    (["facts.spec=a", "facts.bank=b"], "facts: give bank"),
    (["injection.exposures=1", "injection.fraction=0.1"], "injection: give exposures or fraction"),
    (["model.name_or_path=a", "model.config.x=1"], "model: give name_or_path"),
    (
        ["model.name_or_path=a", "tokenizer.name_or_path=null", "tokenizer.train.vocab_size=300"],
        "tokenizer: the model at model.name_or_path has its own; set tokenizer.train=null",
    ),
    (["tokenizer.train.vocab_size=300"], "tokenizer: give one of name_or_path, train and bytes"),
    (["model.type=stlm_byte"], "tokenizer: a byte model (model.type=stlm_byte) reads bytes"),
    (
        ["model.type=gpt_2"],
        "model.type='gpt_2': not a causal language model of transformers; did you mean gpt2?",
    ),
    (["dropout.schedule=square"], "dropout.schedule='square': must be one of constant, linear, triangle"),
    (["dropout.end=1.0"], "dropout.end=1.0: must be at least 0.0 and at most 0.99"),
    (["injection.arms.once=-1"], "injection.arms.once=-1: must be at least 0"),
    (
        ["training.per_device_train_batch_size=0"],
        "training.per_device_train_batch_size=0: must be at least 1",
    ),
    (["training.seed=-1"], "training.seed=-1: must be at least 0"),
    (["training.save_only_model=true"], "training.save_only_model=True: must stay False"),
    (["data.train_files=a.txt"], "data.train_files: is only read with data.name=files"),
    (["evaluation.prompts=[{sentence: a, anser: b}]"], "evaluation.prompts[0].anser: no such key"),
    (["evaluation.prompts=[{answer: b}]"], "evaluation.prompts[0].sentence: is missing"),
    (["evaluation.prompts=[{sentence: a, joint: '-'}]"], "evaluation.prompts[0].joint='-': must be \"\""),
    (["training.accelerator_config.split_batches=true"], "training.accelerator_config: split_batches"),
    (["data.validation_fraction=0"], "data.validation_fraction=0: give data.validation_files"),
    (["data.split=validation"], "data.split: is only for datasets of the Hub"),
    (["data.separator='  '"], "data.separator='  ': must be one line of text"),
    (
        ["data.separator='<|endoftext|>'", "data.documents=line"],
        "data.separator='<|endoftext|>': is only used with data.documents=block",
    ),
    (["nonsense"], "'nonsense': expected section.key=value"),
    (["training.max_steps=1.5"], "training.max_steps=1.5: must be a whole number"),
    (["training.max_steps=null"], "training.max_steps=null: must be a whole number"),
    ([r"training.bf16='\${x}'"], "training.bf16='${x}': must be true or false"),
    (["training.bf16=maybe"], "training.bf16='maybe': must be true or false"),
    (["data.name=[a]"], "data.name=['a']: must be a text"),
    (["data.train_files=[a, [b]]"], "data.train_files[1]=['b']: must be a text"),
    (["data.train_files={a: b}"], "data.train_files={'a': 'b'}: must be a list of texts or a text"),
    (["injection.arms={a: b}"], "injection.arms.a='b': must be a whole number"),
    (["evaluation.prompts=[a]"], "evaluation.prompts[0]='a': must be a mapping of keys"),
    (["evaluation.prompts=[{sentence: null}]"], "evaluation.prompts[0].sentence=null: must be a text"),
    (["tokenizer=null"], "tokenizer=null: must be a mapping of keys"),
    (["model.config.hidden_size=???"], "model.config.hidden_size: is missing; give a value"),
    (["training.max_steps=${data.text_column}"], "training.max_steps='text': must be a whole number"),
    (["training.max_steps=${data.nothing}"], "training.max_steps: ${data.nothing}: there is no such key"),
    (["model=${model}"], "model: refers to itself"),
    (["logging.group=oc.env", "logging.project=${${logging.group}:HOME}"], "resolvers are not allowed"),
    (["facts.overrides.name=${oc.env:HOME}"], "facts.overrides.name: ${oc.env:HOME}: resolvers"),
    (["training.output_dir=' '"], "training.output_dir=' ': is empty"),
    ([f"facts.bank={'x' * 300}"], "is too long for a file name"),
    ([f"data.name={'x/' * 1000}"], "is too long for a file name"),
    (["training.optim=adam_w"], "training.optim='adam_w': must be one of adamw_torch"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[m[0][0][:60] for m in MISTAKES])
def test_mistakes_name_the_key(overrides, message):
    with pytest.raises(UserError) as error:
        load_config([], [TOKENIZER, *overrides])
    assert message in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


@pytest.fixture(scope="module")
def values():
    _, merged = load_config([FOLDER / "quickstart.yaml"])
    return yaml.safe_load(config_yaml(merged))


@pytest.mark.parametrize("key", RANGES)
def test_a_number_outside_its_range_is_named(values, key):
    *sections, name = key.split(".")
    for value in (math.nan, math.inf, -math.inf, -2, 10**59):
        changed = copy.deepcopy(values)
        changed["injection"]["exposures"] = None  # contradicts injection.fraction
        section = changed
        for part in sections:
            section = section[part]
        section[name] = {"an_arm": value} if name == "arms" else value
        with pytest.raises(UserError, match=re.escape(key)) as error:
            check_values(changed)
        assert "must be" in str(error.value)
    check_values(values)


def test_numbers_that_are_not_finite_are_named(values):
    for value in (".nan", "'nan'", ".inf", "1e400"):
        with pytest.raises(UserError, match=r"training.learning_rate=(nan|inf): must be a finite number"):
            load_config([], [f"training.learning_rate={value}"])
    check_finite({"model": {"config": {"time_step_limit": [0.0, math.inf]}}})
    for changed in ({"model": {"config": {"a": [math.nan]}}}, {"facts": {"overrides": {"a": math.inf}}}):
        with pytest.raises(UserError, match=r"\ba(\[0\])?=(nan|inf): must be a finite number"):
            check_finite(changed)


def test_a_watched_prompt_may_say_its_joint():
    prompts = "[{sentence: de l, answer: eau, joint: ''}, {sentence: du, answer: vin}]"
    config, _ = load_config([], [TOKENIZER, f"evaluation.prompts={prompts}"])
    assert config.evaluation.prompts == [
        {"sentence": "de l", "answer": "eau", "joint": ""},
        {"sentence": "du", "answer": "vin"},
    ]


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "just words\n", "training: {seed: 1, seed: 2}\n"])
def test_a_broken_file_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"bad.yaml(, line \d)?: "):
        load_config([write(tmp_path, "bad.yaml", text)])


def test_what_a_run_saves_is_read_as_the_same_values(tmp_path):
    texts = [
        r"logging.project='a \${b} \\${data.name}'",
        "logging.group='12:30'",
        "logging.tags=['1e3', 'no']",
    ]
    config, merged = load_config([], [TOKENIZER, *texts, "training.seed=${data.context_window}",
                                      "data.context_window=77"])  # fmt: skip
    assert (config.logging.project, config.training.seed) == (r"a ${b} \synthetic", 77)
    save_config(merged, tmp_path / "config.yaml")
    again, merged_again = load_config([tmp_path / "config.yaml"])
    assert again.logging == config.logging
    assert config_yaml(merged_again) == config_yaml(merged)
    assert read_config(tmp_path / "config.yaml")["logging"] == asdict(config.logging)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: 3", "config.yaml: model=3: must be a mapping of keys"),
        ("model: {name_or_path: [a]}", "config.yaml: model.name_or_path=['a']: must be a text"),
        ("training: []", "config.yaml: training=[]: must be a mapping of keys"),
        (
            "data: {name: '${oc.env:HOME}'}",
            "config.yaml: data.name: ${oc.env:HOME}: resolvers are not allowed",
        ),
        ("7", "config.yaml: must hold the sections of a run's config"),
    ],
)
def test_a_damaged_saved_config_is_named(tmp_path, text, message):
    file = write(tmp_path, "config.yaml", text)
    with pytest.raises(UserError) as error:
        read_config(file)
    assert message in str(error.value)


def test_a_saved_config_may_lack_keys_and_hold_training_keys_of_other_versions(tmp_path):
    file = write(tmp_path, "config.yaml", "training: {of_another_version: 1}")
    values = read_config(file)
    assert values["training"] == {"of_another_version": 1}
    assert values["model"]["name_or_path"] is None


def test_a_default_model_is_the_name_of_a_file(tmp_path):
    for value in ("[a]", "${oc.env:HOME}", "{a: 1}", "3"):
        with pytest.raises(UserError, match="default_model: "):
            load_config([write(tmp_path, "a.yaml", f"default_model: {value}")])


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"a: \xe9", b"3", b"[1]", b"# nothing"])
def test_files_without_sections_are_named(tmp_path, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"bad.yaml: (not UTF-8|must hold sections)"):
        load_config([tmp_path / "bad.yaml"])


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere.yaml: no such file"):
        load_config(["nowhere.yaml"])


def test_training_arguments_of_ours_are_the_trainers_own(tmp_path):
    arguments = STLMTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert arguments.report_to == []
    assert arguments.disable_tqdm  # no terminal here


SCHEDULES = {
    "constant": None,
    "constant_with_warmup": None,
    "linear": None,
    "cosine": None,
    "cosine_with_restarts": None,
    "polynomial": None,
    "inverse_sqrt": None,
    "cosine_with_min_lr": {"min_lr_rate": 0.1},  # the default, and its arguments
    "warmup_stable_decay": {"num_decay_steps": 4, "decay_type": "linear"},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.2},
}


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_brings_its_own_arguments_only(schedule, file, tmp_path):
    """The default's arguments do not outlive a change of the schedule, nor mix with others that are given."""
    wanted, default = SCHEDULES[schedule], schedule == "cosine_with_min_lr"
    given = [f"training.lr_scheduler_kwargs={json.dumps(wanted)}"] if wanted and not default else []
    config, merged = load_config([file], [f"training.lr_scheduler_type={schedule}", *given])
    assert config.training.lr_scheduler_kwargs == wanted
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    made = get_scheduler(schedule, optimizer, 2, 10, config.training.lr_scheduler_kwargs)
    rates = []
    for _ in range(10):
        optimizer.step()
        rates.append(made.get_last_lr()[0])
        made.step()
    assert all(0 <= rate <= 1 for rate in rates)
    save_config(merged, tmp_path / "config.yaml")  # as a run does, whose config is loaded again
    again, _ = load_config([tmp_path / "config.yaml"])
    assert again.training.lr_scheduler_kwargs == wanted


def test_arguments_of_another_schedule_are_named(tmp_path):
    (tmp_path / "own.yaml").write_text("training: {lr_scheduler_kwargs: {min_lr_rate: 0.2}}")
    config, _ = load_config([tmp_path / "own.yaml"])
    assert config.training.lr_scheduler_kwargs == {"min_lr_rate": 0.2}
    for schedule, takes in (("linear", "takes none"), ("polynomial", "takes lr_end, power")):
        message = rf"lr_scheduler_kwargs.min_lr_rate: the schedule {schedule} {takes}; set"
        with pytest.raises(UserError, match=message):
            load_config([tmp_path / "own.yaml"], [f"training.lr_scheduler_type={schedule}"])


def test_arguments_that_a_schedule_needs_are_named():
    needed = "lr_scheduler_kwargs.num_decay_steps: the schedule warmup_stable_decay needs it; it takes"
    with pytest.raises(UserError, match=needed):
        load_config([FOLDER / "quickstart.yaml"], ["training.lr_scheduler_type=warmup_stable_decay"])


OLD = "training: {lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {min_lr_rate: 0.1}}"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.lr_scheduler_type=linear"], None),
        (
            [
                "training.lr_scheduler_type=warmup_stable_decay",
                "training.lr_scheduler_kwargs.num_decay_steps=4",
            ],
            {"num_decay_steps": 4},
        ),
        (["training.lr_scheduler_kwargs={min_lr: 1.0e-5}"], {"min_lr": 1e-5}),
        (["training.lr_scheduler_kwargs.num_cycles=0.25"], {"min_lr_rate": 0.1, "num_cycles": 0.25}),
        (["training.lr_scheduler_type=reduce_lr_on_plateau"], None),
    ],
)
@pytest.mark.parametrize("file", [OLD, "training: {}"], ids=["an older run's config", "the default"])
def test_the_default_that_older_configs_hold_outlives_no_change(tmp_path, file, overrides, expected):
    (tmp_path / "own.yaml").write_text(file + "\nmodel: {}\n")
    config, _ = load_config([tmp_path / "own.yaml"], overrides)
    assert config.training.lr_scheduler_kwargs == expected
