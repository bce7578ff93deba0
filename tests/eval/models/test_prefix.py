"""The special tokens before a text: as in training, as the tokenizer adds them, or as the user chooses."""

import logging

import pytest
import transformers

from modeling_stlm.tokenization_stlm import byte_tokenizer, train_bpe_tokenizer
from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, write_json
from tidy_stlms.eval.models.identity import model_identity
from tidy_stlms.eval.models.load import load_model
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.models.prefix import (
    Prefix,
    choices_as_trained,
    lm_eval_arguments,
    own_prefix,
    prefix_of,
    record_prefix,
    trained_prefix,
    warn_of_prefix,
)


def like_gpt2():
    """BOS and end-of-text are one token, which the tokenizer does not add by itself."""
    return train_bpe_tokenizer(tiny.sentences(), 400, bos=False)


TOKENIZERS = {
    "none": (like_gpt2, Prefix("none", ())),
    "one token": (byte_tokenizer, Prefix("bos", (257,))),
    "BOS": (lambda: tiny.byte_level(bos=True), Prefix("bos", (1,))),
    "BOS and a closing end-of-text": (lambda: tiny.byte_level(bos=True, eos=True), Prefix("bos", (1,))),
    "a closing end-of-text alone": (lambda: tiny.byte_level(eos=True), Prefix("none", ())),
    "no letter a": (lambda: tiny.whole_words(["Rome"]), Prefix("none", ())),
    "in Python": (lambda: tiny.SlowTokenizer(), Prefix("bos", (1,))),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_a_tokenizer_puts_before_a_text(name):
    make, expected = TOKENIZERS[name]
    tokenizer = make()
    assert own_prefix(tokenizer) == expected
    assert prefix_of(tiny.gpt2(len(tokenizer)), tokenizer) == expected


def test_a_tokenizer_with_other_tokens_of_its_own():
    tokenizer = tiny.byte_level(bos=True)
    tokenizer.bos_token = "<unk>"  # what it adds is now neither
    assert own_prefix(tokenizer) == Prefix("own", (1,))


def test_a_model_is_asked_as_it_was_trained_or_as_the_user_wants():
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.gpt2(len(tokenizer))
    assert (trained_prefix(model), choices_as_trained(model, tokenizer)) == (None, ())
    record_prefix(model)
    assert (trained_prefix(model), choices_as_trained(model, tokenizer)) == ("eos", ("eos",))
    assert prefix_of(model, tokenizer) == Prefix("eos", (2,))
    assert prefix_of(model, tokenizer, "bos") == Prefix("bos", (1,))
    assert prefix_of(model, tokenizer, "none") == Prefix("none", ())
    with pytest.raises(UserError, match="prefix 'text': not one of bos, eos, none"):
        prefix_of(model, tokenizer, "text")
    tokenizer.bos_token = None
    with pytest.raises(UserError, match="prefix bos: the tokenizer has no BOS token"):
        prefix_of(model, tokenizer, "bos")


def test_the_warning_names_choice_and_trained_prefix(caplog):
    model, tokenizer = tiny.gpt2(400), like_gpt2()
    record_prefix(model)
    same = choices_as_trained(model, tokenizer)
    assert same == ("bos", "eos")  # one token
    with caplog.at_level(logging.WARNING):
        for choice in (None, "bos", "eos"):
            warn_of_prefix("runs/a", same, choice)
        assert not caplog.records
        warn_of_prefix("runs/a", (), "none")
        assert not caplog.records
        warn_of_prefix("runs/a", same, "none")
    assert "runs/a: is asked with prefix none, but its training put eos before" in caplog.text


@pytest.mark.parametrize(
    ("make", "choice", "expected"),
    [
        (like_gpt2, None, ""),
        (like_gpt2, "eos", "add_bos_token=True"),
        (byte_tokenizer, "eos", ""),
        (byte_tokenizer, "none", "add_bos_token=False"),
        (lambda: tiny.byte_level(bos=True), "bos", ""),
        (lambda: tiny.byte_level(bos=True), "eos", None),
    ],
)
def test_the_argument_for_lm_eval(make, choice, expected):
    tokenizer = make()
    prefix = prefix_of(tiny.gpt2(len(tokenizer)), tokenizer, choice)
    assert lm_eval_arguments(prefix, tokenizer) == expected


@pytest.mark.parametrize("make", [tiny.stlm, tiny.gpt2, tiny.llama])
def test_the_record_goes_where_the_model_goes(make, tmp_path):
    tokenizer = like_gpt2()
    model = make(len(tokenizer))
    record_prefix(model)
    for name in ("first", "second"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        model, tokenizer = load_model(tmp_path / name, device="cpu")
        assert prefix_of(model, tokenizer) == Prefix("eos", (tokenizer.eos_token_id,))


def test_an_adapter_is_asked_as_its_base_model(tmp_path):
    import peft

    tokenizer = like_gpt2()
    base = tiny.gpt2(len(tokenizer))
    record_prefix(base)
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    options = peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    peft.get_peft_model(base, options).save_pretrained(tmp_path / "adapter")
    model, _ = load_model(tmp_path / "adapter", device="cpu")
    assert trained_prefix(model) == "eos"
    # the base is a run of an earlier version, which did not record it
    config = read_json(tmp_path / "base" / "config.json")
    del config["document_prefix"]
    write_json(tmp_path / "base" / "config.json", config)
    assert trained_prefix(load_model(tmp_path / "adapter", device="cpu")[0]) is None
    for name in ("config.yaml", "environment.json"):
        (tmp_path / "base" / name).write_text("{}")
    assert trained_prefix(load_model(tmp_path / "adapter", device="cpu")[0]) == "eos"


def test_runs_of_earlier_versions_did_not_record_it(tmp_path):
    tokenizer = like_gpt2()
    run = tmp_path / "run"
    for folder in (run, run / "checkpoint-8"):
        tiny.gpt2(len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        assert trained_prefix(load_model(folder, device="cpu")[0]) is None
    alone = model_identity(ModelName("run", str(run)))
    (run / "config.yaml").write_text("{}")
    (run / "environment.json").write_text("{}")
    for folder in (run, run / "checkpoint-8"):
        assert trained_prefix(load_model(folder, device="cpu")[0]) == "eos"
    assert model_identity(ModelName("run", str(run))) != alone
