"""The scorer against lm-eval's HFLM, which scores the same text by another road."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tidy_stlms.eval.facts.text_match import join
from tidy_stlms.eval.models.prefix import lm_eval_arguments, prefix_of, record_prefix
from tidy_stlms.eval.recall.harness import item_of
from tidy_stlms.eval.scoring.encoding import Item
from tidy_stlms.eval.scoring.scorer import score

TOKENIZERS = {
    "with BOS": lambda: tiny.byte_level(bos=True),
    "without BOS": lambda: tiny.byte_level(),
    "SentencePiece-like": lambda: tiny.metaspace(),
}


def gpt_neox(vocab_size: int):
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return GPTNeoXForCausalLM(config).eval()


MODELS = {"llama": tiny.llama, "gpt2": tiny.gpt2, "gpt_neox": gpt_neox, "stlm": tiny.stlm}


def lm_eval_loglikelihoods(model, tokenizer, items, add_bos_token=None):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # Where `add_bos_token` is left alone, HFLM calls the tokenizer with its own settings, which add BOS
    # exactly where the tokenizer does by itself. `batch_size` other than 1 to have its padding tried too.
    options = {"device": "cpu", "batch_size": 64, "add_bos_token": add_bos_token}
    lm = HFLM(pretrained=model, tokenizer=tokenizer, **options)
    requests = []
    for item in items:
        context, space = join(item.prompt, item.joint)
        for answer in item.candidates:
            arguments = (context, space + answer + item.suffix)
            requests.append(Instance("loglikelihood", {}, arguments, len(requests)))
    return lm.loglikelihood(requests, disable_tqdm=True)


@pytest.fixture(scope="module")
def items():
    """200 probes with three candidates; the made-up ones are of several tokens."""
    items = [item_of(probe) for probe in tiny.bank(people=25).probes]
    return [replace(item, candidates=(*item.candidates[:2], "Oslo Falls")) for item in items]


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_equals_lm_eval(kind, model_name, items):
    tokenizer = TOKENIZERS[kind]()
    model = MODELS[model_name](len(tokenizer))
    scores = score(model, tokenizer, items)
    assert len(items) == 200
    assert not any(result.straddles for result in scores)

    theirs = iter(lm_eval_loglikelihoods(model, tokenizer, items))
    for result in scores:
        for candidate, ours in enumerate(result.logprobs):
            logprob, is_greedy = next(theirs)
            assert ours == pytest.approx(logprob, abs=1e-4)
            if candidate == 0:
                assert result.greedy_match == is_greedy


def test_equals_lm_eval_behind_the_token_of_the_training(items, tmp_path):
    """GPT-2's tokenizer adds no BOS. A run with it is asked behind end-of-text, which is its BOS too."""
    train_bpe_tokenizer(tiny.sentences(), 400, bos=False).save_pretrained(tmp_path)
    tokenizer, theirs = (AutoTokenizer.from_pretrained(tmp_path, **o) for o in ({}, {"add_bos_token": True}))
    model = tiny.gpt2(len(tokenizer))
    bare = [result.logprobs for result in score(model, tokenizer, items)]
    record_prefix(model)
    assert lm_eval_arguments(prefix_of(model, tokenizer), tokenizer) == "add_bos_token=True"
    ours = [logprob for result in score(model, tokenizer, items) for logprob in result.logprobs]
    expected = [logprob for logprob, _ in lm_eval_loglikelihoods(model, theirs, items, add_bos_token=True)]
    assert ours == pytest.approx(expected, abs=1e-4)
    assert ours != pytest.approx([logprob for each in bare for logprob in each], abs=1e-4)


def test_a_straddling_token_is_flagged_where_lm_eval_scores_nothing():
    # " 20" + "03": the tokens of the prompt alone are as many as those of the whole text
    tokenizer = tiny.whole_words(["▁born", "▁in", "▁20", "▁2003", "▁2004", "03"])
    model = tiny.llama(len(tokenizer))
    whole = Item("born in 20", ["03"], joint="")
    assert tokenizer.tokenize("born in 2003") == ["▁born", "▁in", "▁2003"]

    [result] = score(model, tokenizer, [whole])
    assert result.straddles
    # the token is scored whole, and so are the bytes that it covers
    assert (result.n_tokens, result.n_bytes) == ([1], [len(" 2003")])
    [same] = score(model, tokenizer, [Item("born in", ["2003"])])
    assert not same.straddles
    assert result.logprobs == pytest.approx(same.logprobs, abs=1e-6)

    with pytest.raises(AssertionError):  # lm-eval's own: no token is left to score
        lm_eval_loglikelihoods(model, tokenizer, [whole])
