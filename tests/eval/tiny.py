"""Tiny models, tokenizers of several kinds and a small bank, built on the spot."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_python import PreTrainedTokenizer

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact, Probe, Relation

CITIES = ["Paris", "Rome", "St. Louis", "Kuala Lumpur", "Spring", "Springfield", "Zürich", "Oslo"]
JOBS = ["baker", "glass blower", "pilot", "beekeeper", "judge"]
PEOPLE = ["Ada Lopez", "Bo Chen", "Cleo van Dam", "Dov Katz", "Eve Ojo", "Finn O'Hara", "Gus Weiß"]
WORDINGS = [
    ("born", "{subject} was born in {object}.", CITIES),
    ("born", "The place where {subject} came into the world is {object}.", CITIES),
    ("work", "{subject} works as a {object}.", JOBS),
    ("work", "By day {subject} is a {object}!", JOBS),
]
SPECIAL = ["<unk>", "<s>", "</s>"]


def sentences() -> list[str]:
    return [
        template.format(subject=person, object=answer)
        for person in PEOPLE
        for _, template, pool in WORDINGS
        for answer in pool
    ]


def bank(roles: tuple[str, ...] = ("injected", "control"), people: int = len(PEOPLE)) -> FactBank:
    """People x 2 relations, 2 wordings each and 2 types: 8 probes for each of 7 people, or of more."""
    firsts, lasts = zip(*(person.split(" ", 1) for person in PEOPLE), strict=True)
    others = [f"{first} {last}" for first in firsts for last in lasts if f"{first} {last}" not in PEOPLE]
    facts, probes = [], []
    for number, person in enumerate([*PEOPLE, *others][:people]):
        for place, (relation, pool) in enumerate([("born", CITIES), ("work", JOBS)]):
            answer = pool[(number + place) % len(pool)]
            role = roles[number % len(roles)]
            fact_id = f"{relation}-{number}"
            facts.append(Fact(id=fact_id, subject=person, relation=relation, object=answer, role=role))
            for kind in ("memorization", "semantic"):
                for k, (_, template, _) in enumerate(w for w in WORDINGS if w[0] == relation):
                    before, _ = template.format(subject=person, object="\0").split("\0")
                    probes.append(
                        Probe(
                            id=f"{fact_id}-{kind}-{k}",
                            fact_ids=(fact_id,),
                            type=kind,
                            prompt=("Someone said: " if kind == "semantic" else "") + before.rstrip(" "),
                            answers=(answer,),
                            distractors=tuple(other for other in pool if other != answer),
                            template=template,
                        )
                    )
    relations = [Relation("born", "place of birth"), Relation("work", "profession")]
    return FactBank(meta={}, relations=relations, facts=facts, statements=[], probes=probes)


def byte_level(bos: bool = False, eos: bool = False, trim: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT-2; with `bos`/`eos` it adds them itself, as Llama 3 does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    template = "<s> " * bos + "$A" + " </s>" * eos
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=trim),
            processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)]),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>" if bos else None, eos_token="</s>"
    )


def metaspace(split: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece-like: a space before every word, the first too. Without `split` pieces cross spaces."""
    tokenizer = Tokenizer(models.Unigram() if split else models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=split)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=split)
    trainer_class = trainers.UnigramTrainer if split else trainers.BpeTrainer
    kwargs = {"unk_token": "<unk>"} if split else {}
    tokenizer.train_from_iterator(
        sentences(), trainer_class(vocab_size=300, special_tokens=SPECIAL, show_progress=False, **kwargs)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def whole_words(words: list[str], split: bool = True) -> PreTrainedTokenizerFast:
    """Metaspace pieces given by hand, as few as possible to a text; single characters otherwise."""
    alphabet = sorted({character for word in words for character in word})
    pieces = [("<unk>", -100.0), ("</s>", -100.0), *((word, -1.0) for word in words)]
    pieces += [(character, -10.0) for character in alphabet if character not in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=split)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=split)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


class SlowTokenizer(PreTrainedTokenizer):
    """Greedy longest pieces in pure python: no offsets, BOS in front, end-of-text behind."""

    vocab_files_names = {}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, **kwargs):
        pieces = [f" {word}" for word in (*CITIES, *JOBS)] + sorted(set("".join(sentences())))
        self.pieces = {piece: index for index, piece in enumerate([*SPECIAL, *pieces])}
        self.by_id = {index: piece for piece, index in self.pieces.items()}
        super().__init__(unk_token="<unk>", bos_token="<s>", eos_token="</s>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.pieces)

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        tokens = []
        while text:
            pieces = (piece for piece in self.pieces if text.startswith(piece) and piece not in SPECIAL)
            best = max(pieces, key=len, default=text[0])
            tokens.append(best)
            text = text[len(best) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self.pieces.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self.by_id[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return [1, *token_ids_0, 2]


def llama(vocab_size: int, context: int = 128, **kwargs) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        # wide enough that its answers differ by nats, as a trained model's do
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        **kwargs,
    )
    return LlamaForCausalLM(config).eval()


def gpt2(vocab_size: int, context: int = 128, **kwargs) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=context,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        **kwargs,
    )
    return GPT2LMHeadModel(config).eval()
