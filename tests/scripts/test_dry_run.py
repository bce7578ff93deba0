"""`stlm train --dry-run`, and the checks that training makes first."""

import pytest

from tests.scripts.conftest import fails
from tidy_stlms.scripts.__main__ import main


def test_dry_run_prints_the_resolved_config(tiny, tmp_path, capsys):
    assert main(["train", *tiny("new", "training.seed=5"), "--dry-run"]) == 0
    assert "seed: 5" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.config.hiden_size=3"], "did you mean model.config.hidden_size?"),
        (["model.config.hidden_size=131"], "model.config: `hidden_size`"),
        ([f"model.config.num_hidden_layers={10**59}"], "at most 2,000 can be built"),
        (["model.config.hidden_size=80000000"], "billion parameters, more than 100 billion"),
        (
            ["model.config.attention_dropout=.nan"],
            "model.config.attention_dropout=nan: must be a finite number",
        ),
        (["model.type=gpt2", "model.config=null", "model.config.n_head=7"], "model.config: "),
        (
            ["model.config=null", "tokenizer.train=null", "model.name_or_path=nowhere/at/all"],
            "nowhere/at/all: not a model",
        ),
        (["data.context_window=100000"], "data.context_window=100000: the model reads at most"),
        (["data.name=files", "data.train_files=nowhere.txt"], "data.train_files: nowhere.txt: no such file"),
        (["data.validation_files=nowhere.txt"], "data.validation_files: nowhere.txt: no such file"),
        (["data.name=./my texts"], "data.name='./my texts': must be files, synthetic"),
        (["data.name=./absent"], "data.name='./absent': must be files, synthetic"),
        (["training.report_to=flyte"], "training.report_to=['flyte']: "),
        (["training.dataloader_persistent_workers=true"], "training.dataloader_persistent_workers: needs"),
        (["training.metric_for_best_model=loss"], "training.metric_for_best_model='loss': must stay None"),
        (["training.save_strategy=best"], "training.save_strategy=best: not supported"),
        (["training.logging_strategy=no"], "training.logging_strategy=False: must be one of 'no', 'steps'"),
        (["training.torch_compile=true", "training.torch_compile_mode=x"], "training.torch_compile_mode=x: "),
        (
            ["tokenizer.train=null", "tokenizer.name_or_path=./nowhere"],
            "tokenizer.name_or_path=./nowhere: no tokenizer there",
        ),
        (["facts.spec=null", "facts.bank=nowhere"], "nowhere: not a fact bank"),
        (["facts.spec=nowhere.yaml"], "nowhere.yaml: no such file"),
        (["facts.overrides.peeple=3"], "unknown key peeple, did you mean 'people'?"),
        (["facts.overrides.arms={a: {exposures: 1, form: multi99}}"], "form=multi99 needs 99"),
        (["injection.arms.a=3"], "injection.arms.a: the bank has no such arm"),
        (["injection.exposures=null"], "injection.exposures: facts have no number of exposures"),
        (["training.optim=adamw_bnb_8bit"], "training.optim=adamw_bnb_8bit: "),
        (
            ["training.lr_scheduler_kwargs={min_lr_rate: abc}"],
            "training.learning_rate=0.001 and training.lr_scheduler_kwargs={'min_lr_rate': 'abc'}: ",
        ),
        (
            ["training.learning_rate=0", "training.lr_scheduler_type=polynomial"],
            "training.lr_scheduler_type=polynomial with training.learning_rate=0: ",
        ),
        (
            ["training.optim_args=foo=1"],
            "training.optim_args=foo=1: the optimizer adamw_torch_fused does not",
        ),
        (["training.optim=sgd", "training.optim_args=momentum=0.9, foo=1"], "training.optim_args=foo=1: "),
        (
            ["training.gradient_checkpointing=true", "training.gradient_checkpointing_kwargs={foo: 1}"],
            "Unexpected keyword arguments: foo",
        ),
        (["training.accelerator_config={gradient_accumulation_kwargs: {foo: 1}}"], "argument 'foo'"),
        (["training.log_level=foo"], "training.log_level='foo': must be one of detail, debug"),
        (["training.ddp_backend=gloo"], "training.ddp_backend=gloo: is for several processes"),
        (["training.parallelism_config={}"], "training.parallelism_config: not supported"),
        (["training.disable_tqdm=3"], "training.disable_tqdm=3: must be true or false"),
        (["training.resume_from_checkpoint=foo"], "training.resume_from_checkpoint=foo: is not a checkpoint"),
        (
            ["model.config.vocab_size=300"],
            "model.config.vocab_size=300: is less than tokenizer.train.vocab_size",
        ),
        (
            ["model.config.vocab_size=100", "tokenizer.train=null", "tokenizer.bytes=true"],
            "model: its vocabulary has 100 entries, the tokenizer's ids need 258",
        ),
        (["model.config.eos_token_id=99999"], "model.config.eos_token_id=99999: the vocabulary has"),
        (["model.config.initializer_range=1e20"], "model.config: in one step with random weights, the "),
        (["model.config.initializer_range=.inf"], "weights that are not finite numbers"),
        (["model.config.return_dict=false"], "model.config.return_dict: no such key"),
        (
            ["model.type=gpt2", "model.config=null", "model.config.architectures=[a]"],
            "model.config.architectures: no such key",
        ),
        (
            ["tokenizer.train=null", "tokenizer.bytes=true", "injection.exposures=100000"],
            "injection.exposures: ",
        ),
        (
            ["training.lr_scheduler_type=reduce_lr_on_plateau", "training.lr_scheduler_kwargs={min_lr: foo}"],
            "training.lr_scheduler_kwargs={'min_lr': 'foo'}: ",
        ),
        (
            [
                "training.lr_scheduler_type=reduce_lr_on_plateau",
                "training.lr_scheduler_kwargs={patience: foo}",
            ],
            "training.lr_scheduler_kwargs={'patience': 'foo'}: ",
        ),
        (
            ["training.accelerator_config={gradient_accumulation_kwargs: {num_steps: 4}}"],
            "num_steps: set training.gradient_accumulation_steps instead",
        ),
        (["training.push_to_hub=true", "training.hub_model_id=a b"], "training.hub_model_id=a b: "),
        (
            ["training.gradient_checkpointing_kwargs={use_reentrant: false}"],
            "has no effect without",
        ),
        (["training.do_train=true"], "training.do_train=True: has no effect here"),
        (["training.label_names=[a]"], "training.label_names=['a']: has no effect here"),
        (["training.include_num_input_tokens_seen=foo"], "must be one of True, False, all"),
        (
            ["training.optim_target_modules=[q_proj]"],
            "training.optim_target_modules: the optimizer",
        ),
        (
            [
                "model.type=xlnet",
                "model.config=null",
                "model.config={d_model: 32, n_layer: 1, n_head: 2, d_inner: 32}",
                "data.context_window=64",
            ],
            "model xlnet: not a causal language model",
        ),
        (["data.packing=appart"], "data.packing='appart': must be one of apart, joined"),
        (
            [
                "model.type=mpt",
                "model.config=null",
                "model.config={d_model: 32, n_layers: 1, n_heads: 2}",
                "data.context_window=64",
                "data.packing=apart",
            ],
            "data.packing=apart: a model of type mpt cannot keep documents apart: a packed document changes "
            "the logits of the next one; set data.packing=joined",
        ),
        (["training.report_to=wandbb"], "training.report_to=['wandbb']: wandbb is not supported"),
        (["evaluation.benchmarks=[blimpp]"], "benchmark 'blimpp': lm-eval has no such task"),
        (["training.output_dir=tests"], "tests: holds files that are not of a run"),
    ],
)
def test_dry_run_refuses_what_training_would(tiny, tmp_path, capsys, overrides, message):
    before = sorted(tmp_path.rglob("*"))
    arguments = tiny("new", *overrides)
    fails(capsys, ["train", *arguments, "--dry-run"], message)
    fails(capsys, ["train", *arguments], message)
    assert set(tmp_path.rglob("*")) - set(before) <= {tmp_path / "tiny.yaml"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train_files=[a.txt]", "text_column=content"],
            "data.text_column='content': is not used, for there is no file with",
        ),
        (
            ["train_files=[a.csv]", "separator=x"],
            "data.separator='x': is not used, for there is no .txt file",
        ),
        (
            ["train_files=[a.csv]", "documents=line"],
            "data.documents='line': is not used, for there is no .txt",
        ),
        (["name=synthetic", "text_column=content"], "data.text_column='content': is not used, for"),
        (
            ["train_files=[a.txt, a.csv]", "validation_files=[./b/../a.txt]"],
            "data.validation_files: b/../a.txt: is in data.train_files too",
        ),
    ],
)
def test_keys_that_do_not_fit_the_files_are_refused(tiny, tmp_path, capsys, monkeypatch, overrides, message):
    (tmp_path / "b").mkdir()
    arguments = [*tiny("new", "data.name=files"), *(f"data.{override}" for override in overrides)]
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_text("text\na\n")
    fails(capsys, ["train", *arguments, "--dry-run"], message)


def test_a_reporter_that_cannot_start_is_named_and_nothing_written(tiny, tmp_path, capsys, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # where W&B keeps its login
    fails(
        capsys,
        ["train", *tiny("new", "training.report_to=wandb")],
        "training.report_to: WandbCallback cannot",
    )
    assert not (tmp_path / "new" / "config.yaml").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.config.eos_token_id=400"],  # in the vocabulary of the tokenizer that is still to be trained
        ["training.optim=sgd", "training.optim_args=momentum=0.9,nesterov=true"],
        ["training.lr_scheduler_type=polynomial"],  # of one step, its schedule would divide by zero
        ["training.dataloader_num_workers=1", "training.dataloader_multiprocessing_context=spawn"],
        [
            "model.config=null",
            "model.type=reformer",  # it reads only rows of one length in training
            "model.config={hidden_size: 32, num_attention_heads: 2, attention_head_size: 16,"
            " attn_layers: [local], axial_pos_shape: [8, 8], axial_pos_embds_dim: [16, 16],"
            " max_position_embeddings: 64, is_decoder: true, feed_forward_size: 32}",
        ],
        [
            "model.type=gpt2",
            "model.config=null",
            "model.config.n_embd=3072",
            "model.config.n_layer=4",
        ],  # 450M
    ],
)
def test_dry_run_accepts_what_can_be_trained(tiny, capsys, overrides):
    assert main(["train", *tiny("new", *overrides), "--dry-run"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("model_type", ["opt", "gpt2"])
def test_dry_run_says_if_documents_will_be_joined(tiny, caplog, capsys, model_type):
    keys = [f"model.type={model_type}", "model.config=null", "data.context_window=64", "--dry-run"]
    assert main(["train", *tiny("new", *keys)]) == 0
    notice = "data.packing=joined: a model of type opt cannot keep documents apart"
    assert caplog.text.count(notice) == (model_type == "opt")
