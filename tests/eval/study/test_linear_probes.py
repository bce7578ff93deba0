"""Linear probes: features as they should be, scores right, what is missing named."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from transformers import RwkvConfig, RwkvForCausalLM

from modeling_stlm.tokenization_stlm import byte_tokenizer, train_bpe_tokenizer
from tests.eval import tiny
from tests.eval.study.public_copies import write_glue
from tests.modeling_stlm.byte_examples import ids_of, make_byte_model
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.study.linear_probes import SCORERS, TASKS, run_linear_probes, text_features


@pytest.fixture(scope="module")
def pair():
    tokenizer = train_bpe_tokenizer(["sail mast harbour anchor wave oven flour crust loaf dough"], 300)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return tiny.stlm(len(tokenizer), initializer_range=0.2, **shape), tokenizer


def test_features_are_the_pooled_hidden_states_whatever_the_batch(pair):
    model, tokenizer = pair
    texts = ["sail mast", "oven", "wave anchor harbour mast sail loaf", "crust dough"]
    small = text_features(model, tokenizer, texts, batch_tokens=8)
    large = text_features(model, tokenizer, texts, batch_tokens=1000)
    for index, text in enumerate(texts):
        with torch.no_grad():
            hidden = model.model(tokenizer(text, return_tensors="pt")["input_ids"]).last_hidden_state[0]
        for found in (small, large):
            np.testing.assert_allclose(found["mean"][index], hidden.mean(0), atol=1e-5)
            np.testing.assert_allclose(found["last"][index], hidden[-1], atol=1e-5)


def test_features_of_the_byte_model_are_those_of_bytes():
    model, tokenizer = make_byte_model(), byte_tokenizer()
    texts = ["sail mast", "naïve", "wave anchor harbour"]
    found = text_features(model, tokenizer, texts, batch_tokens=1000)
    for index, text in enumerate(texts):
        with torch.no_grad():
            hidden = model.model(torch.tensor([ids_of(text)])).last_hidden_state[0]
        np.testing.assert_allclose(found["mean"][index], hidden.mean(0), atol=1e-5)
        np.testing.assert_allclose(found["last"][index], hidden[-1], atol=1e-5)


def test_a_model_that_reads_padding_gets_none():
    tokenizer = tiny.byte_level(bos=True)
    torch.manual_seed(0)
    model = RwkvForCausalLM(RwkvConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2)).eval()
    texts = ["sail mast", "wave anchor harbour mast sail loaf"]
    together, alone = text_features(model, tokenizer, texts), text_features(model, tokenizer, texts[:1])
    np.testing.assert_allclose(together["mean"][0], alone["mean"][0], atol=1e-5)


def test_few_examples(pair, tmp_path, caplog):
    write_glue(tmp_path, {"cola": ("sentence",)}, count=40)
    assert "matthews (mean)" in run_linear_probes(*pair, ["cola"], data_dir=tmp_path, limit=8)["probe:cola"]
    found = run_linear_probes(*pair, ["cola"], data_dir=tmp_path, limit=2, seed=1)["probe:cola"]
    assert "2 are the least (--limit)" in found["error"]
    assert found["error"] in caplog.text


def test_linear_probes_find_what_is_there(pair, tmp_path):
    tasks = ["cola", "mrpc", "stsb"]
    write_glue(tmp_path, {name: TASKS[name].columns for name in tasks}, count=160)
    found = run_linear_probes(*pair, tasks, data_dir=tmp_path)
    assert list(found) == ["probe:cola", "probe:mrpc", "probe:stsb"]
    assert found["probe:cola"]["matthews (mean)"].value > 0.95  # ships and bread share no word
    assert found["probe:mrpc"]["accuracy (mean)"].value > 0.9
    assert found["probe:mrpc"]["f1 (last)"].value > 0.7
    assert found["probe:stsb"]["spearman (mean)"].value > 0.5
    assert found["probe:cola"]["n"] == 80
    assert run_linear_probes(*pair, ["cola"], data_dir=tmp_path, limit=20, seed=1)["probe:cola"]["n"] == 20
    assert run_linear_probes(*pair, ["mrpc"], data_dir=tmp_path) == {"probe:mrpc": found["probe:mrpc"]}


def test_scores_are_sklearns():
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(2, size=40), generator.integers(2, size=40)
    assert SCORERS["f1"](truth, predicted) == pytest.approx(reference.f1_score(truth, predicted))
    assert SCORERS["matthews"](truth, predicted) == pytest.approx(
        reference.matthews_corrcoef(truth, predicted)
    )
    assert SCORERS["accuracy"](truth, predicted) == pytest.approx(reference.accuracy_score(truth, predicted))
    assert SCORERS["matthews"](truth, np.ones(40)) == 0.0
    assert SCORERS["spearman"](np.arange(9.0), np.arange(9.0) ** 3) == pytest.approx(1.0)


def test_a_copy_that_has_changed_is_read_anew(pair, tmp_path):
    for place, count in (("one", 20), ("two", 40), ("one", 60)):
        write_glue(tmp_path / place, {"cola": TASKS["cola"].columns}, count=count)
        found = run_linear_probes(*pair, ["cola"], data_dir=tmp_path / place)
        assert found["probe:cola"]["n"] == count // 2


def test_what_is_missing_is_named(pair, tmp_path):
    write_glue(tmp_path, {"cola": TASKS["cola"].columns}, count=20)
    found = run_linear_probes(*pair, ["rte", "cola"], data_dir=tmp_path)
    assert "its data cannot be read" in found["probe:rte"]["error"]
    assert found["probe:cola"]["n"] == 10
    with pytest.raises(UserError, match="linear probe 'mnli': no such task"):
        run_linear_probes(*pair, ["mnli"])
