"""How probes are asked: in the suite's own style, or in that of BEAR's client, lm-pub-quiz 0.3.3.

`suite` scores the answer after its prompt, and generates. `bear` scores each candidate's whole sentence:

    <BOS>The capital of Norway is Oslo.      ln P of every token after BOS, the closing full stop too

The sentence begins with a capital letter, and all answers of the relation's answer space are candidates. The
first one with the largest sum is the model's choice. See docs/recall.md for the metrics that this leaves out.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.text_match import closing_punctuation, folded
from tidy_stlms.eval.recall.metrics import METRICS, candidate_rank, mrr
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.scoring.encoding import Item
from tidy_stlms.eval.styles import BEAR_STYLE, STYLES, SUITE_STYLE

if TYPE_CHECKING:
    from tidy_stlms.eval.scoring.scorer import Scores  # torch takes seconds to import


def prefix_for_style(style: str, prefix: str | None) -> str | None:
    """What stands before each text in a style, if the user chose `prefix`; as for `prefix_of`.

    Raises UserError for a style that does not exist, and for a prefix that contradicts the style.
    """
    if style not in STYLES:
        raise UserError(f"style {style!r}: not one of {', '.join(STYLES)}")
    if style == SUITE_STYLE:
        return prefix
    if prefix not in (None, "bos"):
        raise UserError(
            f"--style bear puts BOS before each text, which --prefix {prefix} forbids; leave one of them out"
        )
    return "bos"


def bear_items(bank: FactBank, probes: Sequence[Probe]) -> list[Item]:
    """The scorer's inputs in BEAR's style: whole sentences, the right one first."""
    return [
        Item("", [bear_text(probe, name) for name in _answer_first(probe, space)], id=probe.id, joint="")
        for probe, space in zip(probes, _answer_spaces(bank, probes), strict=True)
    ]


def bear_text(probe: Probe, candidate: str) -> str:
    """The sentence of a candidate with its closing punctuation, and a capital letter at the front.

    A probe's suffix ends the sentence; without one, what ends the probe's template.
    """
    text = probe.text(candidate) + ("" if probe.suffix else closing_punctuation(probe.template or ""))
    return text[:1].upper() + text[1:]


def to_bear_results(
    bank: FactBank, probes: Sequence[Probe], scores: "Sequence[Scores]", results: Sequence[ProbeResult]
) -> list[ProbeResult]:
    """The results of `bear_items`, from their scores. `results` say what does not depend on the style.

    Figures of the answer alone, by the byte and of generation are null: a sum holds the whole sentence.
    """
    in_style = []
    spaces = _answer_spaces(bank, probes)
    for probe, space, of_item, result in zip(probes, spaces, scores, results, strict=True):
        names = _answer_first(probe, space)
        sums = dict(zip(names, of_item.logprobs, strict=True))
        choice = max(space, key=sums.__getitem__)  # the first one in a tie, as lm-pub-quiz takes it
        figures = dict.fromkeys(("n_tokens", "n_bytes", *METRICS)) | {
            "accuracy": float(choice == names[0]) if len(names) > 1 else None,
            "candidate_rank": candidate_rank(of_item.logprobs),
            "mrr": mrr(of_item.logprobs),
        }
        in_style.append(replace(result, style=BEAR_STYLE, choice=choice, candidates=names, **figures))
    return in_style


def _answer_first(probe: Probe, space: Sequence[str]) -> tuple[str, ...]:
    return (probe.answers[0], *(name for name in space if name != probe.answers[0]))


def _answer_spaces(bank: FactBank, probes: Sequence[Probe]) -> list[tuple[str, ...]]:
    """For each probe the candidates that BEAR's client ranks, in its order.

    That is the relation's answer space, if the probe offers all of it except what the importer leaves out:
    right answers of subjects with the same name, and second spellings in other case. Other probes, such as
    those of generated banks, offer a few answers of a pool: they keep their own candidates, the answer first.
    """
    spaces = {relation.id: relation.answer_space for relation in bank.relations}
    right: dict[tuple[str, str], set[str]] = defaultdict(set)  # by relation and name
    for fact in bank.facts:
        if fact.relation is not None and fact.subject is not None:
            names = (fact.object, *fact.object_aliases)
            right[fact.relation, folded(fact.subject)].update(map(folded, names))
    chosen = []
    for probe in probes:
        fact, own = bank.fact_by_id[probe.fact_ids[0]], probe.candidates
        space = spaces.get(fact.relation) if fact.relation is not None else None
        offered = {folded(text) for text in own}
        offered |= right.get((fact.relation or "", folded(fact.subject or "")), set())
        is_closed = space is not None and set(own) <= set(space) and offered.issuperset(map(folded, space))
        chosen.append(space if space is not None and is_closed else own)
    return chosen
