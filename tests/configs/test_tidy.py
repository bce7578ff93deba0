"""Configs of Tidy-STLMs become ours, and no key is lost in silence."""

import copy

import pytest
import yaml

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.load import load_config
from tidy_stlms.configs.tidy.account import leaves
from tidy_stlms.configs.tidy.convert import convert_tidy_config, read_tidy_config

# The keys of its full configs, such as simple_en_wiki with injection.
FULL = """
model:
  core_model:
    core_model_type: generic
    num_layers: 8
    ffn: {ffn_type: swiglu, ffn_dim: 1536, normalization: rms_norm, bias: false}
    attn:
      attn_type: generic
      num_heads: 16
      normalization: rms_norm
      group_size: 4
      bias: false
      is_causal: true
  embedder: {tokenizer_type: gpt2, embedding_model_type: generic, dataset_name: simple_en_wiki}
  lm_head: {normalization: rms_norm, bias: false, lm_head_type: generic}
  hidden_dim: 512
  context_window: 512
  vocab_size: 50257
  model_shell_type: standard
  embedding_weight_tying: true
  positional_encoding_type: rope
trainer:
  dropout_scheduler: {dropout_type: constant, dropout_p: 0.1}
  dataset: simple_en_wiki
  training:
    trainer_type: base_trainer
    batch_size: 24
    gradient_accumulation_steps: 20
    use_tqdm: true
    run_profiler: false
    max_iters: 30000
    lr_decay_iters: 1
    warmup_iters: 0.1
    eval_iters: 100
    eval_interval: 1000
    log_interval: 10
    injected_eval_interval: 500
    prompt_interval: 250
    checkpoint_interval: 2000
  inject:
    perform_injection: true
    inject_strategy: uniform
    num_injections: 30
    inject_data: test/inject_data.txt
    injected_prompts: test/test_cases_answers_by_type.json
  prompt:
    input_prompts:
      - {sentence: The capital of France is, answer: " Paris"}
      - {sentence: Once upon a time}
    generator: {temperature: 0.3, top_k: 10, max_new_tokens: 10, steps_to_log: 1, seed: 42}
  eval:
    - {benchmarks: [blimp, arc], num_samples: 100, evaluator: mcq}
  optimizer:
    {name: nanoGPTadamW, lr: 6e-4, min_lr: 6.0e-05, weight_decay: 0.1, beta1: 0.9, beta2: 0.95,
     grad_clip: 1.0, decay_lr: true}
  lr_scheduler: {name: cosine}
  dataloader_processor: {name: standard}
  dataloader: {name: inject}
  loss_fn: {name: cross_entropy}
general:
  logging: {wandb_log: false, wandb_project: SuperTinyLanguageModels}
  paths: {output_dir: outputs, data_dir: data, checkpoint_dir: checkpoints}
  seed: 489
  device: cuda
"""
# What the model part gives is tested with the checkpoints; here a stand-in.
FIELDS = {"vocab_size": 50257, "hidden_size": 512, "mlp_type": "gated", "num_ffn_groups": None}
MODEL_KEYS = {
    key: None if key.endswith("type") else "hidden_size"
    for key, _ in leaves(yaml.safe_load(FULL)["model"])
    if not key.startswith("embedder.") or key.endswith("model_type")
}


def convert(tmp_path, fields=FIELDS, **changes):
    """The conversion and the loaded config of FULL with `changes` by key, `__` for the dots; None removes."""
    config = changed(**changes)
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(config))
    read = read_tidy_config(tmp_path / "full.yaml")
    done = convert_tidy_config(read, fields, MODEL_KEYS, "full.yaml")
    (tmp_path / "ours.yaml").write_text(done.yaml("full.yaml"))
    return done, load_config([tmp_path / "ours.yaml"])[0]


def changed(**changes):
    config = copy.deepcopy(yaml.safe_load(FULL.replace("6e-4", "0.0006")))
    for key, value in changes.items():
        *path, last = key.split("__")
        section = config
        for name in path:
            section = section.setdefault(name, {})
        if value is None:
            section.pop(last)
        else:
            section[last] = value
    return config


def test_a_full_config_becomes_ours(tmp_path):
    done, run = convert(tmp_path)
    training = run.training
    assert (training.max_steps, training.per_device_train_batch_size) == (30000, 24)
    assert (training.gradient_accumulation_steps, training.warmup_steps) == (20, 0.1)
    assert (training.learning_rate, training.weight_decay, training.max_grad_norm) == (6e-4, 0.1, 1.0)
    assert (training.adam_beta1, training.adam_beta2, training.seed) == (0.9, 0.95, 489)
    assert training.lr_scheduler_type == "cosine_with_min_lr"
    assert training.lr_scheduler_kwargs == {"min_lr_rate": 0.1}
    assert (training.eval_steps, training.logging_steps, training.save_steps) == (1000, 10, 2000)
    assert (training.save_total_limit, training.disable_tqdm, training.report_to) == (None, False, [])
    dropouts = dict.fromkeys(("embd_dropout", "attention_dropout", "resid_dropout"), 0.1)
    assert run.model.config == {"vocab_size": 50257, "hidden_size": 512, "mlp_type": "gated", **dropouts}
    assert run.tokenizer.name_or_path == "gpt2"
    assert (run.data.name, run.data.validation_fraction) == ("simple_en_wiki", 0.1)
    assert (run.injection.enabled, run.injection.strategy, run.injection.exposures) == (True, "uniform", 30)
    assert (run.injection.placement, run.facts.bank) == ("row", "banks/test")
    assert (run.evaluation.recall_steps, run.evaluation.prompt_steps) == (500, 250)
    assert (run.evaluation.validation_rows, run.evaluation.max_new_tokens) == (2400, 10)
    assert run.evaluation.prompts == [
        {"sentence": "The capital of France is", "answer": " Paris"},
        {"sentence": "Once upon a time"},
    ]
    assert run.evaluation.benchmarks == ["blimp", "arc_easy"]
    assert (run.evaluation.benchmark_limit, run.evaluation.benchmark_steps) == (100, 1000)
    assert run.logging.project == "SuperTinyLanguageModels"
    for key in ("trainer.eval[0].benchmarks", "trainer.training.lr_decay_iters", "general.device"):
        assert key in done.changed
    assert "bfloat16" in done.changed["general.device"]
    assert set(done.left_behind) == {
        "trainer.inject.inject_data",
        "trainer.inject.injected_prompts",
        "trainer.prompt.generator.temperature",
        "trainer.prompt.generator.top_k",
        "trainer.prompt.generator.steps_to_log",
        "trainer.prompt.generator.seed",
        "general.paths.output_dir",
        "general.paths.data_dir",
        "general.paths.checkpoint_dir",
    }
    assert "data/inject/test --out banks/test" in done.left_behind["trainer.inject.inject_data"]


CHANGES = [
    {},
    {"checkpoint": "a.pt", "new": {"section": {"key": 1}}, "trainer__training__novel": [1, 2], "empty": {}},
    {"trainer__training__max_epochs": 5},
    {"trainer__training__max_iters": None, "trainer__training__max_epochs": 5},
    {"trainer__lr_scheduler__name": "constant"},
    {"trainer__lr_scheduler__name": "step"},
    {"trainer__dropout_scheduler": {"dropout_type": "strange", "a": 1}},
    {"trainer__dropout_scheduler": {"dropout_type": "linear", "start_dropout_p": 0.0, "end_dropout_p": 0.1,
                                    "start_iter": 0, "end_iter": 25000, "more": 2}},
    {"model__embedder__tokenizer_type": "bpe"},
    {"model__embedder__tokenizer_type": "byte", "model__embedder__simplify": True},
    {"trainer__dataset": "mine", "model__core_model__ffn__activation": "gelu"},
    {"trainer__inject__injection_pct": 0.1, "trainer__inject__num_injections": None},
    {"trainer__inject__injection_pct": 0.1},
    {"trainer__inject__injection_pct": 0.1, "trainer__inject__num_injections": 0},
    {"trainer__inject__perform_injection": False, "trainer__optimizer__warmup_iters": 5},
    {"trainer__eval": {"benchmarks": ["a"], "evaluator": "mcq"}},
    {"trainer__eval": []},
    {"trainer__eval": "blimp"},
    {"trainer__eval": [{"benchmarks": ["arc"], "evaluator": "mcq"}, {"evaluator": "glue", "more": ["mmlu"]}]},
    {"trainer__prompt__input_prompts": ["a", "b"]},
    {"trainer__prompt__input_prompts": ["a", 3]},
    {"trainer__dropout_scheduler": {"dropout_type": "constant", "dropout": 0.1}},
    {"general__device": "cuda:1"},
    {"trainer__loss_fn__name": "mlm", "general__device": "cpu", "trainer__optimizer__name": "lion"},
    {"trainer__prompt__input_prompts": [{"answer": "no sentence"}, {"sentence": "s", "note": "n"}]},
    {"trainer__training__eval_iters": 0, "trainer__training__log_interval": 0},
    {"trainer__training__run_profiler": True, "trainer__optimizer__decay_lr": False},
    {"trainer__training__lr_decay_iters": 20000, "trainer__training__warmup_iters": 5000},
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES)
def test_no_key_is_lost(tmp_path, changes):
    done, _ = convert(tmp_path, **changes)
    keys = {key for key, _ in leaves(changed(**changes))}
    assert done.carried.keys() | done.left_behind.keys() == keys
    assert not done.carried.keys() & done.left_behind.keys()
    assert done.changed.keys() <= done.carried.keys()
    assert all(done.left_behind.values())
    text = (tmp_path / "ours.yaml").read_text()
    for key, reason in {**done.changed, **done.left_behind}.items():
        assert f"#   {key}: {reason}" in text


def test_keys_that_nobody_knows_are_listed(tmp_path):
    done, _ = convert(tmp_path, trainer__training__novel=1, surprise={"deep": {"key": [1]}})
    assert done.left_behind["trainer.training.novel"] == "unknown here"
    assert "surprise.deep.key" in done.left_behind


def test_epochs_become_shares_of_the_run(tmp_path):
    steps = {f"trainer__training__{name}_interval": 1 for name in ("eval", "log", "injected_eval", "prompt")}
    done, run = convert(
        tmp_path,
        trainer__training__max_iters=None,
        trainer__training__max_epochs=50,
        trainer__training__checkpoint_interval=50,
        **steps,
    )
    assert (run.training.num_train_epochs, run.training.max_steps) == (50, -1)
    assert (run.training.eval_steps, run.training.logging_steps) == (0.02, 0.02)
    assert run.injection.exposures == 30 * 50
    assert run.injection.span == "pass"
    for name in ("injected_eval", "prompt", "checkpoint"):
        assert "epochs" in done.left_behind[f"trainer.training.{name}_interval"]


def test_switched_off_stays_switched_off(tmp_path):
    names = ("eval", "log", "injected_eval", "prompt", "checkpoint")
    _, run = convert(tmp_path, **{f"trainer__training__{name}_interval": 0 for name in names})
    assert (str(run.training.eval_strategy.value), str(run.training.save_strategy.value)) == ("no", "no")
    assert (run.evaluation.recall_steps, run.evaluation.prompt_steps) == (0, 0)


@pytest.mark.parametrize(("value", "expected"), [(0.05, 0.05), (0, 0.0), (5000, 5000), (1, None)])
def test_warmup_is_a_share_or_a_number_of_steps(tmp_path, value, expected):
    done, run = convert(tmp_path, trainer__training__warmup_iters=value)
    key = "trainer.training.warmup_iters"
    if expected is None:
        assert key in done.left_behind
    else:
        assert run.training.warmup_steps == expected
        assert done.carried[key] == "training.warmup_steps"
        assert (key in done.changed) is (value > 1)


@pytest.mark.parametrize(("value", "carried"), [(1, True), (30000, True), (0.5, False), (20000, False)])
def test_decay_that_ends_before_the_run_is_named(tmp_path, value, carried):
    done, _ = convert(tmp_path, trainer__training__lr_decay_iters=value)
    key = "trainer.training.lr_decay_iters"
    assert (key in done.carried) is carried
    assert (key in done.changed) is carried
    without, _ = convert(tmp_path, trainer__training__lr_decay_iters=value, trainer__training__warmup_iters=0)
    assert key not in without.changed  # the two cosines are one where there is no warm-up


def test_schedules_of_the_learning_rate(tmp_path):
    _, run = convert(tmp_path, trainer__lr_scheduler__name="constant")
    assert (run.training.lr_scheduler_type, run.training.lr_scheduler_kwargs) == ("constant", None)
    assert run.training.warmup_steps == 0
    _, run = convert(tmp_path, trainer__optimizer__min_lr=2e-4)
    assert run.training.lr_scheduler_kwargs == {"min_lr_rate": pytest.approx(1 / 3)}


def test_schedules_of_dropout(tmp_path):
    linear = {"dropout_type": "linear", "start_dropout_p": 0.0, "end_dropout_p": 0.1, "start_iter": 1,
              "end_iter": 25000}  # fmt: skip
    done, run = convert(tmp_path, trainer__dropout_scheduler=linear)
    assert (run.dropout.schedule, run.dropout.start, run.dropout.end) == ("linear", 0.0, 0.1)
    assert (run.dropout.begin, run.dropout.until) == (0, 25000)  # 1 would be the whole run
    assert "trainer.dropout_scheduler.start_iter" in done.changed
    assert "resid_dropout" not in run.model.config
    triangle = {"dropout_type": "triangle", "dropout_trough": 0.05, "dropout_peak": 0.2,
                "num_iterations": 30000, "num_cycles": 4}  # fmt: skip
    done, run = convert(tmp_path, trainer__dropout_scheduler=triangle)
    assert (run.dropout.schedule, run.dropout.start, run.dropout.end) == ("triangle", 0.05, 0.2)
    assert (run.dropout.begin, run.dropout.until, run.dropout.cycles) == (0, 30000, 4)
    key = "trainer.dropout_scheduler.num_iterations"
    assert key not in done.changed
    for change in ({"max_iters": 30001}, {"max_iters": -1, "max_epochs": 2}):
        training = {f"trainer__training__{name}": value for name, value in change.items()}
        done, _ = convert(tmp_path, trainer__dropout_scheduler=triangle, **training)
        assert "go on" in done.changed[key]


@pytest.mark.parametrize("name", ["dropout_p", "dropout"])
def test_a_constant_dropout_has_two_names(tmp_path, name):
    _, run = convert(tmp_path, trainer__dropout_scheduler={"dropout_type": "constant", name: 0.2})
    names = ("embd_dropout", "attention_dropout", "resid_dropout")
    assert [run.model.config[name] for name in names] == [0.2] * 3


def test_its_own_tokenizer_is_trained_anew(tmp_path):
    done, run = convert(tmp_path, {**FIELDS, "vocab_size": 4000}, model__embedder__tokenizer_type="bpe",
                        model__vocab_size=4000)  # fmt: skip
    assert run.tokenizer.train.vocab_size == 4000
    assert run.tokenizer.name_or_path is None
    assert "vocab_size" not in run.model.config
    assert "model.embedder.tokenizer_type" in done.changed


def test_the_names_of_its_later_versions(tmp_path):
    section = {"perform_insertion": True, "insert_strategy": "start", "insertion_pct": 0.01,
               "insert_data": "insert_data.txt", "inserted_prompts": "v6/prompts.json"}  # fmt: skip
    done, run = convert(tmp_path, trainer__inject=None, trainer__insert=section,
                        trainer__training__injected_eval_interval=None,
                        trainer__training__inserted_eval_interval=70)  # fmt: skip
    assert (run.injection.strategy, run.injection.fraction, run.injection.exposures) == ("start", 0.01, None)
    assert (run.facts.bank, run.evaluation.recall_steps) == ("banks/facts", 70)
    assert "trainer.insert.insert_strategy" in done.changed


def test_a_run_without_injection_names_no_bank(tmp_path):
    _, run = convert(tmp_path, trainer__inject__perform_injection=False)
    assert (run.injection.enabled, run.facts.bank) == (False, None)


def test_a_corpus_that_is_not_known_is_asked_for(tmp_path):
    done, run = convert(tmp_path, trainer__dataset="mine")
    assert (run.data.name, run.data.train_files) == ("files", None)
    assert "data.train_files" in done.left_behind["trainer.dataset"]
    _, run = convert(tmp_path, trainer__dataset="debug")
    assert (run.data.name, run.data.max_documents) == ("simple_en_wiki", 2048)


def test_a_key_cannot_break_out_of_its_comment(tmp_path):
    for break_ in ("\n", "\r", "\x85", "\u2028"):
        done, run = convert(tmp_path, **{f"x{break_}model": 1})
        assert len(done.left_behind) == 10
        assert run.model.config["hidden_size"] == 512
        evaluator = {"evaluator": "mcq", "benchmarks": ["arc", f"x{break_}model: 1"]}
        assert convert(tmp_path, trainer__eval=evaluator)[1].model.config["hidden_size"] == 512


@pytest.mark.parametrize("value", ["${oc.env:SECRET}", ["a", "${general.seed}"], {"b": "${oc.env:SECRET}"}])
def test_interpolations_are_refused_and_not_resolved(tmp_path, monkeypatch, value):
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(UserError) as error:
        convert(tmp_path, general__note=value)
    assert "general.note" in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model: [", "not valid YAML"),
        ("model: !!python/object/apply:os.mkdir [ran]", "not valid YAML"),
        ("a\n", "no full config"),
        ("- 1\n", "no full config"),
        ("defaults: [_self_]\n", "no full config"),
        ("", "no full config"),
        ("model: 3\n", "no full config"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, monkeypatch, text, part):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=part) as error:
        read_tidy_config(tmp_path / "a.yaml")
    assert str(error.value).startswith(str(tmp_path / "a.yaml"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_number_that_is_none_is_named(tmp_path):
    for key in ("trainer__training__batch_size", "trainer__optimizer__lr", "trainer__inject__num_injections"):
        with pytest.raises(UserError, match=f"full.yaml: {key.replace('__', '.')}=many: must be a number"):
            convert(tmp_path, **{key: "many"})


def test_a_run_needs_a_length(tmp_path):
    for change in ({"max_iters": None}, {"max_iters": 0}, {"max_iters": -1, "max_epochs": 0}):
        training = {f"trainer__training__{name}": value for name, value in change.items()}
        with pytest.raises(UserError, match="max_iters or max_epochs must be positive"):
            convert(tmp_path, **training)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"trainer": [1, 2]}, "trainer: must be a section"),
        ({"general": "cuda"}, "general: must be a section"),
        ({"trainer__optimizer__lr": float("nan")}, "trainer.optimizer.lr=nan: must be a finite number"),
        ({"trainer__dropout_scheduler__start_dropout_p": float("inf")}, "start_dropout_p=inf"),
    ],
)
def test_values_that_nothing_can_be_made_of_are_named(tmp_path, changes, part):
    with pytest.raises(UserError, match=f"full.yaml: .*{part}|full.yaml: {part}"):
        convert(tmp_path, **changes)


def test_configs_that_hydra_nests_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"full_configs": yaml.safe_load(FULL)}))
    assert read_tidy_config(tmp_path / "a.yaml")["model"]["hidden_dim"] == 512
