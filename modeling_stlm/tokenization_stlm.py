"""The tokenizers of an STLM: byte-level BPE, as in GPT-2, with a vocabulary of any size, and plain bytes.

Both are plain PreTrainedTokenizerFast, which AutoTokenizer loads without custom code.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tidy_stlms.configs.errors import UserError

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


def train_bpe_tokenizer(
    texts: Iterable[str], vocab_size: int, *, bos: bool = True, show_progress: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer. `<|endoftext|>` ends documents and, with `bos`, begins them.

    Every text can be encoded and decoded without loss, since the 256 bytes are always in the vocabulary. The
    offsets of a token include its leading space. The same texts in the same order give the same tokenizer.

    Args:
        texts: Documents, read once.
        vocab_size: Number of tokens, special tokens included. Texts with too few different words give fewer,
            so use `len(tokenizer)` for the model's size.
        bos: Put `<|endoftext|>` before a text that is encoded with `add_special_tokens=True`, the default.
        show_progress: Show a progress bar.

    Raises:
        UserError: If `vocab_size` has no room for the bytes and the special tokens.
    """
    special_tokens = [END_OF_TEXT, PAD]
    alphabet = pre_tokenizers.ByteLevel.alphabet()  # one printable character for each of the 256 bytes
    smallest = len(alphabet) + len(special_tokens)
    if vocab_size < smallest:
        raise UserError(
            f"tokenizer.train.vocab_size is {vocab_size}: set it to at least {smallest} "
            f"(256 bytes and {len(special_tokens)} special tokens)"
        )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=alphabet,
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrapped(tokenizer, bos)


def byte_tokenizer(*, bos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer with the bytes of UTF-8 as tokens. The id of a byte is its value.

    Ids 0 to 255 are the bytes, 256 is `<|pad|>` and 257 `<|endoftext|>`, as in Super Tiny Language Models.
    Every text can be encoded and decoded without loss. The tokens of a character that takes several bytes all
    have the offsets of the whole character.

    Args:
        bos: Put `<|endoftext|>` before a text that is encoded with `add_special_tokens=True`, the default.
    """
    # A byte-level BPE that has learned no merges; its alphabet writes each byte as a printable character.
    tokens = [*byte_alphabet(), PAD, END_OF_TEXT]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END_OF_TEXT])
    return _wrapped(tokenizer, bos)


def byte_alphabet() -> list[str]:
    """The characters that stand for the bytes 0 to 255 in byte-level tokenizers.

    Bytes that are printable in Latin-1 have their own character, all others one from U+0100 on (GPT-2).
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    from_256 = iter(range(256, 512))
    return [chr(byte if byte in printable else next(from_256)) for byte in range(256)]


def _wrapped(tokenizer: Tokenizer, bos: bool) -> PreTrainedTokenizerFast:
    # transformers writes the post-processor that adds the BOS. GPT-2's ByteLevel post-processor is left out:
    # it only cuts the leading space from the offsets.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        add_bos_token=bos,
    )
