"""Control tokens that somebody has written are text, wherever text becomes tokens."""

import json
import logging

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from modeling_stlm.tokenization_stlm import byte_tokenizer, train_bpe_tokenizer
from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.scoring.encoding import Item, encode_items, encode_prompts
from tidy_stlms.eval.scoring.generation import generate_texts
from tidy_stlms.eval.scoring.scorer import score
from tidy_stlms.eval.study.heldout import score_documents
from tidy_stlms.eval.tokens import control_ids, encode_texts, tokenizer_hash, vocabulary_size
from tidy_stlms.scripts.__main__ import main
from tidy_stlms.trainers.corpus import prepare_corpus
from tidy_stlms.trainers.documents import Documents
from tidy_stlms.trainers.text_bytes import token_bytes

TEXT = "She typed <|endoftext|> and <|pad|>, then <s>, </s>."


def bpe(**options):
    return train_bpe_tokenizer([TEXT, *tiny.sentences()], 400, **options)


TOKENIZERS = {
    "trained": bpe,
    "trained without BOS": lambda: bpe(bos=False),
    "bytes": byte_tokenizer,
    "llama-like": lambda: tiny.byte_level(bos=True, eos=True),
    "slow": tiny.SlowTokenizer,
}


@pytest.fixture(params=TOKENIZERS.values(), ids=TOKENIZERS)
def tokenizer(request):
    return request.param()


def plainly(tokenizer, text: str) -> list[int]:
    """Ids by the tokenizers library itself, whose added vocabulary is told to let special tokens pass."""
    if not tokenizer.is_fast:
        return tokenizer.convert_tokens_to_ids(tokenizer._tokenize(text))
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    return backend.encode(text, add_special_tokens=False).ids


def test_ids_are_those_of_the_characters(tokenizer):
    [ids] = encode_texts(tokenizer, [TEXT])["input_ids"]
    assert ids == plainly(tokenizer, TEXT)
    assert control_ids(tokenizer).isdisjoint(ids)
    if tokenizer.is_fast:
        assert tokenizer.decode(ids) == TEXT


def test_a_call_leaves_no_state_behind(tokenizer):
    before = tokenizer(TEXT)["input_ids"]
    written = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else None
    encode_texts(tokenizer, [TEXT])
    assert tokenizer.split_special_tokens is False
    assert tokenizer(TEXT)["input_ids"] == before
    assert not tokenizer.is_fast or tokenizer.backend_tokenizer.to_str() == written


def test_prompts_answers_and_statements_read_alike(tokenizer):
    [whole] = encode_texts(tokenizer, [TEXT])["input_ids"]
    item = Item("She typed", ["<|endoftext|> and <|pad|>, then <s>, </s>.", "nothing"])
    row = encode_items(tokenizer, [item])[0]
    head = len(row.ids) - len(whole)
    assert row.ids[head:] == whole
    assert head <= 1  # the tokenizer's own BOS
    assert row.n_bytes == len(" <|endoftext|> and <|pad|>, then <s>, </s>.")
    [prompt] = encode_prompts(tokenizer, [TEXT])
    assert prompt[-len(whole) :] == whole


def test_control_tokens_may_be_asked_for(tokenizer):
    [text] = encode_prompts(tokenizer, [f"a {tokenizer.eos_token} b"])
    [control] = encode_prompts(tokenizer, [f"a {tokenizer.eos_token} b"], control_tokens=True)
    own = encode_prompts(tokenizer, ["a b"])[0].count(tokenizer.eos_token_id)
    assert text.count(tokenizer.eos_token_id) == own
    assert control.count(tokenizer.eos_token_id) == own + 1


def test_scores_generation_and_held_out_text_see_text():
    tokenizer = bpe()
    model = tiny.llama(vocabulary_size(tokenizer))
    spelled = "< |endoftext|>"  # other text, but text too
    one, two = score(model, tokenizer, [Item("She typed", [text]) for text in ("<|endoftext|>", spelled)])
    assert one.n_tokens[0] > 1
    assert one.n_bytes[0] == two.n_bytes[0] - 1
    [row] = score_documents(model, tokenizer, [TEXT])
    assert row.n_tokens == len(plainly(tokenizer, TEXT))
    [said] = generate_texts(model, tokenizer, [f"{TEXT} {TEXT}"], [2])
    assert not said.truncated


def documents(*texts: str) -> Documents:
    rows = Dataset.from_dict({"text": list(texts)})
    return Documents(rows, rows, "test", str(hash(texts)), {})


def test_a_corpus_line_cannot_end_its_document(tmp_path, caplog):
    tokenizer = bpe()
    with caplog.at_level(logging.WARNING):
        corpus = prepare_corpus(documents(TEXT, "Plain."), tokenizer, tmp_path, progress=False)
    ids = np.fromfile(corpus.folder / "train.bin", dtype=corpus.dtype).tolist()
    eos = tokenizer.eos_token_id
    assert ids == [*plainly(tokenizer, TEXT), eos, *plainly(tokenizer, "Plain."), eos]
    assert "1 train documents hold a control token" in caplog.text


def test_statements_are_injected_as_text(tiny, tmp_path):
    """From the files of a run: the statement's tokens, decoded, are its text, end-of-text and all."""
    bank = tmp_path / "bank"
    bank.mkdir()
    statement = "Ada typed <|endoftext|> every day."
    rows = {
        "relations": [{"id": "r", "label": "habit"}],
        "facts": [
            {"id": "f", "subject": "Ada", "relation": "r", "object": "<|endoftext|>", "role": "injected"}
        ],
        "statements": [{"id": "s", "fact_ids": ["f"], "text": statement}],
        "probes": [
            {
                "id": "p",
                "fact_ids": ["f"],
                "type": "memorization",
                "prompt": "Ada typed",
                "answers": ["<|endoftext|>"],
                "distractors": ["<|pad|>", "nothing"],
            }
        ],
    }
    (bank / "bank.json").write_text(json.dumps({"schema": 1, "name": "typed"}))
    for table, lines in rows.items():
        (bank / f"{table}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    short = ("training.max_steps=4", "training.save_steps=4", "injection.exposures=3")
    assert (
        main(["train", *tiny("run", "facts.spec=null", "facts.overrides={}", f"facts.bank={bank}", *short)])
        == 0
    )
    row = json.loads((tmp_path / "run/recall.jsonl").read_text().splitlines()[0])
    assert row["n_bytes"] == len(" <|endoftext|>")
    assert row["n_tokens"] > 1


def test_a_vocabulary_that_turns_characters_into_a_control_token_is_refused():
    tokenizer = tiny.metaspace()  # a Unigram whose pieces hold </s>
    with pytest.raises(UserError, match=r"reads '</s>' in it as a control token, not as text"):
        encode_texts(tokenizer, ["fine", "struck </s> out"])
    assert encode_texts(tokenizer, ["struck </s> out"], control_tokens=True)["input_ids"]


def test_added_tokens_that_are_not_special_are_words():
    tokenizer = bpe()
    tokenizer.add_tokens(["<think>"])
    [ids] = encode_texts(tokenizer, ["so <think> <|pad|>"])["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("<think>")) == 1
    assert tokenizer.pad_token_id not in ids


def test_a_tokenizer_in_python_keeps_added_tokens_that_are_not_special():
    """It splits all added tokens or none: only a text that holds a control token too cannot be read."""
    tokenizer = tiny.SlowTokenizer()
    tokenizer.add_tokens(["<think>"])
    plain, control = encode_texts(tokenizer, ["so <think> Oslo", "so </s> Oslo"])["input_ids"]
    assert plain == tokenizer("so <think> Oslo", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<think>") in plain
    assert control_ids(tokenizer).isdisjoint(control)
    with pytest.raises(UserError, match="cannot read its control token as text and keep '<think>' whole"):
        encode_texts(tokenizer, ["so <think> </s>"])


def test_the_bars_of_a_control_token_separate_no_list(tmp_path):
    table = "subject,object,statement,prompt,distractors\n"
    table += "Ann,<|endoftext|>,Ann says <|endoftext|>.,Ann says,<|pad|>|nothing|<|im_start|>\n"
    (tmp_path / "own.csv").write_text(table)
    bank, _ = import_bank("csv", str(tmp_path / "own.csv"), ImportOptions())
    [probe] = bank.probes
    assert probe.answers == ("<|endoftext|>",)
    assert probe.distractors == ("<|pad|>", "nothing", "<|im_start|>")


# --- vocabularies with gaps


@pytest.fixture
def gapped(tmp_path):
    """A tokenizer of some 400 tokens, one of which has the id 70,000."""
    written = json.loads(bpe().backend_tokenizer.to_str())
    vocabulary = written["model"]["vocab"]
    merged = max(vocabulary, key=vocabulary.get)
    vocabulary[merged] = 70_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    loaded = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|pad|>"
    )
    return loaded, merged.replace("Ġ", " ")


def test_ids_beyond_the_number_of_tokens_keep_their_value(gapped, tmp_path):
    tokenizer, word = gapped
    assert len(tokenizer) < 500
    assert vocabulary_size(tokenizer) == 70_001
    corpus = prepare_corpus(documents(f"a{word}", "b"), tokenizer, tmp_path / "cache", progress=False)
    assert corpus.dtype == "uint32"
    assert 70_000 in np.fromfile(corpus.folder / "train.bin", dtype=corpus.dtype)
    sizes = token_bytes(tokenizer)
    assert len(sizes) == 70_001
    assert sizes[70_000] == len(word)
    assert sizes[60_000] == 0


def test_a_model_has_room_for_the_highest_id(gapped, tiny, tmp_path):
    tokenizer, _ = gapped
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    own = ("tokenizer.train=null", f"tokenizer.name_or_path={tmp_path / 'tokenizer'}", "facts.spec=null")
    short = ("training.max_steps=1", "training.eval_strategy='no'", "evaluation.prompts=[]")
    arguments = tiny("run", *own, *short)
    assert main(["train", *arguments]) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["vocab_size"] == 70_001
    assert main(["train", *tiny("small", *own, *short, "model.config.vocab_size=500")]) == 2


def test_equal_tokenizers_have_equal_hashes():
    tokenizer, padded = tiny.byte_level(bos=True), tiny.byte_level(bos=True)
    assert tokenizer_hash(padded) == tokenizer_hash(tokenizer)
    padded(["a", "longer one"], truncation=True, max_length=2)  # which the serialised tokenizer remembers
    assert tokenizer_hash(padded) == tokenizer_hash(tokenizer)
    different = [
        tiny.byte_level(),
        tiny.byte_level(bos=True, eos=True),
        tiny.metaspace(),
        tiny.SlowTokenizer(),
    ]
    assert len({tokenizer_hash(each) for each in (tokenizer, *different)}) == 5
