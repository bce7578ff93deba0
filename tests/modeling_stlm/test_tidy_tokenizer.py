"""Tokenizer files of Tidy-STLMs: the same ids as its own encoder gives."""

import random
from itertools import pairwise

import pytest
from transformers import AutoTokenizer

from modeling_stlm.tidy.tokenizer import read_tidy_tokenizer
from tidy_stlms.configs.errors import UserError

SENTENCES = [
    "The old farmer walked to the market, and the old miller walked home.",
    "Zoë's café in Kraków sold 12 crêpes; the naïve coöperative bought 7.",
    "    def f(x):\n\treturn x  # 東京 and 大阪\n\n",
    "aaaaaaa aaa aa a abababab banana bandana 🙂🙂🙂 🙂",
]
ALPHABET = "aab  n\n\té東🙂Zx.,’"


def train_pairs(text: str, count: int) -> list[tuple[int, int]]:
    """The most frequent pair of neighbours, again and again."""
    ids, pairs = list(text.encode()), []
    for token in range(256, 256 + count):
        neighbours = list(pairwise(ids))
        pairs.append(max(sorted(set(neighbours)), key=neighbours.count))
        ids = merged(ids, pairs[-1], token)
    return pairs


def merged(ids: list[int], pair: tuple[int, int], token: int) -> list[int]:
    result = []
    for new in ids:
        if result and (result[-1], new) == pair:
            result[-1] = token
        else:
            result.append(new)
    return result


def encode(text: str, pairs: list[tuple[int, int]]) -> list[int]:
    """The reference: from the bytes, every pair that occurs is merged, the one first in the file first."""
    ids = list(text.encode())
    while True:
        present = set(pairwise(ids))
        ranks = [rank for rank, pair in enumerate(pairs) if pair in present]
        if not ranks:
            return ids
        ids = merged(ids, pairs[ranks[0]], 256 + ranks[0])


@pytest.fixture(scope="module")
def pairs():
    return train_pairs("".join(SENTENCES) * 2, 120)


@pytest.fixture(scope="module")
def file(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / f"bpe_simple_en_wiki_{256 + len(pairs) + 2}.model"
    path.write_text("".join(f"{left} {right}\n" for left, right in pairs))
    return path


def test_ids_equal_the_reference(file, pairs):
    tokenizer = read_tidy_tokenizer(file)
    rng = random.Random(0)
    texts = SENTENCES + ["".join(rng.choices(ALPHABET, k=rng.randrange(40))) for _ in range(400)]
    texts += ["".join(rng.choice(SENTENCES).split(" ")) + " " + rng.choice(SENTENCES) for _ in range(20)]
    for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        assert ids == encode(text, pairs)
        assert tokenizer.decode(ids) == text
    used = {token for text in texts for token in encode(text, pairs)}
    assert len({token for token in used if token >= 256}) > 60
    assert any(" " in tokenizer.decode([token]).strip() for token in used)  # tokens go across words


def test_every_id_stands_for_its_bytes(file, pairs):
    tokenizer = read_tidy_tokenizer(file)
    meaning = [bytes([byte]) for byte in range(256)]
    for left, right in pairs:
        meaning.append(meaning[left] + meaning[right])
    assert len(tokenizer) == len(meaning) + 2
    for token, expected in enumerate(meaning):
        assert tokenizer.decode([token]) == expected.decode(errors="replace")


def test_special_tokens_are_the_last_two(file):
    tokenizer = read_tidy_tokenizer(file)
    assert tokenizer.convert_tokens_to_ids(["<|pad|>", "<|endoftext|>"]) == [376, 377]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (376, 377)
    assert tokenizer("a<|endoftext|>")["input_ids"] == [97, 377]
    assert tokenizer("")["input_ids"] == []
    assert tokenizer("a<|endoftext|>", split_special_tokens=True)["input_ids"][0] == 97


def test_saved_it_loads_by_autotokenizer(file, tmp_path):
    read_tidy_tokenizer(file).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(SENTENCES)["input_ids"] == read_tidy_tokenizer(file)(SENTENCES)["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (376, 377, 378)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("97 98\n98 x\n", ["line 2", "pair of ids"]),
        ("97 98\n\n99 100\n", ["line 2"]),
        ("97 98\n-1 3\n", ["line 2"]),
        ("97 98\n97 257\n", ["line 2", "257"]),
        ('{"version": "1.0"}', ["line 1"]),
        # a + bc and ab + c
        ("97 98\n98 99\n97 257\n256 99\n", ["258", "259", "same bytes"]),
    ],
)
def test_broken_files_are_refused_with_the_line(tmp_path, content, parts):
    (tmp_path / "a.model").write_text(content)
    with pytest.raises(UserError) as error:
        read_tidy_tokenizer(tmp_path / "a.model")
    for part in (str(tmp_path / "a.model"), *parts):
        assert part in str(error.value)


def test_a_file_that_was_cut_off_is_noticed_by_its_name(tmp_path, file, pairs):
    path = tmp_path / file.name
    path.write_text("".join(f"{left} {right}\n" for left, right in pairs[:-3]))
    with pytest.raises(UserError, match=r"holds 375 tokens, its name says 378"):
        read_tidy_tokenizer(path)
