"""A bank as tasks of the Language Model Evaluation Harness, for use without this package.

    tasks = export_lm_eval(bank, "tasks/people")
    lm_eval run --model hf --model_args pretrained=MODEL --tasks people --include_path tasks/people

For every role and probe type there are three tasks, all of them in one group:

    NAME_injected_semantic_mc    multiple_choice   acc = our accuracy, acc_bytes = our accuracy_norm
    NAME_injected_semantic_ll    loglikelihood     logprob, greedy_match, bits_per_byte
    NAME_injected_semantic_gen   generate_until    exact_match

Each group of facts (`groups.py`) has its own tasks: roles, arms (`NAME_injected_ARM_semantic_mc`), and
different exposures in one arm (`NAME_injected_ARM_4_semantic_mc`). Exposures are those that the bank plans.

Scores equal those of our scorer, as the joint is part of each choice (`target_delimiter` is empty). `_mc`
leaves out probes without distractors, and `_gen` leaves out probes with a suffix. Probes with a prompt that
ends in a newline or a tab are in `_gen` only, since lm-eval would score that end with the answer. The export
reports how many. One difference remains: lm-eval reads a control token in a text (`<|endoftext|>`) as the
token, and our scorer reads its characters. So a model's prefix is not written into the texts: it is an
argument of lm-eval's command, which the export names for a given model.

Each document has `probe_id`, `fact_ids`, `role`, `arm`, `relation` and `type`, so that logged samples can be
joined with a run's plan. The folder finds its own data and can be moved.
"""

import inspect
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import whole_folder, write_jsonl, write_whole
from tidy_stlms.configs.markdown import markdown_text
from tidy_stlms.eval.facts import text_match
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.records import PROBE_TYPES, Probe
from tidy_stlms.eval.facts.right_answers import right_answers
from tidy_stlms.eval.facts.text_match import join
from tidy_stlms.eval.models.inputs import base_model
from tidy_stlms.eval.models.prefix import lm_eval_arguments, prefix_of
from tidy_stlms.eval.recall.exposures import doses_of_facts
from tidy_stlms.eval.recall.groups import INJECTED, GroupKey, groups_of, in_order, treatment_groups

# end-of-text apart, what follows the answer in our own generation, and the space before it
TOKENS_AROUND_ANSWER = 4
LONGEST_NAME = 100  # of the group: names of files begin with it, and may have 255 characters
VERSION = 1.0

TASK_METRICS = {
    "mc": [("acc", "mean"), ("acc_norm", "mean"), ("acc_bytes", "mean")],
    "ll": [("logprob", "mean"), ("greedy_match", "mean"), ("bits_per_byte", "bits_per_byte")],
    "gen": [("exact_match", "mean")],
}

# The end of the folder's utils.py.
FUNCTIONS = '''

# What the tasks of this folder share: reading their data, and metrics that lm-eval has not by that name.

import json
from pathlib import Path

from datasets import Dataset

DATA = Path(__file__).parent / "data"


def load(file, **others):
    """The documents of one task; `others` is whatever else lm-eval passes on."""
    lines = (DATA / file).read_text(encoding="utf-8").split("\\n")  # a text may hold U+2028
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def loglikelihood(doc, results):
    """Of the right answer: log-probability in nats, whether greedy decoding says it, bits per byte."""
    logprob, is_greedy = results[0]
    size = len(doc["target"].encode("utf-8"))
    return {"logprob": logprob, "greedy_match": float(is_greedy), "bits_per_byte": (logprob, size)}


def exact_match(doc, results):
    """Whether the text, up to its first terminator outside the answer, is one of the right answers."""
    # where lm-eval stopped generating counts as the end of the text
    return {"exact_match": float(is_answer(results[0], doc["answers"], True, doc["terminators"]))}
'''


@dataclass(frozen=True)
class LmEvalPrefix:
    """A model's prefix, and the arguments with which lm-eval uses the same one."""

    model: str
    name: str
    """The prefix's name."""
    arguments: str | None
    """For --model_args, empty if none is needed; None if lm-eval cannot do it."""
    own_code: bool = False
    """Whether the model needs its own code, as STLMs do."""


@dataclass(frozen=True)
class Export:
    """What was exported."""

    group: str
    tasks: tuple[str, ...]
    n_probes: int
    without_distractors: int
    """Probes that are in no multiple_choice task."""
    with_suffix: int
    """Probes that are in no generate_until task."""
    behind_white_space: int
    """Probes with a prompt that ends in a newline or a tab: they are in generate_until tasks only."""


def export_lm_eval(
    bank: FactBank,
    folder: str | Path,
    name: str | None = None,
    tokenizer: Any = None,
    prefix: LmEvalPrefix | None = None,
) -> Export:
    """Write the tasks of `bank` to a new folder.

    Args:
        name: Of the group; the bank's name when left out.
        tokenizer: `_gen` generates as many of its tokens as the longest answer needs. Without a tokenizer it
            generates as many tokens as the answer has bytes: enough for all, but more than a small model may
            have room for.
        prefix: Of the model that the tasks are for; the folder's README.md says how to ask it.

    Raises:
        UserError: If the folder is not empty, or if the bank has no probes.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; choose another folder or remove it")
    if not bank.probes:
        raise UserError("the bank has no probes, and so nothing to make tasks of")
    group = re.sub(r"\W+", "_", name or str(bank.meta.get("name") or "facts"), flags=re.ASCII).strip("_")
    if not group:
        raise UserError(f"{name or bank.meta.get('name')!r}: no name for tasks; give one with --name")
    if len(group) > LONGEST_NAME:
        raise UserError(f"{group:.40}...: too long for a name of tasks; give a shorter one with --name")
    parts: dict[tuple[str, str], list[Probe]] = defaultdict(list)
    groups, words = _groups(bank)
    for probe, facts in zip(bank.probes, groups, strict=True):
        parts[facts, probe.type].append(probe)
    order = in_order([*words, *groups])

    tasks: list[str] = []
    with whole_folder(folder) as temporary:
        for facts, probe_type in sorted(
            parts, key=lambda part: (order.index(part[0]), PROBE_TYPES.index(part[1]))
        ):
            documents = [document(bank, probe) for probe in parts[facts, probe_type]]
            for kind, docs in _documents_by_kind(documents).items():
                name = f"{words.get(facts, facts)}_{probe_type}_{kind}"
                task = f"{group}_{name}"
                write_jsonl(temporary / "data" / f"{name}.jsonl", docs)
                config = _config(task, f"{name}.jsonl", kind, docs, bank, tokenizer)
                config["metadata"]["facts"] = facts
                write_whole(temporary / f"{task}.yaml", _yaml(config))
                tasks.append(task)
        if not tasks:
            raise UserError("all probes have prompts that end in white space, and a suffix: nothing to ask")
        whole = {"group": group, "task": tasks, "metadata": {"version": VERSION, "bank_sha256": bank.sha256}}
        write_whole(temporary / f"{group}.yaml", _yaml(whole))
        write_whole(temporary / "utils.py", utils_source())
        write_whole(temporary / "README.md", _readme(group, tasks, bank, words, prefix))
    return Export(
        group=group,
        tasks=tuple(tasks),
        n_probes=len(bank.probes),
        without_distractors=sum(not probe.distractors for probe in bank.probes),
        with_suffix=sum(bool(probe.suffix) for probe in bank.probes),
        behind_white_space=sum(_moves(join(probe.prompt)[0]) for probe in bank.probes),
    )


def utils_source() -> str:
    """The folder's utils.py. It must run without this package, so it holds our rules for comparing texts."""
    return inspect.getsource(text_match) + FUNCTIONS


def _documents_by_kind(documents: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The documents of each kind of task, without kinds that have none."""
    scored = [doc for doc in documents if not _moves(doc["context"])]
    by_kind = {
        "mc": [doc for doc in scored if len(doc["choices"]) > 1],
        "ll": scored,
        "gen": [doc for doc in documents if not doc["suffix"]],
    }
    return {kind: docs for kind, docs in by_kind.items() if docs}


def _groups(bank: FactBank) -> tuple[list[str], dict[str, str]]:
    """The group of each probe, and the words in task names for groups of a treatment, least exposures
    first."""
    keys = []
    for probe in bank.probes:
        fact = bank.fact_by_id[probe.fact_ids[0]]
        keys.append(GroupKey(fact.role, fact.arm, probe.fact_ids))
    doses = doses_of_facts(bank)
    words: dict[str, str] = {}
    for group, key in treatment_groups(keys, doses).items():
        treatment = re.sub(r"\W+", "_", key.removeprefix(f"{INJECTED}-"), flags=re.ASCII).strip("_")
        word = f"{INJECTED}_{treatment}"
        words[group] = word if word not in words.values() else f"{word}_{len(words) + 1}"
    return groups_of(keys, doses), words


def command(export: Export, folder: str | Path, prefix: LmEvalPrefix | None = None) -> str:
    """The command that runs the exported tasks."""
    model = "MODEL" if prefix is None else prefix.model
    arguments = [f"pretrained={model}", "dtype=float32"]
    if prefix is not None and prefix.arguments:
        arguments.append(prefix.arguments)
    if prefix is not None and prefix.own_code:
        arguments.append("trust_remote_code=True")
    return (
        f"lm_eval run --model hf --model_args {shlex.quote(','.join(arguments))} --tasks {export.group} "
        f"--include_path {shlex.quote(str(folder))} --batch_size 16"
    )


def lm_eval_prefix_of(name: str, model: Any, tokenizer: Any) -> LmEvalPrefix:
    """The prefix of the model of that name."""
    prefix = prefix_of(model, tokenizer)
    own_code = bool(getattr(base_model(model).config, "auto_map", None))
    return LmEvalPrefix(name, prefix.name, lm_eval_arguments(prefix, tokenizer), own_code)


def prefix_in_words(prefix: LmEvalPrefix | None) -> str:
    """What stands before the texts, for the folder's README.md and the terminal."""
    if prefix is None:
        return (
            "`stlm recall` puts before each text the special token that stood before the documents of a "
            "model's training, if its config says so (`document_prefix`). By itself, lm-eval puts what the "
            "tokenizer adds; with `add_bos_token=True` in --model_args, BOS. Figures of different prefixes "
            "differ."
        )
    if prefix.arguments is None:
        return (
            f"{prefix.model}: its documents began with prefix {prefix.name} in training, which "
            "lm-eval cannot put before a text. So its figures differ from those of `stlm recall`."
        )
    added = f"that needs {prefix.arguments}" if prefix.arguments else "lm-eval does that by itself"
    return f"{prefix.model} is asked with prefix {prefix.name}; {added}."


def _moves(context: str) -> bool:
    """Whether lm-eval moves the end of a context to the answer, and scores it too."""
    return context != context.rstrip()


def document(bank: FactBank, probe: Probe) -> dict[str, Any]:
    """One line of the data: the texts of the probe, ready to be joined, and its facts."""
    from tidy_stlms.eval.recall.harness import terminators_of

    context, space = join(probe.prompt, probe.joint)
    right, *wrong = (f"{space}{answer}{probe.suffix}" for answer in probe.candidates)
    # at a random index: lm-eval gives a tie to the first choice
    gold = rng(0, probe.id, "gold").randrange(len(wrong) + 1)
    fact = bank.fact_by_id[probe.fact_ids[0]]
    return {
        "context": context,
        "choices": [*wrong[:gold], right, *wrong[gold:]],
        "gold": gold,
        "target": right,
        "answers": right_answers(bank, probe),
        "terminators": terminators_of(probe),
        "joint": probe.joint,
        "suffix": probe.suffix,
        "probe_id": probe.id,
        "fact_ids": list(probe.fact_ids),
        "role": bank.role_of(probe),
        "arm": fact.arm,
        "relation": fact.relation,
        "type": probe.type,
        "subject": fact.subject,
        "flags": list(probe.flags),
    }


def _config(
    task: str, file: str, kind: str, docs: Sequence[dict[str, Any]], bank: FactBank, tokenizer: Any
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "task": task,
        "custom_dataset": "!function utils.load",
        "dataset_kwargs": {"file": file},
        "test_split": "test",
        "doc_to_text": "context",
        "target_delimiter": "",
        "num_fewshot": 0,
    }
    if kind == "mc":
        config |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
    elif kind == "ll":
        config |= {
            "output_type": "loglikelihood",
            "doc_to_target": "target",
            "process_results": "!function utils.loglikelihood",
        }
    else:
        config |= {
            "output_type": "generate_until",
            "doc_to_target": "target",
            "process_results": "!function utils.exact_match",
            "generation_kwargs": {
                "until": ["\n"],
                "do_sample": False,
                "max_gen_toks": _tokens_enough(docs, tokenizer),
            },
        }
    higher = [
        {"metric": metric, "aggregation": how, "higher_is_better": metric != "bits_per_byte"}
        for metric, how in TASK_METRICS[kind]
    ]
    return config | {"metric_list": higher, "metadata": {"version": VERSION, "bank_sha256": bank.sha256}}


def _tokens_enough(docs: Sequence[dict[str, Any]], tokenizer: Any) -> int:
    from tidy_stlms.eval.scoring.generation import answer_budgets

    answers = [doc["answers"] for doc in docs]
    if tokenizer is not None:
        return max(answer_budgets(tokenizer, answers, [doc["joint"] for doc in docs]))
    # no tokenizer needs more tokens than bytes
    return max(len(answer.encode()) for group in answers for answer in group) + TOKENS_AROUND_ANSWER


def _yaml(config: dict[str, Any]) -> str:
    """YAML with JSON values, except for lm-eval's tag `!function`."""
    lines = []
    for key, value in config.items():
        plain = isinstance(value, str) and value.startswith("!function ")
        lines.append(f"{key}: {value if plain else json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _readme(
    group: str, tasks: Sequence[str], bank: FactBank, words: dict[str, str], prefix: LmEvalPrefix | None
) -> str:
    named = "".join(f"- `{group}_{word}_...`: {markdown_text(facts)}\n" for facts, word in words.items())
    note = prefix_in_words(prefix)
    treatments = f"\nInjected facts, by exposures that the bank plans:\n\n{named}" if named else ""
    return f"""\
# {group}

lm-eval tasks made of a fact bank (sha256 `{bank.sha256}`), {len(tasks)} in the group `{group}`:

```bash
lm_eval run --model hf --model_args pretrained=MODEL --tasks {group} --include_path THIS_FOLDER \\
  --log_samples --output_path OUT
```

Task names end in the role of the facts, their arm or exposures where these differ, the type of probe and the
kind of task: `_mc` is multiple choice (`acc`; `acc_bytes` is normalised by the bytes of an answer), `_ll` the
log-probability of the right answer in nats, `_gen` exact match of greedy generation. Facts of role `control`
are never trained on: on them a model that guesses is right as often as chance. Each sample carries
`probe_id`, `fact_ids`, `role`, `arm`, `relation` and `type`. Where a text holds a control token such as
`<|endoftext|>`, lm-eval reads it as such; `stlm recall` reads its characters, and the figures differ.

{note if prefix is None else markdown_text(note)}
{treatments}"""
