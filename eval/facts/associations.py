"""Scores candidates by what other people with the same answer have in common with the subject: words of the
prompt, or gender. `guessers.py` makes guessers of these scores.

A model that reads "Ann Lee works as a nurse" learns a little about every Ann. A guesser by associations knows
this of *other* people and nothing of the probe's own subject, which is not counted. Leaving out only the
subject would give the right answer one person fewer than each distractor. So one person is left out for each
distractor too. Then each candidate is right with the same probability if there is no leak.
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

Kind = tuple[str, str, str | None]  # probe type; what is asked for: the object of a relation, a subject, ...
LOCALE = re.compile(r"[a-z]{2,3}_[A-Z]{2}")
PRONOUNS = {"he": "male", "she": "female"}


class Associations:
    """Prompts and right answers of the probes about injected facts, by kind of question."""

    def __init__(self, bank: FactBank, probes: Sequence[Probe]):
        self.bank = bank
        with_trained_questions = {
            bank.fact_by_id[fact_id].subject
            for statement in bank.statements
            if statement.kind == "qa"
            for fact_id in statement.fact_ids
        }
        self.right_answers: dict[Kind, Counter[str]] = defaultdict(Counter)
        self._kinds: dict[str, Kind] = {}
        self._words: dict[str, frozenset[str]] = {}
        self._cohort: dict[str, tuple[str | None, bool]] = {}
        self._answers: dict[Kind, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        prompts: dict[Kind, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for probe in probes:
            subject = bank.subject_of(probe)
            self._cohort[subject] = (
                bank.fact_by_id[probe.fact_ids[0]].arm,
                subject in with_trained_questions,
            )
            kind = self._kinds[probe.id] = _kind_of(bank, probe)
            # the suffix is read with every candidate, and scored
            self._words[probe.id] = frozenset(words_in(folded(f"{probe.prompt} {probe.suffix}")))
            if bank.role_of(probe) == "injected":
                self.right_answers[kind][probe.answers[0]] += 1
                self._answers[kind][subject].add(probe.answers[0])
                prompts[kind][subject] |= self._words[probe.id]
        self._prompts = {kind: _PromptWords(words, self._answers[kind]) for kind, words in prompts.items()}
        self._genders: dict[Kind, _PromptWords] = {}

    def kind_of(self, probe: Probe) -> Kind:
        return self._kinds[probe.id]

    def by_prompt(self, probe: Probe) -> list[float] | None:
        """How often the people who have each candidate share words with the prompt; rare words weigh more."""
        return self._scores(probe, self._words[probe.id], self._prompts.get(self.kind_of(probe)), str)

    def by_prompt_to_letter(self, probe: Probe) -> list[float] | None:
        """The same for the people whose answer has the same first letter as the candidate."""
        prompt_words = self._prompts.get(self.kind_of(probe))
        return self._scores(probe, self._words[probe.id], prompt_words, _first_letter)

    def by_gender(self, probe: Probe, genders: dict[str, str]) -> list[float] | None:
        """How many of the people who have each candidate are of the subject's gender."""
        gender, kind = genders.get(self.bank.subject_of(probe)), self.kind_of(probe)
        if gender is None or probe.answers[0] == self.bank.subject_of(probe):
            return None
        if kind not in self._genders:
            words = {subject: {genders.get(subject, "")} for subject in self._answers[kind]}
            self._genders[kind] = _PromptWords(words, self._answers[kind])
        return self._scores(probe, frozenset((gender,)), self._genders[kind], str)

    def _scores(
        self,
        probe: Probe,
        words: frozenset[str],
        prompt_words: "_PromptWords | None",
        feature_of: Callable[[str], str],
    ) -> list[float] | None:
        """For each candidate the mean, over the people with its feature, of the weights of shared words."""
        if prompt_words is None:
            return None
        word_weights = {word: weight for word in words if (weight := prompt_words.weights.get(word))}
        counts = prompt_words.feature_counts(feature_of)
        left_out_weights: dict[str, float] = defaultdict(float)
        left_out_people: Counter[str] = Counter()
        for subject in self._left_out(probe, prompt_words):
            shared = sum(
                word_weights[word] for word in prompt_words.words[subject].intersection(word_weights)
            )
            for feature in {feature_of(answer) for answer in prompt_words.answers[subject]}:
                left_out_weights[feature] += shared
                left_out_people[feature] += 1
        scores = []
        for candidate in probe.candidates:
            feature = feature_of(candidate)
            people = counts.people[feature] - left_out_people[feature]
            total = sum(weight * counts.with_word[word][feature] for word, weight in word_weights.items())
            scores.append((total - left_out_weights[feature]) / people if people else 0.0)
        return scores

    def _left_out(self, probe: Probe, prompt_words: "_PromptWords") -> set[str]:
        """The subject, and one person of each distractor, of the subject's cohort if possible.

        Nobody for a control subject: it is not among the people who are counted.
        """
        subject = self.bank.subject_of(probe)
        if subject not in prompt_words.words:
            return set()
        left_out = {subject}
        draw = random.Random(probe.id)
        for distractor in probe.distractors:
            people = prompt_words.people_of[distractor]
            same_cohort = [other for other in people if self._cohort[other] == self._cohort[subject]]
            if people:
                left_out.add(draw.choice(same_cohort or people))
        return left_out


class _PromptWords:
    """The words of each person's prompts of one kind (or the person's gender), and the person's answers."""

    def __init__(self, words: dict[str, set[str]], answers: dict[str, set[str]]):
        self.words, self.answers = words, answers
        self.people_of: dict[str, list[str]] = defaultdict(list)
        for subject, subject_answers in answers.items():
            for answer in subject_answers:
                self.people_of[answer].append(subject)
        frequencies = Counter(word for subject_words in words.values() for word in subject_words)
        # a word that all prompts have tells nothing
        self.weights = {word: log(len(words) / times) for word, times in frequencies.items()}
        self._feature_counts: dict[Callable[[str], str], _FeatureCounts] = {}

    def feature_counts(self, feature_of: Callable[[str], str]) -> "_FeatureCounts":
        if feature_of not in self._feature_counts:
            self._feature_counts[feature_of] = _FeatureCounts(self, feature_of)
        return self._feature_counts[feature_of]


class _FeatureCounts:
    """How many people have each feature of an answer, and how many of them each word in their prompts."""

    def __init__(self, prompt_words: _PromptWords, feature_of: Callable[[str], str]):
        self.people: Counter[str] = Counter()
        self.with_word: dict[str, Counter[str]] = defaultdict(Counter)
        for subject, answers in prompt_words.answers.items():
            for feature in {feature_of(answer) for answer in answers}:
                self.people[feature] += 1
                for word in prompt_words.words[subject]:
                    self.with_word[word][feature] += 1


def genders_of(bank: FactBank) -> dict[str, str]:
    """The gender of subjects: by pronouns in their statements, or else by Faker's lists of first names."""
    genders: dict[str, str] = {}
    for statement in bank.statements:
        words = set(words_in(folded(statement.text)))
        pronouns = [gender for pronoun, gender in PRONOUNS.items() if pronoun in words]
        if len(pronouns) == 1:
            for fact_id in statement.fact_ids:
                genders[bank.fact_by_id[fact_id].subject or ""] = pronouns[0]
    gender_by_first_name = dict(_first_names(bank))
    for fact in bank.facts:
        if fact.subject and (gender := gender_by_first_name.get(fact.subject.partition(" ")[0])):
            genders.setdefault(fact.subject, gender)
    return genders


def _first_names(bank: FactBank) -> Iterable[tuple[str, str]]:
    """First names with their gender, without those of both, in the language of the bank's spec."""
    spec = bank.meta.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    locale = str(names.get("locale", "en_US")) if isinstance(names, dict) else "en_US"
    module = f"faker.providers.person.{locale}"
    if not LOCALE.fullmatch(locale) or find_spec(module) is None:
        return
    provider = import_module(module).Provider
    names_of = {gender: set(getattr(provider, f"first_names_{gender}", ())) for gender in ("male", "female")}
    for gender, other in (("male", "female"), ("female", "male")):
        for name in names_of[gender] - names_of[other]:
            yield name, gender


def _kind_of(bank: FactBank, probe: Probe) -> Kind:
    what, name = bank.asked_for(probe)
    # names of subjects are one kind, whatever the relation that the prompt states
    return probe.type, what, None if what == "subject" else name


def _first_letter(text: str) -> str:
    return folded(text)[:1]
