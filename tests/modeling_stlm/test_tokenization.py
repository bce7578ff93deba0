import pytest
from transformers import AutoTokenizer

from configs.errors import UserError
from modeling_stlm.tokenization_stlm import train_bpe_tokenizer

TEXTS = [
    f"{name} was born in {year} and lives in {city}, not far from the river."
    for name in ("Ada", "Grace", "Zoë", "José")
    for year in (1912, 1987, 2003)
    for city in ("Lyon", "Århus", "St. John's")
]
# what the tokenizer never saw: runs of spaces, line ends, other scripts, an emoji, a control character
STRANGE = ["  two  spaces \n\n\tand tabs", "naïve 東京 😀!", "3.14e-10 <b>x</b>", "\x00", ""]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe_tokenizer(TEXTS, vocab_size=300)


def test_special_tokens_and_size(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 300
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    assert tokenizer.pad_token == "<|pad|>"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert tokenizer("Ada<|endoftext|>", add_special_tokens=False).input_ids[-1] == 0


@pytest.mark.parametrize("text", [TEXTS[0], *STRANGE])
def test_decoding_gives_the_text_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("bos", [True, False])
def test_bos_stands_in_front_when_asked_for(bos):
    tokenizer = train_bpe_tokenizer(TEXTS, vocab_size=300, bos=bos)
    plain = tokenizer(TEXTS[0], add_special_tokens=False).input_ids
    assert tokenizer.bos_token_id not in plain
    assert tokenizer(TEXTS[0]).input_ids == ([tokenizer.bos_token_id] if bos else []) + plain
    assert tokenizer("").input_ids == ([tokenizer.bos_token_id] if bos else [])


@pytest.mark.parametrize("text", [TEXTS[-1], *STRANGE])
def test_offsets_cover_the_text_with_its_spaces(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True)
    bos_offsets, *offsets = encoding["offset_mapping"]
    assert bos_offsets == (0, 0)
    covered = sorted({position for start, end in offsets for position in range(start, end)})
    assert covered == list(range(len(text)))
    for token_id, (start, end) in zip(encoding["input_ids"][1:], offsets, strict=True):
        piece = tokenizer.decode([token_id])
        if "\ufffd" not in piece:  # a token that is a part of a character's bytes covers the whole character
            assert piece == text[start:end]


@pytest.mark.parametrize("bos", [True, False])
def test_loads_back_with_equal_encodings(tmp_path, bos):
    tokenizer = train_bpe_tokenizer(TEXTS, vocab_size=300, bos=bos)
    # twice, since what the first save loses is lost in the second load
    for generation in ("first", "second"):
        tokenizer.save_pretrained(tmp_path / generation)
        loaded = AutoTokenizer.from_pretrained(tmp_path / generation)
        for text in [*TEXTS, *STRANGE]:
            for special in (True, False):
                arguments = {"add_special_tokens": special, "return_offsets_mapping": True}
                assert loaded(text, **arguments) == tokenizer(text, **arguments)
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded(TEXTS[:3], padding=True) == tokenizer(TEXTS[:3], padding=True)
        tokenizer = loaded


def test_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_bpe_tokenizer(iter(TEXTS), vocab_size=300)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_too_small_a_vocabulary_is_refused():
    assert len(train_bpe_tokenizer(TEXTS, vocab_size=258)) == 258
    with pytest.raises(UserError, match=r"tokenizer\.train\.vocab_size is 257: set it to at least 258"):
        train_bpe_tokenizer(TEXTS, vocab_size=257)
