import pytest
from transformers import AutoTokenizer

from modeling_stlm.tokenization_stlm import byte_tokenizer, train_bpe_tokenizer
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.scoring.encoding import Item, encode_items

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


# --- plain bytes ---


def test_the_id_of_a_byte_is_its_value():
    tokenizer = byte_tokenizer()
    assert len(tokenizer) == tokenizer.vocab_size == 258
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|pad|>", 256)
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.bos_token_id) == (
        "<|endoftext|>",
        257,
        257,
    )
    text = "".join(map(chr, range(0x110))) + "東京 😀"
    assert tokenizer(text, add_special_tokens=False).input_ids == list(text.encode())
    assert tokenizer("a<|endoftext|>b<|pad|>", add_special_tokens=False).input_ids == [97, 257, 98, 256]


@pytest.mark.parametrize("text", [TEXTS[-1], *STRANGE])
def test_bytes_decode_to_the_text(text):
    tokenizer = byte_tokenizer()
    ids = tokenizer(text).input_ids
    assert ids == [257, *text.encode()]
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text
    assert tokenizer.decode([*ids[:1], 0xC3], skip_special_tokens=True) == "\ufffd"  # half a character


@pytest.mark.parametrize("text", [TEXTS[-1], *STRANGE])
def test_bytes_of_a_character_share_its_offsets(text):
    offsets = byte_tokenizer()(text, return_offsets_mapping=True).offset_mapping
    expected = [(at, at + 1) for at, character in enumerate(text) for _ in character.encode()]
    assert offsets == [(0, 0), *expected]


def test_bytes_of_an_answer_are_found_behind_any_prompt():
    items = [
        Item("Zoë is in", ["Århus", "東京"], suffix="."),
        Item("東", ["京都", "京"], joint=""),
        Item("", ["é"]),
    ]
    rows = encode_items(byte_tokenizer(), items)
    texts = ["Zoë is in Århus.", "Zoë is in 東京.", "東京都", "東京", "é"]
    scored = [" Århus.", " 東京.", "京都", "京", "é"]
    assert [row.ids for row in rows] == [[257, *text.encode()] for text in texts]
    assert [bytes(row.ids[-row.n_scored :]).decode() for row in rows] == scored
    assert [row.n_bytes for row in rows] == [len(text.encode()) for text in scored]
    assert not any(row.straddles for row in rows)


@pytest.mark.parametrize("bos", [True, False])
def test_bytes_load_back_with_equal_encodings(tmp_path, bos):
    tokenizer = byte_tokenizer(bos=bos)
    for generation in ("first", "second"):
        tokenizer.save_pretrained(tmp_path / generation)
        loaded = AutoTokenizer.from_pretrained(tmp_path / generation)
        for text in [*TEXTS, *STRANGE]:
            assert loaded(text).input_ids == ([257] if bos else []) + list(text.encode())
            assert loaded(text, return_offsets_mapping=True) == tokenizer(text, return_offsets_mapping=True)
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded(TEXTS[:3], padding=True) == tokenizer(TEXTS[:3], padding=True)
        assert len(loaded) == 258
        tokenizer = loaded
