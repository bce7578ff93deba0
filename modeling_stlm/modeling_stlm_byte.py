"""The byte-pooled STLM: bytes in, an STLM over words, bytes out (Hillier et al. 2024, arXiv:2405.14159).

    bytes      T h e _ c a t _ s a t           input_ids, (batch, seq)
    encoder    layers over the bytes of a word; attention does not leave the word
    words      |The|     |_cat|    |_sat|      one vector each: the state of the word's last byte, which has
                                               attended to all of the word
    STLM       the ordinary decoder over words
    decoder    layers over the bytes of a word again; each byte is given the STLM's output for the word before
    logits     of the byte that follows each byte, (batch, seq, vocab)

Where words begin. The paper cuts words with GPT-2's tokenizer, whose cuts depend on bytes to come: under
teacher forcing the place of a cut would tell the model how the word goes on. Here whether a byte begins a
word depends on that byte and those before it alone (`find_words`), and what predicts byte i + 1 is computed
from bytes 0 to i.

What the first byte of a word is predicted from. That a word is over shows only when the next one begins. So
the last byte of a word has to predict the first byte of the next one before the word's own vector is there:
from the STLM's output for the words before, and from all bytes of its own word, which the decoder's layers
read. Cutting behind a word would give it that vector, but only at bytes that end a word whatever follows, and
these are the spaces. So a space begins a word, as it does in GPT-2's tokenizer. Then the first byte of a word
mostly says no more than that the word before is complete, which its spelling shows. Which word comes next is
decided at its first letter, behind the space, where the STLM has read everything before.

Other choices. The head in the paper's code gives all bytes of a word at once, each without the others; but
here a byte sees those before it in its word, without which no word can be spelled. The encoder is causal in
words too, so that its states serve the decoder as well. The vector of a word is the state of its last byte
rather than a mean over all places, padding included. There is no auxiliary loss of reconstruction.

A token is a byte or a special token, and the loss is the mean over them: end of text is predicted like a byte
and counts as one token; padding never counts, since its labels are -100. So `loss / ln 2` is bits per token.
Bits per byte, as training reports them, are a little more: the same sum, divided by the bytes of the text
alone, among which end of text is none.

This file travels to the Hub beside the weights: it may import torch, transformers and its siblings, nothing
else.
"""
# The conventions of transformers (marks on modules, position_ids beside **kwargs) are beyond a type checker.
# mypy: disable-error-code="assignment, attr-defined, index, misc, operator, override"

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_stlm_byte import MAX_CHARACTER_BYTES, STLMByteConfig
from .modeling_stlm import CACHE, STLMDecoderLayer, STLMModel, STLMPreTrainedModel, given_cache, make_norm

N_BYTES = 256  # ids from here on are special tokens
SPACE, LETTER, DIGIT, OTHER, SPECIAL = range(5)


@dataclass
class Words:
    """Which word each byte belongs to; tensors are (batch, seq) and long unless said otherwise."""

    ids: torch.Tensor
    """Number of the byte's word in its row, from 0; that of padding means nothing."""
    offsets: torch.Tensor
    """Place of the byte in its word, from 0."""
    first_of_document: torch.Tensor
    """Number of the first word of the byte's document."""
    last_bytes: torch.Tensor
    """Index of each word's last byte, (batch, words); rows with fewer words are filled up with `seq - 1`."""


def byte_classes(input_ids: torch.Tensor) -> torch.Tensor:
    """SPACE, LETTER, DIGIT, OTHER or SPECIAL for each id.

    All bytes of non-ASCII characters are letters, so that no character is cut; so is the apostrophe, and
    "don't" is one word.
    """
    lower = input_ids | 32
    letter = ((lower >= ord("a")) & (lower <= ord("z"))) | (input_ids >= 128) | (input_ids == ord("'"))
    digit = (input_ids >= ord("0")) & (input_ids <= ord("9"))
    space = (input_ids == ord(" ")) | ((input_ids >= ord("\t")) & (input_ids <= ord("\r")))
    classes = torch.full_like(input_ids, OTHER)
    classes = classes.masked_fill(letter, LETTER).masked_fill(digit, DIGIT).masked_fill(space, SPACE)
    return classes.masked_fill(input_ids >= N_BYTES, SPECIAL)


def find_words(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    max_word_bytes: int,
) -> Words:
    """Cut rows of bytes (batch, seq) into words, each byte by itself and those before it.

    White space begins the word that follows it; else letters, digits and other characters are words of their
    own, as are special tokens. A word that would grow beyond `max_word_bytes` is cut between two characters.
    Behind padding, and where `position_ids` do not go on by one, a new document begins, and a word with it.
    """
    length = input_ids.shape[1]
    index = torch.arange(length, device=input_ids.device).expand_as(input_ids)
    present = (
        torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    )

    follows = present[:, 1:] & present[:, :-1]  # (batch, seq - 1), as all pairs of neighbours here
    if position_ids is not None:
        follows = follows & (position_ids[:, 1:] == position_ids[:, :-1] + 1)
    document_begins = F.pad(~follows, (1, 0), value=True)
    classes = byte_classes(input_ids)
    before, here = classes[:, :-1], classes[:, 1:]
    differs = ((here != before) & (before != SPACE)) | (here == SPECIAL)
    begins = document_begins | F.pad(differs, (1, 0), value=True)

    # Too long a word is cut by the place of each character's first byte, so that characters stay whole. Bytes
    # that are no UTF-8 may go on for ever without such a first byte: there each counts for itself.
    start = torch.where(begins, index, 0).cummax(dim=1).values
    continues = (input_ids >= 0x80) & (input_ids < 0xC0) & ~begins
    character = torch.where(continues, 0, index).cummax(dim=1).values
    place = torch.maximum(character, index - (MAX_CHARACTER_BYTES - 1)) - start
    piece = place // (max_word_bytes - (MAX_CHARACTER_BYTES - 1))
    begins = begins | F.pad(piece[:, 1:] != piece[:, :-1], (1, 0), value=True)

    word_ids = (begins & present).cumsum(dim=1) - 1
    start = torch.where(begins, index, 0).cummax(dim=1).values
    first_of_document = torch.where(document_begins & present, word_ids, 0).cummax(dim=1).values

    num_words = int(word_ids.max().clamp(min=0)) + 1
    is_last = present & F.pad((begins | ~present)[:, 1:], (0, 1), value=True)
    # one column more, for the bytes that end no word
    last_bytes = index.new_full((index.shape[0], num_words + 1), length - 1)
    last_bytes = last_bytes.scatter(1, torch.where(is_last, word_ids, num_words), index)[:, :num_words]
    return Words(
        ids=word_ids,
        offsets=(index - start).clamp(max=max_word_bytes - 1),
        first_of_document=first_of_document,
        last_bytes=last_bytes,
    )


def word_mask(word_ids: torch.Tensor, max_word_bytes: int) -> torch.Tensor:
    """Which bytes each byte sees: itself and those before it in its word.

    Rows are cut into chunks of `max_word_bytes`. A word reaches back into the chunk before at the most, so
    that two chunks of keys are enough for a chunk of queries: (batch, chunks, size, 2 * size), bool.
    """
    size = max_word_bytes
    padded = F.pad(word_ids, (0, -word_ids.shape[1] % size))
    queries = padded.unflatten(1, (-1, size))  # (batch, chunks, size)
    keys = torch.cat((F.pad(queries[:, :-1], (0, 0, 1, 0), value=-1), queries), dim=2)
    causal = torch.ones(size, 2 * size, dtype=torch.bool, device=word_ids.device).tril(diagonal=size)
    return (queries[..., :, None] == keys[..., None, :]) & causal


def attention_within_words(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, None]:
    """Attention under a `word_mask`, as a function for the attention interface of transformers.

    Its cost grows with seq, not with its square. Queries, keys and values are (batch, heads, seq, head_dim),
    the output is (batch, seq, heads, head_dim).
    """
    batch, heads, length, head_dim = query.shape
    _, chunks, size, _ = attention_mask.shape

    def fold(states: torch.Tensor) -> torch.Tensor:  # (batch, chunks, size, heads, head_dim)
        states = F.pad(states.transpose(1, 2), (0, 0, 0, 0, 0, chunks * size - length))
        return states.unflatten(1, (chunks, size))

    def with_chunk_before(
        states: torch.Tensor,
    ) -> torch.Tensor:  # (batch * chunks, heads, 2 * size, head_dim)
        states = fold(states)
        before = F.pad(states[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat((before, states), dim=2).flatten(0, 1).transpose(1, 2)

    attn_output = F.scaled_dot_product_attention(
        fold(query).flatten(0, 1).transpose(1, 2),  # (batch * chunks, heads, size, head_dim)
        with_chunk_before(key),
        with_chunk_before(value),
        attn_mask=attention_mask.flatten(0, 1).unsqueeze(1),
        dropout_p=dropout,
        scale=scaling,
    )
    attn_output = attn_output.transpose(1, 2).reshape(batch, chunks * size, heads, head_dim)
    return attn_output[:, :length], None


ALL_ATTENTION_FUNCTIONS.register("within_words", attention_within_words)


@auto_docstring(
    custom_intro="""
    The byte-pooled model without the output layer.

    `hidden_states` are those of bytes, each (batch, seq, byte_hidden): the embeddings, then the output of
    every layer of the encoder and of the decoder; the last is `last_hidden_state`. `attentions` are those
    over words, each (batch, heads, words, words): layers over bytes return none.
    """
)
class STLMByteModel(STLMPreTrainedModel):
    config: STLMByteConfig
    # The number of words differs from batch to batch.
    _can_compile_fullgraph = False
    # Those over words are recorded by the STLM, whose attentions are handed on.
    _can_record_outputs = {"hidden_states": STLMDecoderLayer}

    def __init__(self, config: STLMByteConfig):
        super().__init__(config)
        width = config.byte_hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_offsets = nn.Embedding(config.max_word_bytes, width)
        self.embd_dropout = nn.Dropout(config.embd_dropout)
        final_norm = config.final_norm_type or config.norm_type
        layer_config = config.byte_layer_config()
        layer_config._attn_implementation = "within_words"
        self.encoder = nn.ModuleList(
            STLMDecoderLayer(layer_config, idx) for idx in range(config.num_byte_encoder_layers)
        )
        self.pool_norm = make_norm(final_norm, layer_config)
        self.pool_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.pool_proj.starts_like_embedding = True
        self.words = STLMModel(config)
        del self.words.embed_tokens  # it reads vectors of words
        self.context_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.context_proj.starts_like_embedding = True
        self.decoder = nn.ModuleList(
            STLMDecoderLayer(layer_config, idx) for idx in range(config.num_byte_decoder_layers)
        )
        self.norm = make_norm(final_norm, layer_config)
        self.post_init()

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        # What these add to a residual stream must be about as large as its embeddings. The usual start makes
        # it sqrt(width) times as large, which would hide which byte the embedding stands for. A tiny model
        # was better by 0.4 bits per byte after 100 steps.
        if isinstance(module, nn.Linear) and getattr(module, "starts_like_embedding", False):
            init.normal_(module.weight, std=self.config.initializer_range / math.sqrt(module.in_features))

    @capture_outputs
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: None = None,
        inputs_embeds: None = None,
        use_cache: bool | None = None,
        cache: None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        r"""
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            0 for padding, which may stand on either side.
        position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Read only for where they do not go on by one: a new document begins there, and none of its bytes
            sees what stands before. Words are numbered from the beginning of their document.
        past_key_values (`None`, *optional*):
            Refused: the model keeps no cache. The argument's name until transformers 5.23.
        cache (`None`, *optional*):
            Refused: the model keeps no cache. The argument's name since transformers 5.24.
        inputs_embeds (`None`, *optional*):
            Refused: words are cut by the bytes themselves.
        """
        if given_cache(cache, past_key_values, kwargs) is not None:
            raise ValueError(f"the byte model keeps no cache: give it the whole text and no `{CACHE}`")
        if inputs_embeds is not None:
            raise ValueError("the byte model cuts bytes into words: give it `input_ids`, not `inputs_embeds`")
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError(
                f"`attention_mask` must be (batch, seq); it has {attention_mask.dim()} dimensions"
            )
        words = find_words(input_ids, attention_mask, position_ids, self.config.max_word_bytes)
        mask = word_mask(words.ids, self.config.max_word_bytes)

        hidden_states = self.embd_dropout(self.embed_tokens(input_ids) + self.embed_offsets(words.offsets))
        for layer in self.encoder:
            hidden_states = layer(hidden_states, position_embeddings=None, attention_mask=mask)

        # One vector a word, its last byte's state.
        row = torch.arange(input_ids.shape[0], device=input_ids.device)[:, None]
        pooled = self.pool_norm(hidden_states[row, words.last_bytes])  # (batch, words, byte_hidden)
        pooled = self.pool_proj(pooled)  # (batch, words, hidden)
        number = torch.arange(pooled.shape[1], device=input_ids.device)
        outputs = self.words(
            inputs_embeds=pooled,
            position_ids=number - words.first_of_document[row, words.last_bytes],
            use_cache=False,
            **kwargs,
        )
        # Each byte reads the word before its own, unless that is the first of its document.
        context = self.context_proj(outputs.last_hidden_state)[row, (words.ids - 1).clamp(min=0)]
        hidden_states = hidden_states + context * (words.ids > words.first_of_document).unsqueeze(-1)
        for layer in self.decoder:
            hidden_states = layer(hidden_states, position_embeddings=None, attention_mask=mask)
        return BaseModelOutput(
            last_hidden_state=self.norm(hidden_states),  # (batch, seq, byte_hidden)
            attentions=outputs.attentions,
        )


@auto_docstring
class STLMByteForCausalLM(STLMPreTrainedModel, GenerationMixin):
    config: STLMByteConfig
    _can_compile_fullgraph = False
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: STLMByteConfig):
        super().__init__(config)
        self.model = STLMByteModel(config)
        self.lm_head = nn.Linear(config.byte_hidden_size, config.vocab_size, bias=config.lm_head_bias)
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: None = None,
        inputs_embeds: None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutput:
        r"""
        past_key_values (`None`, *optional*):
            Refused: the model keeps no cache. The argument's name until transformers 5.23.
        cache (`None`, *optional*):
            Refused: the model keeps no cache. The argument's name since transformers 5.24.
        """
        outputs: BaseModelOutput = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            cache=cache,
            **kwargs,
        )
        # An int keeps the last positions (0 keeps all), a tensor the positions that it lists.
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])  # (batch, kept, vocab)

        loss = None
        if labels is not None:
            # Shifts the labels, computes in float32, divides by num_items_in_batch if the Trainer sends it.
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)

        return CausalLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _prepare_cache_for_generation(self, generation_config: GenerationConfig, *args, **kwargs) -> None:
        # `generate` reads use_cache behind this call: without it, it hands over the whole text at every step.
        generation_config.use_cache = False


__all__ = ["STLMByteForCausalLM", "STLMByteModel"]
