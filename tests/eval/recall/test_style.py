"""BEAR's style: against its client where that is installed, and against a few lines of plain code."""

import json
from copy import deepcopy

import pytest
import torch

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.records import Fact, Probe
from tidy_stlms.eval.recall.control import corrected_summary
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.eval.recall.metrics import METRICS
from tidy_stlms.eval.recall.style import bear_text

# relation: templates, answer space, subjects with their answers. One answer begins another one, some differ
# in case alone, and two subjects of one name have different answers.
RELATIONS = {
    "P36": (
        ["The capital of [X] is [Y].", "[Y] is the capital of [X].", "[X] has [Y] for a capital!"],
        ["Spring", "Springfield", "Kuala Lumpur", "St. Louis", "Zürich", "Oslo", "oslo"],
        [(f"land {name}", index % 6) for index, name in enumerate("ABCDEFG")]
        + [("Norway", 5), ("Norway", 4), ("Île-du-Sud", 2)],
    ),
    "P106": (
        ["[X] works as a [Y].", "By day, [X] is a [Y], they say", "the [Y] who wrote to us is [X]"],
        ["baker", "glass blower", "pilot", "beekeeper", "judge"],
        [(person, index % 5) for index, person in enumerate([*tiny.PEOPLE, "Hal Iyer", "Ivo Ray", "Jo Li"])],
    ),
    "P50": (
        ['The author of "[X]" is [Y] .', "[X], a book by [Y]."],
        [*tiny.PEOPLE, "Ada"],
        [(title, index % 8) for index, title in enumerate(["Rain", "ox", *"ABCDEFGH"])],
    ),
}
TEXTS = [
    template.replace("[X]", subject).replace("[Y]", space[answer])
    for templates, space, subjects in RELATIONS.values()
    for template in templates
    for subject, answer in subjects
]


def write_bear(folder, spaces=True):
    """The files of BEAR, small; without answer spaces those of BEAR-big."""
    metadata = {}
    for relation, (templates, space, subjects) in RELATIONS.items():
        ids = [f"{relation}-Q{number}" for number in range(len(space))]
        labels = {"answer_space_labels": space, "answer_space_ids": ids} if spaces else {}
        metadata[relation] = {"templates": templates, **labels}
        rows = [
            {"sub_id": f"S{number}", "sub_label": name, "obj_id": ids[answer], "obj_label": space[answer]}
            for number, (name, answer) in enumerate(subjects)
        ]
        (folder / f"{relation}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metadata_relations.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bear(tmp_path_factory.mktemp("BEAR"))


@pytest.fixture(scope="module")
def bank(folder):
    return import_bank("bear", str(folder), ImportOptions())[0]


def sentence_piece():
    tokenizer = tiny.metaspace()
    tokenizer.bos_token = "<s>"
    return tokenizer


TOKENIZERS = {
    "GPT-2": lambda: train_bpe_tokenizer(TEXTS, 400, bos=False),
    "adds BOS": lambda: tiny.byte_level(bos=True),
    "SentencePiece-like": sentence_piece,
}


def by_item(bank, results):
    """(relation, subject's id, template) to the result; each item of BEAR is one probe."""
    items = {}
    for result in results:
        relation, subject = result.fact_ids[0].split("/")
        items[relation, subject, result.template] = result
    assert (
        len(items)
        == len(results)
        == len(bank.probes)
        == 10 * sum(len(each[0]) for each in RELATIONS.values())
    )
    return items


def items_of_files():
    """(key, template, subject, answer space, index of the answer) of each item, in BEAR's own words."""
    for relation, (templates, space, subjects) in RELATIONS.items():
        for number, (subject, answer) in enumerate(subjects):
            for template in templates:
                ours = template.replace("[X]", "{subject}").replace("[Y]", "{object}")
                yield (relation, f"S{number}", ours), template, subject, space, answer


def check(result, scores, space, answer):
    """A result against the client's scores, in the order of the answer space."""
    assert dict(zip(result.candidates, result.candidate_logprobs, strict=True)) == pytest.approx(
        dict(zip(space, scores, strict=True)), abs=1e-4
    )
    assert result.choice == space[scores.index(max(scores))]
    assert result.accuracy == float(result.choice == space[answer])


def check_against_the_client(model, tokenizer, folder):
    """All items of a folder: sums, choices and accuracies."""
    lm_pub_quiz = pytest.importorskip("lm_pub_quiz", reason="pip install -e '.[bear]'")
    bank, _ = import_bank("bear", str(folder), ImportOptions())
    items = by_item(bank, evaluate_recall(model, tokenizer, bank, style="bear"))
    # a copy, since the client changes it
    evaluator = lm_pub_quiz.Evaluator.from_model(model, model_type="CLM", tokenizer=deepcopy(tokenizer))
    dataset = lm_pub_quiz.Dataset.from_path(folder)
    for relation in evaluator.evaluate_dataset(dataset, metric="accuracy", batch_size=8):
        templates, space = RELATIONS[relation.relation_code][0], relation.answer_space.tolist()
        right = 0
        for _, row in relation.instance_table.iterrows():
            template = templates[row["template_index"]].replace("[X]", "{subject}").replace("[Y]", "{object}")
            result = items.pop((relation.relation_code, row["sub_id"], template))
            check(result, row["pll_scores"], space, row["answer_idx"])
            right += result.accuracy
        assert relation.metric_values["accuracy"] == pytest.approx(right / len(relation.instance_table))
    assert not items


@pytest.mark.parametrize(
    ("kind", "make"),
    [*((kind, tiny.gpt2) for kind in TOKENIZERS), ("GPT-2", tiny.llama), ("GPT-2", tiny.stlm)],
)
def test_equals_the_client(kind, make, folder):
    tokenizer = TOKENIZERS[kind]()
    check_against_the_client(make(len(tokenizer)), tokenizer, folder)


def test_equals_the_client_on_bear_big(tmp_path):
    tokenizer = TOKENIZERS["GPT-2"]()
    check_against_the_client(tiny.gpt2(len(tokenizer)), tokenizer, write_bear(tmp_path, spaces=False))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_equals_the_sum_over_the_sentence_behind_bos(kind, bank):
    tokenizer = TOKENIZERS[kind]()
    model = tiny.gpt2(len(tokenizer))
    items = by_item(bank, evaluate_recall(model, tokenizer, bank, style="bear"))
    for key, template, subject, space, answer in items_of_files():
        scores = []
        for name in space:
            text = template.replace("[X]", subject).replace("[Y]", name)
            ids = tokenizer.encode(text[0].upper() + text[1:], add_special_tokens=False)
            with torch.no_grad():
                logprobs = model(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0].log_softmax(-1)
            scores.append(sum(logprobs[position, token].item() for position, token in enumerate(ids)))
        check(items[key], scores, space, answer)


def test_fields_of_a_bear_result(bank):
    tokenizer = TOKENIZERS["GPT-2"]()
    model = tiny.llama(len(tokenizer))
    results = evaluate_recall(model, tokenizer, bank, style="bear", top_k=3)
    assert {(result.style, result.prefix) for result in results} == {("bear", "bos")}
    # a sum holds the whole sentence, so figures of the answer alone have no meaning
    null = {*METRICS, "n_tokens", "n_bytes", "generation"} - {"accuracy", "candidate_rank", "mrr"}
    assert all(getattr(result, name) is None for result in results for name in null)
    assert not any(result.top_tokens for result in results)
    # the answer first, then the whole answer space: also what is right for the other Norway
    norway = [result for result in results if result.subject == "Norway"]
    assert {result.candidates[0] for result in norway} == {"Oslo", "Zürich"}
    assert all(sorted(result.candidates) == sorted(RELATIONS["P36"][1]) for result in norway)
    assert evaluate_recall(model, tokenizer, bank, style="bear", prefix="bos") == results
    suite = evaluate_recall(model, tokenizer, bank, generate=False)
    assert {result.style for result in suite} == {"suite"}
    assert [result.candidate_logprobs for result in suite] != [each.candidate_logprobs for each in results]


def test_a_tie_is_the_first_of_the_answer_space(bank):
    tokenizer = TOKENIZERS["GPT-2"]()
    model = tiny.llama(len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)  # every token is as probable: the shortest sentences win
    results = evaluate_recall(model, tokenizer, bank, style="bear", check_model=False)
    tied = 0
    for result in results:
        highest = max(result.candidate_logprobs)
        best = {
            name
            for name, logprob in zip(result.candidates, result.candidate_logprobs, strict=True)
            if logprob == highest
        }
        tied += len(best) > 1
        space = RELATIONS[result.relation][1]
        assert result.choice == next(name for name in space if name in best)
        assert result.accuracy == float(result.choice == result.answer)
    assert tied


def test_banks_of_other_kinds_keep_their_candidates():
    bank = tiny.bank()
    tokenizer = TOKENIZERS["GPT-2"]()
    model = tiny.llama(len(tokenizer))
    results = evaluate_recall(model, tokenizer, bank, style="bear")
    for probe, result in zip(bank.probes, results, strict=True):
        assert result.candidates == (probe.answers[0], *probe.distractors)
    assert bear_text(bank.probes[-1], "judge") == "Someone said: By day Gus Weiß is a judge!"
    # the sum of a sentence holds the subject's name, so only differences between candidates have a meaning
    figures = {
        name for types in corrected_summary(results).values() for each in types.values() for name in each
    }
    assert figures == {"accuracy_over_control", "binding"}


@pytest.mark.parametrize(
    ("prompt", "joint", "suffix", "template", "text"),
    [
        ("ada lives in", " ", "", "{subject} lives in {object}.", "Ada lives in Rome."),
        ("", " ", " is where Ada lives.", "{object} is where {subject} lives.", "Rome is where Ada lives."),
        ("They call it “", "", "", "They call it “{object}”!", "They call it “Rome”!"),
        ("Ada lives in", " ", "", None, "Ada lives in Rome"),
        (
            "Q: Where does Ada live?\n",
            " ",
            "",
            "Q: Where does {subject} live?\n{object}",
            "Q: Where does Ada live?\nRome",
        ),
    ],
)
def test_a_sentence_ends_as_its_template_does(prompt, joint, suffix, template, text):
    probe = Probe("p", ("f",), "semantic", prompt, ("Rome",), suffix=suffix, template=template, joint=joint)
    assert bear_text(probe, "Rome") == text


def test_mistakes_are_one_line(bank):
    tokenizer = tiny.byte_level()
    model = tiny.llama(len(tokenizer))
    with pytest.raises(UserError, match="prefix bos: the tokenizer has no BOS token"):
        evaluate_recall(model, tokenizer, bank, style="bear")
    with pytest.raises(
        UserError, match="--style bear puts BOS before each text, which --prefix none forbids"
    ):
        evaluate_recall(model, tokenizer, bank, style="bear", prefix="none")
    tokenizer = TOKENIZERS["GPT-2"]()
    with pytest.raises(UserError, match=r"probe P36/S0/memorization:0: a text of .* does not fit"):
        evaluate_recall(tiny.llama(len(tokenizer), context=4), tokenizer, bank, style="bear")
    with pytest.raises(UserError, match="style 'lama': not one of suite, bear"):
        evaluate_recall(model, tokenizer, bank, style="lama")


def test_a_probe_without_distractors_has_no_accuracy():
    fact = Fact("f", "Ada", "born", "Rome", "injected")
    bank = FactBank({}, (), (fact,), (), (Probe("p", ("f",), "semantic", "Ada is from", ("Rome",)),))
    tokenizer = TOKENIZERS["GPT-2"]()
    [result] = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank, style="bear")
    assert (result.choice, result.accuracy, result.candidate_rank) == ("Rome", None, None)
