"""`stlm facts generate | show | validate | import | export`: make, inspect and exchange banks."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidy_stlms.configs.errors import UserError, counted
from tidy_stlms.eval.facts.formats import FORMATS
from tidy_stlms.scripts.cli import Parser, add_model_options, load, parser, run
from tidy_stlms.scripts.messages import say

if TYPE_CHECKING:
    from tidy_stlms.eval.facts.bank import FactBank

EPILOG = """\
examples:
  stlm facts generate configs/facts/people.yaml --out banks/people people=100 paraphrases=5
  stlm facts show banks/people --examples 2 --tokenizer gpt2
  stlm facts validate banks/people --fix
  stlm facts import tidy data/inject --out banks/tidy
  stlm facts import tofu locuslab/TOFU --config forget10_perturbed --out banks/tofu
  stlm facts export lm-eval banks/people tasks/people
  stlm facts export hub banks/people my-name/people --private
"""
BANK = "a bank's folder, or hub:owner/name[@revision]"


def main(argv: list[str] | None = None) -> int:
    cli = parser("facts", "Make, inspect and exchange banks of facts.", epilog=EPILOG)
    commands = cli.add_subparsers(
        dest="command", required=True, metavar="generate | show | validate | import | export"
    )
    _add_generate(commands)
    _add_show(commands)
    _add_validate(commands)
    _add_import(commands)
    _add_export(commands)

    # key=value may come before and after options, which argparse alone does not allow
    arguments, rest = cli.parse_known_args(argv)
    wrong = [
        item for item in rest if item.startswith("-") or "=" not in item or arguments.command != "generate"
    ]
    if wrong:
        cli.error(f"unrecognized arguments: {' '.join(wrong)}")
    arguments.overrides = rest
    return run(lambda: arguments.run(arguments), arguments.debug)


def _add_generate(commands: "argparse._SubParsersAction[Parser]") -> None:
    cli = commands.add_parser(
        "generate",
        help="generate a bank from a spec",
        usage="stlm facts generate SPEC.yaml --out DIR [--seed SEED] [--corpus FILE [--text-column NAME]] "
        "[key=value ...]",
    )
    cli.add_argument("spec", help="a YAML file such as configs/facts/people.yaml")
    cli.add_argument("--out", required=True, metavar="DIR", help="folder to write; must be empty or missing")
    cli.add_argument("--seed", type=int, help="seed of names and answers (default: the spec's)")
    _add_corpus(cli, "names that occur in it are not given to subjects")
    cli.set_defaults(run=_generate)


def _add_corpus(cli: argparse.ArgumentParser, use: str) -> None:
    cli.add_argument(
        "--corpus",
        action="append",
        default=[],
        metavar="FILE",
        help=f"text that models are trained on, any file of a corpus: {use}; may be repeated",
    )
    cli.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="column of the corpus that holds its texts (default text)",
    )


def _add_show(commands: "argparse._SubParsersAction[Parser]") -> None:
    cli = commands.add_parser("show", help="print counts and examples of a bank")
    cli.add_argument("bank", help=BANK)
    cli.add_argument("--examples", type=int, default=1, metavar="N", help="facts printed in full (default 1)")
    cli.add_argument("--tokenizer", metavar="NAME", help="folder or Hub id: also count the tokens of texts")
    cli.set_defaults(run=_show)


def _add_validate(commands: "argparse._SubParsersAction[Parser]") -> None:
    cli = commands.add_parser("validate", help="list errors and warnings of a bank, and correct some")
    cli.add_argument("bank", help=BANK)
    cli.add_argument(
        "--fix", action="store_true", help="correct case, outer spaces and joints where there is no doubt"
    )
    cli.add_argument(
        "--model",
        metavar="MODEL",
        help="also list the probes that this model answers, which was not trained on the bank",
    )
    cli.add_argument(
        "--out",
        metavar="DIR",
        help="write the corrected bank with its flags there; without --out, --fix changes it in place",
    )
    _add_corpus(cli, "its words count as seen in training")
    add_model_options(cli)
    cli.set_defaults(run=_validate)


def _add_import(commands: "argparse._SubParsersAction[Parser]") -> None:
    cli = commands.add_parser(
        "import",
        help="make a bank from another project's files",
        usage="stlm facts import FORMAT SOURCE --out DIR",
    )
    cli.add_argument("format", metavar="FORMAT", help=", ".join(FORMATS))
    cli.add_argument("source", metavar="SOURCE", help="a file, a folder, or the id of a Hub dataset")
    cli.add_argument("--out", required=True, metavar="DIR", help="folder to write; must be empty or missing")
    cli.add_argument("--name", help="the bank's name (default: the source's)")
    cli.add_argument("--license", help="the bank's licence (default: what the dataset's authors state)")
    cli.add_argument("--role", help="role of the facts if the source does not say it: injected, control, ...")
    cli.add_argument(
        "--config", metavar="NAME", help="which data file of a folder, or which config of a Hub dataset"
    )
    cli.add_argument("--split", help="split of a Hub dataset")
    cli.add_argument("--revision", help="branch, tag or commit of a Hub dataset")
    cli.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="csv, jsonl: the column that holds a field, such as subject=person; may be repeated",
    )
    cli.add_argument(
        "--distractors",
        type=int,
        default=9,
        metavar="N",
        help="distractors drawn for probes without any, from answers of similar probes (default 9)",
    )
    cli.add_argument("--people", type=int, default=16, help="tidy templates: people to inject (default 16)")
    cli.add_argument("--control", type=int, help="tidy templates: control people (default: as many)")
    cli.add_argument("--seed", type=int, default=0, help="tidy templates: seed of the people (default 0)")
    cli.add_argument(
        "--type", help="reversal-curse: probe type for a file whose name does not say it, such as semantic"
    )
    cli.set_defaults(run=_import)


def _add_export(commands: "argparse._SubParsersAction[Parser]") -> None:
    cli = commands.add_parser("export", help="write a bank as lm-eval tasks, or upload it to the Hub")
    targets = cli.add_subparsers(dest="target", required=True, metavar="lm-eval | hub")
    tasks = targets.add_parser("lm-eval", help="write lm-eval tasks that anyone can run")
    tasks.add_argument("bank", help=BANK)
    tasks.add_argument("out", metavar="OUT", help="folder to write; must be empty or missing")
    tasks.add_argument("--name", help="name of the group of tasks (default: the bank's)")
    tasks.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="folder or Hub id: generate as many tokens as an answer has in it, not as many as it has bytes",
    )
    tasks.add_argument(
        "--model",
        metavar="MODEL",
        help="the model that the tasks are for: name its prefix in the command, and use its tokenizer",
    )
    add_model_options(tasks)
    tasks.set_defaults(run=_export_lm_eval)
    hub = targets.add_parser("hub", help="upload the bank as a Hub dataset")
    hub.add_argument("bank", help=BANK)
    hub.add_argument("repo_id", metavar="OWNER/NAME", help="created if it does not exist")
    hub.add_argument("--private", action="store_true", help="make a new dataset private")
    hub.set_defaults(run=_export_hub)


def _generate(arguments: argparse.Namespace) -> None:
    from tidy_stlms.configs.files import find_shipped
    from tidy_stlms.eval.facts.generate.generate import generate_from_spec

    _check_free(arguments.out)
    bank = generate_from_spec(
        find_shipped(arguments.spec),
        arguments.overrides,
        seed=arguments.seed,
        corpus=_corpus(arguments),
    )
    _save(bank, arguments.out)


def _corpus(arguments: argparse.Namespace) -> Iterator[str] | None:
    if not arguments.corpus:
        return None
    from tidy_stlms.eval.texts import read_texts

    return read_texts(arguments.corpus, "--corpus", arguments.text_column)


def _show(arguments: argparse.Namespace) -> None:
    from tidy_stlms.eval.facts.hub import open_bank
    from tidy_stlms.scripts.facts_tables import print_bank, print_token_lengths

    bank = open_bank(arguments.bank)
    print_bank(bank, title=str(bank.meta.get("name") or arguments.bank), n_examples=arguments.examples)
    if arguments.tokenizer:
        print_token_lengths(bank, arguments.tokenizer)


def _validate(arguments: argparse.Namespace) -> None:
    from tidy_stlms.eval.facts.fix import fix_bank
    from tidy_stlms.eval.facts.guesser_tests import best_guesser_in_words, guessable, guesser_tests
    from tidy_stlms.eval.facts.hub import PREFIX, open_bank
    from tidy_stlms.eval.facts.validate import flag_probes, refuse_generated, validate
    from tidy_stlms.eval.facts.warnings import words_of

    if arguments.out:
        _check_free(arguments.out)
    elif arguments.fix and arguments.bank.startswith(PREFIX):
        raise UserError(f"{arguments.bank}: --fix cannot change it in place; give --out DIR")
    bank = open_bank(arguments.bank, check=False)
    if arguments.fix:
        bank, changes = fix_bank(bank)
        for change in changes:
            say(f"mended: {change}")
    corpus = _corpus(arguments)
    findings = validate(bank, words_of(corpus) if corpus else None, guessers=False)
    if arguments.fix and changes and not arguments.out:
        flag_probes(bank, findings).replace_probes(arguments.bank)
    errors = sum(finding.level == "error" for finding in findings)
    tests = [] if errors else guesser_tests(bank)
    findings += guessable(tests)
    if arguments.model and not errors:
        from tidy_stlms.eval.recall.blind import blind_check

        model, tokenizer = load(arguments.model, arguments)
        findings += blind_check(model, tokenizer, bank, progress=sys.stderr.isatty())
    for finding in findings:
        say(f"{finding.level}: {finding.code}: {finding.message}")
    if tests:
        say(best_guesser_in_words(tests))
    warnings = counted(len(findings) - errors, "warning", "warnings")
    say(f"{arguments.bank}: {counted(errors, 'error', 'errors')}, {warnings}")
    if errors:
        raise UserError(
            f"{arguments.bank}: the bank has errors and will not be used; correct the lines named above"
        )
    refuse_generated(bank, findings, arguments.bank)
    if arguments.out:
        _save(flag_probes(bank, findings), arguments.out)


def _import(arguments: argparse.Namespace) -> None:
    from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
    from tidy_stlms.scripts.import_report import bank_lines, source_lines

    _check_free(arguments.out)
    options = ImportOptions(
        name=arguments.name,
        license=arguments.license,
        role=arguments.role,
        config=arguments.config,
        split=arguments.split,
        revision=arguments.revision,
        columns=_columns(arguments.column),
        distractors=arguments.distractors,
        people=arguments.people,
        control=arguments.control,
        seed=arguments.seed,
        type=arguments.type,
    )
    bank, builder = import_bank(arguments.format, arguments.source, options)
    report = Path(arguments.out) / "import.json"
    for line in source_lines(builder, report):
        say(line)
    _save(
        bank,
        arguments.out,
        {
            report.name: {
                "read": builder.records_read,
                "taken": builder.mapped,
                "not_taken": builder.not_taken,
                "left_out": builder.left_out,
            }
        },
    )
    for line in bank_lines(bank, builder, arguments.out):
        say(line)


def _columns(items: list[str]) -> dict[str, str]:
    """Column by field, from `--column FIELD=NAME`."""
    columns = {}
    for item in items:
        field, equals, column = item.partition("=")
        if not equals or not column:
            raise UserError(f"--column {item}: must look like subject=person")
        columns[field] = column
    return columns


def _export_lm_eval(arguments: argparse.Namespace) -> None:
    from tidy_stlms.eval.facts.hub import open_bank
    from tidy_stlms.eval.recall.lm_eval_export import (
        command,
        export_lm_eval,
        lm_eval_prefix_of,
        prefix_in_words,
    )
    from tidy_stlms.scripts.facts_tables import tokenizer_of

    _check_free(arguments.out)
    bank = open_bank(arguments.bank)
    tokenizer = tokenizer_of(arguments.tokenizer) if arguments.tokenizer else None
    prefix = None
    if arguments.model:
        model, own_tokenizer = load(arguments.model, arguments)
        tokenizer, prefix = (
            tokenizer or own_tokenizer,
            lm_eval_prefix_of(arguments.model, model, own_tokenizer),
        )
    export = export_lm_eval(bank, arguments.out, arguments.name, tokenizer, prefix)
    tasks, probes = counted(len(export.tasks), "task", "tasks"), counted(export.n_probes, "probe", "probes")
    say(f"{arguments.out}: {tasks} in the group {export.group}, {probes}")
    for number, reason in (
        (export.without_distractors, "no distractors, and no place in multiple choice"),
        (export.with_suffix, "words after the answer, and no place in free generation"),
        (
            export.behind_white_space,
            "a newline or a tab at the prompt's end, and a place in free generation only: lm-eval would "
            "score that end with the answer",
        ),
    ):
        if number:
            say(f"{counted(number, 'probe has', 'probes have')} {reason}")
    say(prefix_in_words(prefix))
    say(f"run them with\n  {command(export, arguments.out, prefix)}")
    if prefix is None:
        say("(models with their own code, such as STLMs, need `trust_remote_code=True` in --model_args)")


def _export_hub(arguments: argparse.Namespace) -> None:
    from tidy_stlms.eval.facts.hub import open_bank, push_bank

    url = push_bank(open_bank(arguments.bank), arguments.repo_id, private=arguments.private)
    say(f"{arguments.bank} is at {url}\nuse it as --facts hub:{arguments.repo_id}")


def _check_free(out: str) -> None:
    """UserError for a folder that holds something or cannot be written, before anything long starts."""
    from tidy_stlms.configs.files import check_writable

    path = Path(out)
    check_writable(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{out}: exists already; choose another folder or remove it")


def _save(bank: "FactBank", out: str, beside: dict[str, Any] | None = None) -> None:
    bank.save(out, beside=beside)
    facts, probes = counted(len(bank.facts), "fact", "facts"), counted(len(bank.probes), "probe", "probes")
    say(f"{out}: {facts}, {counted(len(bank.statements), 'statement', 'statements')}, {probes}")
    say(f"sha256 {bank.sha256}")


if __name__ == "__main__":
    sys.exit(main())
