"""Bytes of text behind tokens, by which losses of different tokenizers are compared."""

import math

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tidy_stlms.trainers.stream import Blocks, ValidationRows
from tidy_stlms.trainers.text_bytes import bytes_per_token, token_bytes

TEXTS = ["Plain words, and more words.", "élan, naïve, 東京 🙂 end", "  spaces   and\nlines\t"]


def metaspace_tokenizer():
    """Llama's kind: ▁ for a space, and bytes as <0x..>."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")]
    )
    special = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS[:1], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<unk>")


@pytest.mark.parametrize("make", [lambda: train_bpe_tokenizer(TEXTS, 320), metaspace_tokenizer])
@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_of_a_text_have_as_many_bytes_as_the_text(make, text):
    tokenizer = make()
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert token_bytes(tokenizer)[ids].sum() == len(text.encode())
    assert token_bytes(tokenizer)[tokenizer.all_special_ids].sum() == 0


def test_bytes_per_token_counts_what_is_predicted(tmp_path):
    tokenizer = train_bpe_tokenizer(TEXTS, 300)
    eos, a, b = tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["a", "b"])
    np.array([a, b, eos, a, eos, eos, eos, b], dtype="uint16").tofile(tmp_path / "rows.bin")
    rows = ValidationRows(Blocks(tmp_path / "rows.bin", "uint16", 4), limit=8)
    assert bytes_per_token(rows, tokenizer) == (2 + 1) / 6  # the rows' first tokens are given
    assert bytes_per_token(ValidationRows(rows.blocks, limit=0), tokenizer) is None


def test_bits_per_byte_of_a_run(run_tiny):
    import json

    folder = run_tiny("run", "training.max_steps=6", "injection.exposures=1")
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row for row in logged if "eval_loss" in row]
    assert evaluated
    ratios = [row["eval_loss"] / math.log(2) / row["eval_bits_per_byte"] for row in evaluated]
    assert max(ratios) - min(ratios) < 1e-9
    assert 2 < ratios[0] < 8  # plain English in a small vocabulary
