"""The byte-pooled model: words are cut by the past alone, and no byte sees the future."""

import math
import random

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F
from transformers import DynamicCache

from modeling_stlm import STLMByteForCausalLM
from modeling_stlm.modeling_stlm import STLMDecoderLayer
from modeling_stlm.modeling_stlm_byte import find_words
from tests.modeling_stlm.byte_examples import END, FAMILY, PAD, TEXTS, ids_of, make_byte_model


@pytest.fixture(scope="module")
def model() -> STLMByteForCausalLM:
    return make_byte_model()


def random_ids(seed: int, length: int) -> list[int]:
    """Words, numbers, marks, spaces, long characters, special tokens, and bytes that are no UTF-8."""
    generator = random.Random(seed)
    ids: list[int] = []
    while len(ids) < length:
        kind = generator.randrange(9)
        size = generator.choice([1, 2, 3, 5, 11])
        pools = ["abcXYZ'", "0123", " ", " \n\t", ".,=(-", "éß", "東“", "😀a"]
        if kind < len(pools):
            ids += "".join(generator.choices(pools[kind], k=size)).encode()
        else:
            ids += generator.choices([PAD, END, 0x80, 0xBF, 0xFF, 0xC3], k=size)
    return ids[:length]


def cut(ids: list[int], max_word_bytes: int) -> list[list[int]]:
    """The rule in a loop, one byte after the other."""

    def kind(i: int) -> str:
        if i >= 256:
            return "special"
        if i >= 128 or chr(i).isalpha() or chr(i) == "'":
            return "letter"
        return "digit" if chr(i).isdigit() else "space" if chr(i) in " \t\n\v\f\r" else "other"

    words: list[list[int]] = []
    run = character = piece = (
        0  # where the uncut word and the last character began; pieces of the word so far
    )
    for at, i in enumerate(ids):
        before = kind(ids[at - 1]) if at else None
        new = at == 0 or "special" in (before, kind(i)) or (kind(i) != before and before != "space")
        if new:
            run = at
        if new or not 0x80 <= i < 0xC0:
            character = at
        # a byte goes where its character's first byte goes; more than four bytes are no character
        piece_before, piece = piece, (max(character, at - 3) - run) // (max_word_bytes - 3)
        if new or piece != piece_before:
            words.append([])
        words[-1].append(i)
    return words


def words_of(ids: list[int], max_word_bytes: int = 16) -> list[list[int]]:
    found = find_words(torch.tensor([ids]), None, None, max_word_bytes)
    words: list[list[int]] = [[] for _ in range(max(found.ids[0].tolist()) + 1)]
    for i, word, offset in zip(ids, found.ids[0].tolist(), found.offsets[0].tolist(), strict=True):
        assert len(words[word]) == offset
        words[word].append(i)
    ends = torch.tensor([len(word) for word in words]).cumsum(0) - 1
    assert found.last_bytes[0].tolist() == ends.tolist()
    return words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's hat, naïve.", ["The", " cat's", " hat", ",", " naïve", "."]),
        ("x==10\n\n  (next)", ["x", "==", "10", "\n\n  (", "next", ")"]),
        ("3rd  ", ["3", "rd", "  "]),
        ("a“b” —c", ["a“b”", " —c"]),
        ("abcdefghijklmnopq", ["abcdefghijklm", "nopq"]),  # 13: a character of 4 bytes would still fit
        ("😀😀😀😀😀", ["😀😀😀😀", "😀"]),
        ("a東東東東東東", ["a東東東東", "東東"]),
    ],
)
def test_words(text, expected):
    assert [bytes(word).decode() for word in words_of(list(text.encode()))] == expected


def test_special_tokens_are_words_of_their_own():
    assert words_of(ids_of("a |b||")) == [[END], [ord("a")], [ord(" ")], [END], [ord("b")], [END], [END]]


def test_every_pair_of_bytes_is_cut_or_joined_by_the_rule():
    pairs = [[first, second] for first in range(258) for second in range(258)]
    ids = find_words(torch.tensor(pairs), None, None, 16).ids
    assert ids[:, 0].eq(0).all()
    assert ids[:, 1].tolist() == [len(cut(pair, 16)) - 1 for pair in pairs]


@pytest.mark.parametrize("max_word_bytes", [4, 5, 8, 16])
def test_words_equal_the_rule_in_a_loop(max_word_bytes):
    for seed in range(30):
        ids = random_ids(seed, 80)
        words = words_of(ids, max_word_bytes)
        assert words == cut(ids, max_word_bytes), seed
        assert max(map(len, words)) <= max_word_bytes


def test_characters_are_never_cut():
    for text in TEXTS:
        for max_word_bytes in (4, 6, 16):
            for word in words_of(list(text.encode()), max_word_bytes):
                bytes(word).decode()  # raises where a character is cut


def test_padding_begins_no_document_of_its_own():
    # else the decoder over words would be given a mask of several documents, and could not do without one
    row = ids_of("one two")
    for left, right in ((0, 0), (3, 0), (0, 3), (2, 2)):
        present = torch.tensor([[0] * left + [1] * len(row) + [0] * right])
        words = find_words(torch.tensor([[PAD] * left + row + [PAD] * right]), present, None, 8)
        assert words.first_of_document[present.bool()].eq(0).all()
        assert words.first_of_document[0, -1] == 0
        assert words.ids[present.bool()].tolist() == [0, 1, 1, 1, 2, 2, 2, 2]


def test_words_are_cut_by_the_past_alone():
    for seed in range(10):
        ids = random_ids(seed, 40)
        whole = find_words(torch.tensor([ids]), None, None, 6)
        for length in range(1, 40):
            part = find_words(torch.tensor([ids[:length]]), None, None, 6)
            assert torch.equal(part.ids, whole.ids[:, :length])
            assert torch.equal(part.offsets, whole.offsets[:, :length])


@pytest.mark.parametrize("overrides", FAMILY)
@torch.no_grad()
def test_no_logit_sees_a_later_byte(overrides):
    model = make_byte_model(**{"initializer_range": 0.1, **overrides})
    rows = [ids_of(text)[:48] for text in TEXTS] + [random_ids(seed, 48) for seed in range(3)]
    generator = random.Random(1)
    for number, row in enumerate(rows):
        n_padding = 3 * (number % 2)
        length = len(row)
        # row j differs from the first in byte j, by a byte of any class
        rows_changed = torch.tensor([row] * (length + 1))
        for j in range(length):
            rows_changed[j + 1, j] = generator.choice(
                [i for i in (32, 48, 97, 46, 0xE6, 0x9D, END) if i != row[j]]
            )
        input_ids = F.pad(rows_changed, (n_padding, 0), value=PAD)
        attention_mask = (torch.arange(length + n_padding) >= n_padding).long().expand_as(input_ids)
        logits = model(input_ids, attention_mask=attention_mask).logits[:, n_padding:]
        for j in range(length):
            torch.testing.assert_close(logits[j + 1, :j], logits[0, :j], atol=1e-6, rtol=0)
            assert not torch.allclose(logits[j + 1, j], logits[0, j], atol=1e-4), (number, j)


@torch.no_grad()
def test_every_earlier_byte_is_seen(model):
    """The other side of causality: whatever stands before in the document makes a difference."""
    row = ids_of("One two, three 44 five東京 six")
    changed = torch.tensor([row] * (len(row) + 1))
    for j in range(len(row)):
        changed[j + 1, j] = ord("z") if row[j] != ord("z") else ord("y")
    logits = model(changed).logits[:, -1]
    assert ((logits[1:] - logits[0]).abs().amax(dim=-1) > 1e-5).all()


def layer_alone(layer: STLMDecoderLayer, states: torch.Tensor) -> torch.Tensor:
    """A layer over the bytes of one word (bytes, hidden), with ordinary attention under a causal mask."""
    config = layer.self_attn.config
    plain = STLMDecoderLayer(config, 0).eval()
    plain.load_state_dict(layer.state_dict())
    implementation, config._attn_implementation = config._attn_implementation, "eager"
    mask = torch.full((len(states), len(states)), -math.inf).triu(1)
    output = plain(states[None], position_embeddings=None, attention_mask=mask)[0]
    config._attn_implementation = implementation
    return output


@torch.no_grad()
def test_forward_equals_the_description_word_by_word(model):
    for ids in (ids_of(TEXTS[0]), ids_of(TEXTS[1]), random_ids(3, 70)):
        base, words = model.model, cut(ids, 8)
        encoded = []
        for word in words:
            states = base.embed_tokens(torch.tensor(word)) + base.embed_offsets.weight[: len(word)]
            for layer in base.encoder:
                states = layer_alone(layer, states)
            encoded.append(states)
        pooled = base.pool_proj(base.pool_norm(torch.stack([states[-1] for states in encoded])))
        context = base.context_proj(base.words(inputs_embeds=pooled[None]).last_hidden_state[0])
        context = torch.cat((torch.zeros_like(context[:1]), context))  # word w reads word w - 1
        decoded = []
        for states, before in zip(encoded, context[:-1], strict=True):
            states = states + before
            for layer in base.decoder:
                states = layer_alone(layer, states)
            decoded.append(states)
        expected = model.lm_head(base.norm(torch.cat(decoded)))
        torch.testing.assert_close(model(torch.tensor([ids])).logits[0], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("overrides", FAMILY)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_equals_unpadded(overrides, side):
    model = make_byte_model(**overrides)
    rows = [ids_of(text) for text in TEXTS]
    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    left = [gap if side == "left" else 0 for gap in gaps]
    input_ids = torch.tensor(
        [[PAD] * n + row + [PAD] * (gap - n) for n, gap, row in zip(left, gaps, rows, strict=True)]
    )
    attention_mask = torch.tensor(
        [[0] * n + [1] * len(row) + [0] * (gap - n) for n, gap, row in zip(left, gaps, rows, strict=True)]
    )
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    for positions in (None, position_ids):
        logits = model(input_ids, attention_mask=attention_mask, position_ids=positions).logits
        assert logits.isfinite().all()
        for n, row, own in zip(left, rows, logits, strict=True):
            alone = model(torch.tensor([row])).logits[0]
            torch.testing.assert_close(own[n : n + len(row)], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("overrides", FAMILY)
@torch.no_grad()
def test_packed_with_restarting_positions_equals_separate(overrides):
    model = make_byte_model(**overrides)
    documents = [list(b"first one"), list(b"goes on here"), ids_of("déjà"), list(b"x y")]
    rows = [documents, documents[::-1]]
    input_ids = torch.tensor([[i for document in row for i in document] for row in rows])
    position_ids = torch.tensor([[i for document in row for i in range(len(document))] for row in rows])
    logits = model(input_ids, position_ids=position_ids).logits
    for row, own in zip(rows, logits, strict=True):
        separate = torch.cat([model(torch.tensor([document])).logits[0] for document in row])
        torch.testing.assert_close(own, separate, atol=2e-5, rtol=1e-5)
    # without positions the row is one text
    assert not torch.allclose(model(input_ids).logits, logits, atol=1e-3)


@torch.no_grad()
def test_eager_equals_sdpa_and_attentions_are_those_of_words():
    input_ids = torch.tensor([ids_of(TEXTS[0])])
    sdpa, eager = make_byte_model(), make_byte_model(attn_implementation="eager")
    outputs = eager(input_ids, output_attentions=True)
    torch.testing.assert_close(outputs.logits, sdpa(input_ids).logits, atol=1e-5, rtol=0)
    n_words = len(cut(input_ids[0].tolist(), 8))
    assert [tuple(weights.shape) for weights in outputs.attentions] == 2 * [(1, 4, n_words, n_words)]
    assert outputs.hidden_states is None


@torch.no_grad()
def test_hidden_states_are_those_of_bytes(model):
    input_ids = torch.tensor([ids_of(TEXTS[0])])
    written = []
    layers = [*model.model.encoder, *model.model.decoder]
    hooks = [layer.register_forward_hook(lambda *call: written.append(call[-1])) for layer in layers]
    outputs = model.model(input_ids, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    states = outputs.hidden_states
    assert len(states) == 1 + 2 + 2
    offsets = find_words(input_ids, None, None, 8).offsets
    embedded = model.model.embed_tokens(input_ids) + model.model.embed_offsets(offsets)
    for found, expected in zip(states, [embedded, *written[:-1], outputs.last_hidden_state], strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(
        model(input_ids, output_hidden_states=True).hidden_states, states, strict=True
    ):
        assert torch.equal(found, expected)
    as_tuple = model.model(input_ids, output_hidden_states=True, return_dict=False)
    assert torch.equal(as_tuple[0], states[-1])


def test_what_cannot_be_is_refused(model):
    input_ids = torch.tensor([ids_of("a")])
    with pytest.raises(ValueError, match="keeps no cache"):
        model(input_ids, past_key_values=object())
    with pytest.raises(ValueError, match="keeps no cache"):
        model(input_ids, cache=object())
    with pytest.raises(TypeError, match="`kv` looks like a cache"):
        model(input_ids, kv=DynamicCache())
    with pytest.raises(ValueError, match="keeps no cache"):
        model.generate(input_ids, past_key_values=DynamicCache(), max_new_tokens=1)
    with pytest.raises(ValueError, match="give it `input_ids`"):
        model(input_ids, inputs_embeds=torch.ones(1, 2, 16))
    with pytest.raises(ValueError, match="4 dimensions"):
        model(input_ids, attention_mask=torch.ones(1, 1, 2, 2))
    for overrides, message in (
        (
            {"byte_hidden_size": 18, "num_byte_attention_heads": 4},
            "`byte_hidden_size` .18. is not a multiple",
        ),
        ({"max_word_bytes": 3}, "`max_word_bytes` is 3: it must be at least 4"),
        ({"num_byte_encoder_layers": 0}, "`num_byte_encoder_layers` is 0"),
        ({"num_key_value_heads": 3}, "`num_attention_heads`"),
    ):
        with pytest.raises(StrictDataclassError) as error:
            make_byte_model(**overrides)
        with pytest.raises(ValueError, match=message):
            raise error.value.__cause__


@torch.no_grad()
def test_logits_to_keep(model):
    input_ids = torch.tensor([ids_of("two words"), ids_of("and  four")])
    logits = model(input_ids).logits
    kept = torch.tensor([2, 5, 9])
    torch.testing.assert_close(model(input_ids, logits_to_keep=3).logits, logits[:, -3:])
    torch.testing.assert_close(model(input_ids, logits_to_keep=kept).logits, logits[:, kept])


def test_loss_is_the_shifted_sum_over_the_number_of_items(model):
    input_ids = torch.tensor([ids_of("two words"), ids_of("and  four")])
    labels = input_ids.clone()
    labels[0, :4] = -100
    logits, targets = model(input_ids).logits[:, :-1], labels[:, 1:]
    logprobs = logits.double().log_softmax(dim=-1)
    total = -logprobs.gather(-1, targets.clamp(min=0)[..., None])[..., 0][targets != -100].sum()
    torch.testing.assert_close(model(input_ids, labels=labels).loss.double(), total / (6 + 9))
    accumulated = model(input_ids, labels=labels, num_items_in_batch=torch.tensor(40)).loss
    torch.testing.assert_close(accumulated.double(), total / 40)


@torch.no_grad()
def test_bfloat16(model):
    input_ids = torch.tensor([ids_of(TEXTS[1])])
    narrow = make_byte_model(initializer_range=0.1).bfloat16()
    outputs = narrow(input_ids, labels=input_ids)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.isfinite()
    torch.testing.assert_close(
        outputs.logits.float(), make_byte_model(initializer_range=0.1)(input_ids).logits, atol=0.1, rtol=0.1
    )


def test_gradient_checkpointing_gives_equal_gradients_to_every_parameter():
    input_ids = torch.tensor([ids_of(TEXTS[0]), random_ids(1, len(ids_of(TEXTS[0])))])

    def gradients(checkpointing: bool) -> tuple[int, dict[str, torch.Tensor]]:
        dropout = {"attention_dropout": 0.2, "resid_dropout": 0.2, "embd_dropout": 0.2}
        model = make_byte_model(**dropout, qk_norm=True, tie_word_embeddings=False).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        passes = []
        for layer in (model.model.encoder[0], model.model.words.layers[0], model.model.decoder[0]):
            layer.mlp.register_forward_hook(lambda *_: passes.append(1))
        torch.manual_seed(7)
        model(input_ids, labels=input_ids).loss.backward()
        return len(passes), {name: parameter.grad for name, parameter in model.named_parameters()}

    (plain_passes, plain), (checkpointed_passes, checkpointed) = gradients(False), gradients(True)
    assert (plain_passes, checkpointed_passes) == (3, 6)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, checkpointed[name]), name


@pytest.mark.parametrize("kind", ["embd_dropout", "attention_dropout", "resid_dropout"])
def test_dropout_acts_in_training_only(kind):
    several, one = torch.tensor([ids_of(TEXTS[0])]), torch.tensor([list(b"alone")])
    plain, dropped = make_byte_model(), make_byte_model(**{kind: 0.5})
    assert torch.equal(dropped(several).logits, plain(several).logits)
    dropped.train()
    assert not torch.allclose(dropped(several).logits, dropped(several).logits)
    # a word alone passes through the layers over bytes only
    assert not torch.allclose(dropped(one).logits, dropped(one).logits)


@torch.no_grad()
def test_what_enters_a_residual_stream_starts_as_large_as_its_embeddings():
    model = make_byte_model(hidden_size=256, byte_hidden_size=128, initializer_range=0.02)
    parts = {}
    for name in ("embed_tokens", "pool_proj", "context_proj"):
        getattr(model.model, name).register_forward_hook(
            lambda module, inputs, output, name=name: parts.update(
                {name: output.square().mean().sqrt().item()}
            )
        )
    model(torch.tensor([ids_of(TEXTS[0])]))
    assert parts == {name: pytest.approx(0.02, rel=0.15) for name in parts}
    assert len(parts) == 3


def test_a_few_steps_learn_a_text():
    model = make_byte_model(initializer_range=0.02).train()
    input_ids = torch.tensor([ids_of("the cat sat on the mat, and the cat ate. ") * 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        losses.append(model(input_ids, labels=input_ids).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0].item() == pytest.approx(math.log(258), abs=0.2)  # uniform: 8.0 bits per byte
    assert losses[-1] < 1.0
