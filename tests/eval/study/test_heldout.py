"""Bits per byte of text, against one forward pass over the whole document."""

import math
from copy import deepcopy

import pytest
import torch

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.prefix import record_prefix
from tidy_stlms.eval.recall.results import DocumentScore
from tidy_stlms.eval.scoring.scorer import Item, score
from tidy_stlms.eval.study import heldout
from tidy_stlms.eval.study.heldout import heldout_summary, read_documents, score_documents
from tidy_stlms.eval.texts import TextFormat

DOCUMENTS = [
    "Ada Lopez was born in Kuala Lumpur.",
    "Zürich",
    " ".join(tiny.sentences()[:9]),
    "By day Bo Chen is a baker!\nBo Chen works as a glass blower.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level()


def nats_of(model, ids):
    """-ln P of all tokens but the first, from one pass."""
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(logprobs[k, token].item() for k, token in enumerate(ids[1:]))


def start_of(tokenizer):
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


@pytest.mark.parametrize(
    "make", [tiny.byte_level, lambda: tiny.byte_level(bos=True, eos=True), tiny.metaspace]
)
def test_every_token_is_scored_once_from_the_start(make):
    tokenizer = make()
    model = tiny.llama(len(tokenizer), context=512)
    rows = score_documents(model, tokenizer, DOCUMENTS)
    for row, document in zip(rows, DOCUMENTS, strict=True):
        ids = tokenizer.encode(document, add_special_tokens=False)
        assert row.nats == pytest.approx(nats_of(model, [start_of(tokenizer), *ids]), abs=1e-3)
        assert (row.n_tokens, row.n_bytes) == (len(ids), len(document.encode()))
        # the same as an answer without a prompt
        [scores] = score(model, tokenizer, [Item("", [document], joint="")])
        assert row.nats == pytest.approx(-scores.logprobs[0], abs=1e-3)


def test_batches_do_not_matter(tokenizer):
    model = tiny.gpt2(len(tokenizer), context=256)
    together = score_documents(model, tokenizer, DOCUMENTS, batch_tokens=10_000)
    apart = score_documents(model, tokenizer, DOCUMENTS, batch_tokens=1)
    one = [row for document in DOCUMENTS for row in score_documents(model, tokenizer, [document])]
    for rows in (apart, one):
        assert [row.nats for row in rows] == pytest.approx([row.nats for row in together], abs=1e-3)


@pytest.mark.parametrize("bos", [False, True])
def test_long_documents_are_read_in_overlapping_windows(bos):
    tokenizer = tiny.byte_level(bos=bos)
    window = 32
    model = tiny.gpt2(len(tokenizer), context=window)
    document = " ".join(tiny.sentences()[:20])
    ids = tokenizer.encode(document, add_special_tokens=False)
    assert len(ids) > 4 * window
    [row] = score_documents(model, tokenizer, [document])

    start = [start_of(tokenizer)]
    whole = [*start, *ids]
    expected = 0.0
    with torch.no_grad():
        for k in range(1, len(whole)):
            # the window in which token k is scored: the first, then half a window further each time
            end = (
                window + 1
                if k <= window
                else window + 1 + (window // 2) * math.ceil((k - window) / (window // 2))
            )
            end = min(end, len(whole))
            first = max(0, end - window - 1)
            before = whole[first:k] if first == 0 or not bos else [*start, *whole[first + 1 : k]]
            logprobs = model(torch.tensor([before])).logits[0, -1].log_softmax(-1)
            expected -= logprobs[whole[k]].item()
    assert row.nats == pytest.approx(expected, rel=1e-4)


def test_an_end_of_text_stands_before_the_document_only(tokenizer):
    """As in training, where a row that continues a document begins with its text."""
    model = tiny.gpt2(len(tokenizer), context=32)
    document = " ".join(tiny.sentences()[:20])
    by_tokenizer = score_documents(model, tokenizer, [document])  # whose own start is end-of-text, once
    assert score_documents(model, tokenizer, [document], prefix="eos") == by_tokenizer
    record_prefix(model)
    assert score_documents(model, tokenizer, [document]) == by_tokenizer
    with_bos = tiny.byte_level(bos=True)
    own = score_documents(model, with_bos, [document])
    assert own == by_tokenizer  # the record counts, not the tokenizer's BOS
    assert score_documents(model, with_bos, [document], prefix="bos") != own


def test_few_logits_at_a_time(tokenizer, monkeypatch):
    model = tiny.llama(len(tokenizer), context=512)
    expected = score_documents(model, tokenizer, DOCUMENTS)
    monkeypatch.setattr(heldout, "MAX_LOGITS", 7 * len(tokenizer))
    monkeypatch.setattr(heldout, "LOGITS_PER_CHUNK", 3 * len(tokenizer))
    rows = score_documents(model, tokenizer, DOCUMENTS)
    assert [row.nats for row in rows] == pytest.approx([row.nats for row in expected], abs=1e-3)


def test_summary_by_hand():
    rows = [
        DocumentScore(nats=8 * math.log(2), n_bytes=4, n_tokens=3),
        DocumentScore(nats=4 * math.log(2), n_bytes=8, n_tokens=3),
    ]
    summary = heldout_summary(rows)
    assert summary.bits_per_byte == pytest.approx(1.0)
    assert (summary.low, summary.high) == pytest.approx((0.5, 2.0))
    assert (summary.n_bytes, summary.n_documents) == (12, 2)


def test_a_uniform_model_needs_the_tokens_own_bits(tokenizer):
    model = tiny.llama(len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    rows = score_documents(model, tokenizer, DOCUMENTS[:2])
    n_tokens, n_bytes = (sum(getattr(row, key) for row in rows) for key in ("n_tokens", "n_bytes"))
    expected = n_tokens * math.log2(model.config.vocab_size) / n_bytes
    assert heldout_summary(rows).bits_per_byte == pytest.approx(expected)


def test_documents_stand_between_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\r\n\r\n  \n\nthree ü\n".encode())
    (tmp_path / "b.txt").write_text("four")
    assert read_documents([tmp_path / "a.txt", tmp_path / "b.txt"]) == ["one\ntwo", "three ü", "four"]
    (tmp_path / "rows.jsonl").write_text('{"body": "one\\n\\ntwo"}\n{"body": null}\n')
    assert read_documents([tmp_path / "rows.jsonl"], TextFormat("body")) == ["one\n\ntwo"]
    (tmp_path / "stories.txt").write_text("one\n\ntwo\n---\nthree\n")
    assert read_documents([tmp_path / "stories.txt"], TextFormat(separator="---")) == ["one\n\ntwo", "three"]
    (tmp_path / "c.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"c.txt: holds no text"):
        read_documents([tmp_path / "c.txt"])


def test_mistakes_are_one_line(tokenizer):
    model = tiny.llama(len(tokenizer))
    torch.nn.init.constant_(model.lm_head.weight, math.nan)
    with pytest.raises(UserError, match=r"'Ada Lopez was born in Kuala Lumpur.'.* not a finite number"):
        score_documents(model, tokenizer, DOCUMENTS)
    tokenizer = tiny.byte_level()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither BOS nor end-of-text"):
        score_documents(model, tokenizer, DOCUMENTS)


TOKENIZERS = {
    "no BOS": tiny.byte_level,
    "adds BOS": lambda: tiny.byte_level(bos=True),
    "adds BOS and end-of-text": lambda: tiny.byte_level(bos=True, eos=True),
    "BPE of this project": lambda: train_bpe_tokenizer(tiny.sentences(), 400),
    "SentencePiece-like": tiny.metaspace,
}
LONG = [" ".join(tiny.sentences()[:n]) for n in (1, 20, 33)]


def lm_eval_nats(model, tokenizer, documents, **options):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # a copy, since HFLM gives the tokenizer a padding token
    lm = HFLM(pretrained=model, tokenizer=deepcopy(tokenizer), device="cpu", batch_size=4, **options)
    requests = [Instance("loglikelihood_rolling", {}, (text,), k) for k, text in enumerate(documents)]
    return [-logprob for logprob in lm.loglikelihood_rolling(requests, disable_tqdm=True)]


@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rolling_windows_give_lm_evals_figure(kind, make, monkeypatch):
    tokenizer = TOKENIZERS[kind]()
    model = make(len(tokenizer), context=32)
    documents = [*DOCUMENTS, *LONG, " ".join(DOCUMENTS * 3)]
    lengths = [len(tokenizer.encode(text)) for text in documents]
    assert min(lengths) < 32 < max(lengths) // 8
    expected = pytest.approx(lm_eval_nats(model, tokenizer, documents), rel=1e-4)
    rows = score_documents(model, tokenizer, documents, style="rolling")
    assert [row.nats for row in rows] == expected
    assert [row.n_bytes for row in rows] == [len(text.encode()) for text in documents]
    monkeypatch.setattr(heldout, "MAX_LOGITS", 7 * len(tokenizer))  # windows in several parts
    in_parts = score_documents(model, tokenizer, documents, style="rolling", batch_tokens=50)
    assert [row.nats for row in in_parts] == expected
    overlap = score_documents(model, tokenizer, documents)
    assert [row.nats for row in overlap] != expected
    assert heldout_summary(rows, style="rolling").style == "rolling"


@pytest.mark.parametrize("prefix", ["eos", "bos", "none"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_rolling_windows_behind_another_prefix_than_the_tokenizers(prefix, adds_bos):
    """As lm-eval with `add_bos_token=False,prefix_token_id=ID`: the prefix is not scored."""
    tokenizer = tiny.byte_level(bos=adds_bos)
    tokenizer.bos_token = "<s>"
    model = tiny.llama(len(tokenizer), context=32)
    record_prefix(model, prefix)
    prefix_id = {"eos": 2, "bos": 1, "none": 1}[prefix]  # where nothing stands before a text, BOS predicts it
    # BOS after BOS is scored only where the tokenizer puts it there by itself, as in lm-eval
    add = {} if adds_bos and prefix == "bos" else {"add_bos_token": False, "prefix_token_id": prefix_id}
    expected = lm_eval_nats(model, tokenizer, LONG, **add)
    for chosen in (None, prefix):  # as it was trained, and by choice
        rows = score_documents(model, tokenizer, LONG, style="rolling", prefix=chosen)
        assert [row.nats for row in rows] == pytest.approx(expected, rel=1e-4)


def test_rolling_windows_are_as_long_as_the_models_context(tokenizer, monkeypatch):
    monkeypatch.setattr(heldout, "MAX_WINDOW", 16)  # of `overlap` alone
    model = tiny.llama(len(tokenizer), context=512)
    expected = lm_eval_nats(model, tokenizer, LONG)
    rows = score_documents(model, tokenizer, LONG, style="rolling")
    assert [row.nats for row in rows] == pytest.approx(expected, rel=1e-4)
    del model.config.max_position_embeddings  # no limit: the tokenizer's, or else lm-eval's number
    for limit in (24, 10**30):
        tokenizer.model_max_length = limit
        rows = score_documents(model, tokenizer, LONG, style="rolling")
        assert [row.nats for row in rows] == pytest.approx(lm_eval_nats(model, tokenizer, LONG), rel=1e-4)
