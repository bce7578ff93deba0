"""Training the tokenizer of an STLM: byte-level BPE, as in GPT-2, with a vocabulary of any size.

There is no tokenizer class of our own: what is trained here is a plain PreTrainedTokenizerFast, which
AutoTokenizer loads without any custom code.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from configs.errors import UserError

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


def train_bpe_tokenizer(
    texts: Iterable[str], vocab_size: int, *, bos: bool = True, show_progress: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose `<|endoftext|>` ends documents and, with `bos`, begins them.

    Every text can be encoded and decoded without loss, since the 256 bytes are always in the vocabulary. The
    offsets of a token hold its leading space. The same texts in the same order give the same tokenizer.

    Args:
        texts: Documents, read once.
        vocab_size: Number of tokens, special ones included. Fewer come out when the texts hold too few
            different words: size the model by `len(tokenizer)`.
        bos: Put `<|endoftext|>` in front of what is encoded with `add_special_tokens=True`, the default.
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
    # transformers writes the post-processor that adds the BOS. GPT-2's ByteLevel post-processor is left out:
    # all that it does is to cut the leading space from the offsets.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        add_bos_token=bos,
    )
