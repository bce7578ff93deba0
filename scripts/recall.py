"""`stlm recall`: measure what models recall of a bank, also by `torchrun --no-python stlm recall ...`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.printable import printable
from tidy_stlms.eval.styles import HELDOUT_STYLES, OVERLAP, STYLES, SUITE_STYLE
from tidy_stlms.scripts.cli import add_model_options, add_prefix_option, parser, quiet_loading, run
from tidy_stlms.scripts.messages import complain, say, warn

if TYPE_CHECKING:
    from tidy_stlms.eval.facts.bank import FactBank
    from tidy_stlms.eval.models.names import ModelName
    from tidy_stlms.eval.study.request import Measurement, ModelInfo, StudyRequest

DESCRIPTION = """\
Ask models what they know of a bank of facts, and compare them.

A MODEL is a run folder, its checkpoint (RUN@step=400, RUN@last) or all of them (RUN@all), a folder of
save_pretrained, a peft adapter, a model of the Hub (ID or ID@REVISION), or a .pt file of Tidy-STLMs.
Results are cached: the same command continues where it was interrupted, and takes no time when repeated."""

EPILOG = """\
examples:
  stlm recall outputs/quickstart --facts outputs/quickstart/facts
  stlm recall outputs/quickstart@all --facts outputs/quickstart/facts --out results/over_time
  stlm recall outputs/quickstart gpt2 --baseline outputs/twin --facts banks/people --out results/comparison
  stlm recall EleutherAI/pythia-70m@step1000 gpt2 --prompts configs/prompts/capitals.yaml
  stlm recall outputs/quickstart outputs/twin --heldout held_out.txt --benchmarks blimp --limit 100
  torchrun --no-python --nproc_per_node 2 stlm recall outputs/quickstart --facts banks/people
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("recall", DESCRIPTION, epilog=EPILOG, usage="stlm recall MODEL [MODEL ...] [options]")
    cli.add_argument("models", nargs="+", metavar="MODEL", help="models to ask; see above")
    _add_questions(cli)
    _add_results(cli)
    add_prefix_option(cli)
    add_model_options(cli)
    cli.add_argument(
        "--tokenizer", metavar="PATH", help="the tokenizer of Tidy-STLMs checkpoints (.pt files)"
    )
    cli.add_argument(
        "--batch-tokens", type=positive, metavar="N", help="tokens in one forward pass (default: by device)"
    )
    arguments = cli.parse_args(argv)
    return run(lambda: _recall(arguments), arguments.debug)


def positive(text: str) -> int:
    """An argument that must be a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def whole_number(text: str) -> int:
    """An argument that must be a whole number, zero included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(text)


def _add_questions(cli: argparse.ArgumentParser) -> None:
    questions = cli.add_argument_group("what is asked (at least one)")
    questions.add_argument("--facts", metavar="BANK", help="a bank of facts: its folder, or hub:REPO_ID")
    questions.add_argument(
        "--style",
        choices=STYLES,
        default=SUITE_STYLE,
        help="how the bank is asked: the suite's way, or with the figures of BEAR's client lm-pub-quiz: the "
        "whole sentence after BOS (default suite)",
    )
    questions.add_argument(
        "--prompts",
        action="append",
        default=[],
        metavar="FILE",
        help="sentences to continue, with answers to rate (YAML, JSON, Markdown); may be repeated",
    )
    questions.add_argument(
        "--heldout",
        action="append",
        default=[],
        metavar="FILE",
        help="text whose bits per byte are measured: any file of a corpus; in .txt, a blank line between "
        "documents; may be repeated",
    )
    questions.add_argument(
        "--heldout-style",
        choices=HELDOUT_STYLES,
        default=OVERLAP,
        help="how documents longer than the model's context are read: in windows that overlap by half, or "
        "rolling, which gives lm-eval's figure (default overlap)",
    )
    questions.add_argument(
        "--separator",
        metavar="LINE",
        help="line between documents of --heldout files, such as '<|endoftext|>'",
    )
    questions.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="column that holds the documents of --heldout files (default text)",
    )
    questions.add_argument(
        "--benchmarks", type=_names, default=(), metavar="A,B", help="tasks of lm-eval: blimp, arc_easy, ..."
    )
    questions.add_argument(
        "--linear-probes",
        type=_names,
        default=(),
        metavar="A,B",
        help="classifiers on hidden states: cola, mrpc, rte, stsb, wnli",
    )
    questions.add_argument(
        "--limit", type=positive, metavar="N", help="examples of each benchmark and linear probe"
    )
    questions.add_argument(
        "--num-fewshot", type=whole_number, metavar="N", help="examples shown before each question"
    )
    questions.add_argument("--data-dir", metavar="DIR", help="local copies of the benchmarks' data sets")
    questions.add_argument(
        "--no-generate", action="store_true", help="leave out free generation (exact match)"
    )
    questions.add_argument(
        "--steps", type=positive, default=10, metavar="N", help="tokens said after a prompt (default 10)"
    )
    questions.add_argument(
        "--top-k", type=positive, default=5, metavar="N", help="tokens shown at each of them (default 5)"
    )


def _add_results(cli: argparse.ArgumentParser) -> None:
    results = cli.add_argument_group("results")
    results.add_argument(
        "--baseline",
        metavar="MODEL",
        help="compare each model with this one (default: every two of up to five, else with the first)",
    )
    results.add_argument(
        "--out", metavar="DIR", help="write results, summary.json, report.md, report.html there"
    )
    results.add_argument("--overwrite", action="store_true", help="replace the results in --out")
    results.add_argument("--no-cache", action="store_true", help="neither read nor write cached results")
    results.add_argument(
        "--seed", type=whole_number, default=0, help="seed of the intervals and benchmarks (default 0)"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _recall(arguments: argparse.Namespace) -> int:
    if not (
        arguments.facts
        or arguments.prompts
        or arguments.heldout
        or arguments.benchmarks
        or arguments.linear_probes
    ):
        facts = next(
            (f"{m}/facts" for m in arguments.models if Path(m, "facts", "bank.json").is_file()), "BANK"
        )
        raise UserError(
            f"nothing is asked; give --facts {facts}, --prompts, --heldout, --benchmarks or --linear-probes"
        )
    if arguments.baseline is not None and arguments.baseline not in arguments.models:
        arguments.models.insert(0, arguments.baseline)
    _join_processes(arguments)

    # all that can be wrong comes before the first model
    request = _request(arguments)
    names = _models(arguments)
    baseline = _baseline(arguments, names)
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        from tidy_stlms.eval.study.study import check_out

        check_out(out, overwrite=arguments.overwrite)

    from tidy_stlms.eval.study.lazy_model import is_first_process

    measurements = _measure(names, request)
    if not is_first_process():
        return 0
    if len(names) == 1 and "model" in measurements[0].errors:
        return 2  # it was no model
    _show(measurements, request, baseline, out, arguments.overwrite)
    return 1 if any(measurement.failed for measurement in measurements) else 0


def _join_processes(arguments: argparse.Namespace) -> None:
    """Under torchrun each process takes its own device and a part of the probes."""
    from tidy_stlms.eval.scoring.processes import join_processes, process_rank

    arguments.device = join_processes(arguments.device)
    if process_rank() > 0:
        import logging

        logging.disable()


def _request(arguments: argparse.Namespace) -> "StudyRequest":
    from tidy_stlms.configs.load import cache_folder
    from tidy_stlms.eval.models.load import choose_device, choose_dtype
    from tidy_stlms.eval.recall.style import prefix_for_style
    from tidy_stlms.eval.study.heldout import read_documents
    from tidy_stlms.eval.study.lazy_model import is_first_process
    from tidy_stlms.eval.study.prompts import load_prompts
    from tidy_stlms.eval.study.request import StudyRequest
    from tidy_stlms.eval.texts import TextFormat

    choose_dtype(arguments.dtype, choose_device(arguments.device))
    prefix_for_style(arguments.style, arguments.prefix)  # refuses a prefix that contradicts the style
    if arguments.style != SUITE_STYLE and not arguments.facts:
        raise UserError(f"--style {arguments.style}: says how a bank is asked; give --facts, or leave it out")
    if arguments.benchmarks:
        from tidy_stlms.eval.study.benchmarks import check_benchmarks

        check_benchmarks(arguments.benchmarks)
    if arguments.linear_probes:
        from tidy_stlms.eval.study.linear_probes import check_linear_probes

        check_linear_probes(arguments.linear_probes)
    if arguments.data_dir is not None and not Path(arguments.data_dir).is_dir():
        raise UserError(f"--data-dir {arguments.data_dir}: no such folder")
    bank = _bank(arguments.facts) if arguments.facts else None
    return StudyRequest(
        bank=bank,
        guessable=_guessable(bank),
        style=arguments.style,
        prompts=[prompt for file in arguments.prompts for prompt in load_prompts(file)],
        documents=read_documents(
            arguments.heldout, TextFormat(arguments.text_column, separator=arguments.separator)
        ),
        heldout_style=arguments.heldout_style,
        benchmarks=arguments.benchmarks,
        linear_probes=arguments.linear_probes,
        prefix=arguments.prefix,
        generate=not arguments.no_generate,
        max_new_tokens=arguments.steps,
        top_k=arguments.top_k,
        limit=arguments.limit,
        num_fewshot=arguments.num_fewshot,
        data_dir=Path(arguments.data_dir) if arguments.data_dir else None,
        seed=arguments.seed,
        device=arguments.device,
        dtype=arguments.dtype,
        batch_tokens=arguments.batch_tokens,
        trust_remote_code=arguments.trust_remote_code,
        cache=None if arguments.no_cache else cache_folder(None),
        progress=sys.stderr.isatty() and is_first_process(),
    )


def _guessable(bank: "FactBank | None") -> list[str]:
    """Which guessers beat chance in an imported or hand-written bank, after a warning of each.

    Generated banks have been tested when they were made.
    """
    from tidy_stlms.eval.facts.guesser_tests import guessable, guesser_tests
    from tidy_stlms.eval.study.lazy_model import is_first_process

    if bank is None or bank.meta.get("provenance") == "generated":
        return []
    problems = [finding.problem for finding in guessable(guesser_tests(bank))]
    for problem in problems if is_first_process() else ():
        warn(f"guessable bank: {problem}")
    return problems


def _bank(name: str) -> "FactBank":
    from msgspec.structs import replace

    from tidy_stlms.eval.facts.hub import open_bank

    bank = open_bank(name)
    if not bank.probes:
        raise UserError(f"--facts {name}: the bank has no probes, so there is nothing to ask")
    # reports call it by its name
    return replace(bank, meta={**bank.meta, "name": bank.meta.get("name") or Path(name).name})


def _models(arguments: argparse.Namespace) -> "list[ModelName]":
    from tidy_stlms.configs.load import cache_folder
    from tidy_stlms.eval.models.names import expand_names

    return expand_names(arguments.models, cache=cache_folder(None), tokenizer=arguments.tokenizer)


def _baseline(arguments: argparse.Namespace, names: "list[ModelName]") -> str | None:
    """The label of the one model that --baseline stands for."""
    if arguments.baseline is None:
        return None
    if len(names) == 1:
        raise UserError(f"--baseline {arguments.baseline}: there is no other model to compare it with")
    from tidy_stlms.configs.load import cache_folder
    from tidy_stlms.eval.models.names import expand_names

    labels = [
        name.label
        for name in expand_names(
            [arguments.baseline], cache=cache_folder(None), tokenizer=arguments.tokenizer
        )
    ]
    if len(labels) != 1:
        raise UserError(f"--baseline {arguments.baseline}: stands for {len(labels)} models; name one of them")
    return labels[0]


def _measure(names: "list[ModelName]", request: "StudyRequest") -> "list[Measurement]":
    """One model after another, so that memory holds one at a time."""
    from tidy_stlms.eval.study.lazy_model import is_first_process
    from tidy_stlms.eval.study.measure import measure_model

    quiet_loading()
    first = is_first_process()

    def tell(info: "ModelInfo", loaded: bool) -> None:
        if first:
            kept = "" if loaded else " (measured before)"
            how = ", ".join(filter(None, (info.device, info.dtype, info.attention)))
            say(f"{info.model}: {info.parameters:,} parameters, {how}, prefix {info.prefix}{kept}")

    measurements = []
    for name in names:
        try:
            measurement = measure_model(name, request, on_described=tell)
        except KeyboardInterrupt:
            kept = (
                "what is finished is kept: the same command goes on" if request.cache else "nothing is kept"
            )
            print(printable(f"\nstlm: stopped at {name.label}; {kept}"), file=sys.stderr)
            raise SystemExit(130) from None
        measurements.append(measurement)
        more = "; going on with the others" if name is not names[-1] else ""
        for section, error in measurement.errors.items() if first else ():
            what = "" if section in ("model", "recall") else f"{section}: "
            complain(f"{name.label}: {what}{error}{more}")
    return measurements


def _show(
    measurements: "list[Measurement]",
    request: "StudyRequest",
    baseline: str | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    from tidy_stlms.eval.study.study import build_study, results_of, write_study
    from tidy_stlms.scripts.study_tables import print_study
    from tidy_stlms.scripts.terminal import Terminal

    without_results = [each.name.label for each in measurements if not (each.results or each.documents)]
    if baseline in without_results:
        warn(f"--baseline {baseline} has no results; every two models are compared")
        baseline = None
    study = build_study(measurements, request, baseline=baseline)
    if out is not None:  # before anything is printed, for whoever reads that may close the pipe
        from tidy_stlms.eval.report.study_report import write_study_report

        results = results_of(measurements)

        def report(folder: Path) -> None:
            write_study_report(folder, study, results)

        write_study(out, study, results, report=report, overwrite=overwrite)
    print_study(Terminal(), study, request.bank, baseline)
    if out is not None:
        say(f"wrote {out}: results.jsonl, results.csv, summary.json, report.md, report.html")


if __name__ == "__main__":
    sys.exit(main())
