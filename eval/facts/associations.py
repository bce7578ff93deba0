"""What goes with what in a bank's probes: words of a prompt, or the gender of a name, with right answers.

A model that reads "Ann Lee works as a nurse" learns a little about every Ann. A guesser by associations knows
this of *other* people and nothing of the probe's own subject. To be fair, it must not see that the right
answer lacks one of its people: of every candidate one person who has it is left out, of the right answer the
subject itself. Then each candidate is right with the same probability if there is no leak.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from math import log

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.text_match import folded, words_in

Kind = tuple[str, str]  # probe type; what is asked for
LOCALE = re.compile(r"[a-z]{2,3}_[A-Z]{2}")
PRONOUNS = {"he": "male", "she": "female"}


class Associations:
    """Prompts and right answers of the probes about injected facts, by kind of question."""

    def __init__(self, bank: FactBank, probes: Sequence[Probe]):
        self.bank = bank
        asked = {
            bank.fact_by_id[fact_id].subject
            for statement in bank.statements
            if statement.kind == "qa"
            for fact_id in statement.fact_ids
        }
        self.right_answers: dict[Kind, Counter[str]] = defaultdict(Counter)
        self._kinds: dict[str, Kind] = {}
        self._words: dict[str, frozenset[str]] = {}
        self._cell = {
            bank.subject_of(probe): (bank.fact_by_id[probe.fact_ids[0]].arm, bank.subject_of(probe) in asked)
            for probe in probes
        }
        self._answers: dict[Kind, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        prompts: dict[Kind, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for probe in probes:
            kind = self._kinds[probe.id] = _kind_of(bank, probe)
            self._words[probe.id] = frozenset(words_in(folded(probe.prompt)))
            if bank.role_of(probe) == "injected":
                subject = bank.subject_of(probe)
                self.right_answers[kind][probe.answers[0]] += 1
                self._answers[kind][subject].add(probe.answers[0])
                prompts[kind][subject] |= self._words[probe.id]
        self._prompts = {kind: _Tables(words, self._answers[kind]) for kind, words in prompts.items()}
        self._genders: dict[Kind, _Tables] = {}

    def kind_of(self, probe: Probe) -> Kind:
        return self._kinds[probe.id]

    def by_prompt(self, probe: Probe) -> list[float] | None:
        """How often the people who have each candidate share words with the prompt, rare words first."""
        return self._scores(probe, self._words[probe.id], self._prompts.get(self.kind_of(probe)), str)

    def by_prompt_to_letter(self, probe: Probe) -> list[float] | None:
        """The same for the people whose answer has the same first letter as the candidate."""
        tables = self._prompts.get(self.kind_of(probe))
        return self._scores(probe, self._words[probe.id], tables, _first_letter)

    def by_gender(self, probe: Probe, genders: dict[str, str]) -> list[float] | None:
        """How many of the people who have each candidate are of the subject's gender."""
        gender, kind = genders.get(self.bank.subject_of(probe)), self.kind_of(probe)
        if gender is None or probe.answers[0] == self.bank.subject_of(probe):
            return None
        if kind not in self._genders:
            words = {subject: {genders.get(subject, "")} for subject in self._answers[kind]}
            self._genders[kind] = _Tables(words, self._answers[kind])
        return self._scores(probe, frozenset((gender,)), self._genders[kind], str)

    def _scores(
        self,
        probe: Probe,
        words: frozenset[str],
        tables: "_Tables | None",
        feature_of: Callable[[str], str],
    ) -> list[float] | None:
        if tables is None:
            return None
        candidates = (probe.answers[0], *probe.distractors)
        telling = {word: weight for word in words if (weight := tables.weights.get(word))}
        of_feature = tables.by_feature(feature_of)
        without: dict[str, float] = defaultdict(float)
        people_without: Counter[str] = Counter()
        for subject in self._left_out(probe, candidates, tables):
            shared = sum(telling[word] for word in tables.words[subject].intersection(telling))
            for feature in {feature_of(answer) for answer in tables.answers[subject]}:
                without[feature] += shared
                people_without[feature] += 1
        scores = []
        for candidate in candidates:
            feature = feature_of(candidate)
            people = of_feature.people[feature] - people_without[feature]
            total = sum(weight * of_feature.pairs[word][feature] for word, weight in telling.items())
            scores.append((total - without[feature]) / people if people else 0.0)
        return scores

    def _left_out(self, probe: Probe, candidates: Sequence[str], tables: "_Tables") -> set[str]:
        """One person of each candidate, of the subject's cell if possible; nobody for a control subject."""
        subject = self.bank.subject_of(probe)
        if subject not in tables.words:
            return set()
        left_out = {subject}
        draw = random.Random(probe.id)
        for candidate in candidates[1:]:
            people = tables.people_of[candidate]
            like = [other for other in people if self._cell[other] == self._cell[subject]] or people
            if like:
                left_out.add(draw.choice(like))
        return left_out


class _Tables:
    """The words of each person's prompts of one kind, and how often they come with which answer."""

    def __init__(self, words: dict[str, set[str]], answers: dict[str, set[str]]):
        self.words, self.answers = words, answers
        self.people_of: dict[str, list[str]] = defaultdict(list)
        for subject, of_subject in answers.items():
            for answer in of_subject:
                self.people_of[answer].append(subject)
        frequencies = Counter(word for of_subject in words.values() for word in of_subject)
        # a word that all prompts have tells nothing
        self.weights = {word: log(len(words) / times) for word, times in frequencies.items()}
        self._by_feature: dict[Callable[[str], str], _Pairs] = {}

    def by_feature(self, feature_of: Callable[[str], str]) -> "_Pairs":
        if feature_of not in self._by_feature:
            self._by_feature[feature_of] = _Pairs(self, feature_of)
        return self._by_feature[feature_of]


class _Pairs:
    """How many people have each feature of an answer, and how many of them each word in their prompts."""

    def __init__(self, tables: _Tables, feature_of: Callable[[str], str]):
        self.people: Counter[str] = Counter()
        self.pairs: dict[str, Counter[str]] = defaultdict(Counter)
        for subject, answers in tables.answers.items():
            for feature in {feature_of(answer) for answer in answers}:
                self.people[feature] += 1
                for word in tables.words[subject]:
                    self.pairs[word][feature] += 1


def genders(bank: FactBank) -> dict[str, str]:
    """The gender of subjects: of the pronouns in their statements, else what Faker's lists of names say."""
    found: dict[str, str] = {}
    for statement in bank.statements:
        words = set(words_in(folded(statement.text)))
        pronouns = [gender for pronoun, gender in PRONOUNS.items() if pronoun in words]
        if len(pronouns) == 1:
            for fact_id in statement.fact_ids:
                found[bank.fact_by_id[fact_id].subject or ""] = pronouns[0]
    if not found:
        of_first = dict(_first_names(bank))
        for fact in bank.facts:
            if fact.subject and (gender := of_first.get(fact.subject.partition(" ")[0])):
                found[fact.subject] = gender
    return found


def _first_names(bank: FactBank) -> Iterable[tuple[str, str]]:
    spec = bank.meta.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    locale = str(names.get("locale", "en_US")) if isinstance(names, dict) else "en_US"
    module = f"faker.providers.person.{locale}"
    if not LOCALE.fullmatch(locale) or find_spec(module) is None:
        return
    provider = import_module(module).Provider
    of_gender = {gender: set(getattr(provider, f"first_names_{gender}", ())) for gender in ("male", "female")}
    for gender, own, others in (("male", "male", "female"), ("female", "female", "male")):
        for name in of_gender[own] - of_gender[others]:
            yield name, gender


def _kind_of(bank: FactBank, probe: Probe) -> Kind:
    """The probe's type, and the relation whose object it asks for, or "subject"; else its template."""
    for fact in (bank.fact_by_id[fact_id] for fact_id in reversed(probe.fact_ids)):
        if probe.answers[0] == fact.object:
            return probe.type, fact.relation or ""
        if probe.answers[0] == fact.subject:
            return probe.type, "subject"
    return probe.type, probe.template or ""


def _first_letter(text: str) -> str:
    return folded(text)[:1]
