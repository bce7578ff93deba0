"""`stlm bench recall`: the speed of scoring answers, compared with lm-eval and a loop over tokens."""

import argparse
import logging
import sys
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import to_json
from tidy_stlms.configs.printable import printable
from tidy_stlms.scripts.cli import parser, run
from tidy_stlms.scripts.messages import say

DESCRIPTION = """\
Time three ways to score answers, on the same model, bank and machine:

  loop     as in Tidy-STLMs: one forward pass for each answer token, no cache, batch 1, once for the ranks
           and once for the perplexity
  lm-eval  the log-likelihoods of lm-eval's HFLM at batch 32
  ours     the scorer behind `stlm recall`

All three score the right answers. lm-eval and ours also score all candidates of each probe. The bank is
generated for this. The model is an STLM with random weights, unless --model names another.
"""
EPILOG = """\
examples:
  stlm bench recall
  stlm bench recall --json --threads 1 > speed.json
  stlm bench recall --quick
"""
QUICK = {"parameters": "1M", "probes": 100, "loop_probes": 10, "ranked_probes": 20}


def main(argv: list[str] | None = None) -> int:
    cli = parser("bench", "Measure speed.", epilog=EPILOG)
    commands = cli.add_subparsers(dest="command", required=True, metavar="recall")
    recall = commands.add_parser(
        "recall",
        help="speed of scoring answers",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=cli.formatter_class,
    )
    recall.add_argument("--json", action="store_true", help="print the figures as JSON")
    recall.add_argument("--model", help="a model folder or a Hub id (default: random weights)")
    recall.add_argument(
        "--parameters", default="50M", help="size of the random model: 1M, 10M, 50M (default), 124M"
    )
    recall.add_argument(
        "--probes",
        type=int,
        default=1000,
        metavar="N",
        help="probes whose right answers are scored, default 1000",
    )
    recall.add_argument(
        "--candidates", type=int, default=10, metavar="K", help="candidates of a probe, default 10"
    )
    recall.add_argument(
        "--ranked-probes",
        type=int,
        default=200,
        metavar="N",
        help="probes whose candidates are all scored, default 200",
    )
    recall.add_argument(
        "--loop-probes",
        type=int,
        default=40,
        metavar="N",
        help="probes that the loop is timed on, default 40",
    )
    recall.add_argument(
        "--repeats", type=int, default=3, help="timings of each way; the median is reported, default 3"
    )
    recall.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    recall.add_argument("--device", default="cpu", help="cpu (default), cuda, mps")
    recall.add_argument("--batch-tokens", type=int, help="ours: tokens in one forward pass")
    recall.add_argument(
        "--quick",
        action="store_true",
        help="a model of 1M and 100 probes, unless other options say otherwise",
    )
    if "--quick" in (sys.argv[1:] if argv is None else argv):
        recall.set_defaults(**QUICK)
    arguments = cli.parse_args(argv)
    return run(lambda: _recall(arguments), arguments.debug)


def _recall(arguments: argparse.Namespace) -> None:
    for name in ("probes", "loop_probes", "ranked_probes", "repeats", "threads", "batch_tokens"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if arguments.candidates < 2:
        raise UserError(f"--candidates {arguments.candidates}: must be at least 2")
    import torch

    from tidy_stlms.eval.scoring.bench import bench_recall, build_workload

    # lm-eval warns that it did not load the model itself
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    workload = build_workload(
        n_probes=arguments.probes,
        n_candidates=arguments.candidates,
        size=arguments.parameters,
        name=arguments.model,
        device=arguments.device,
    )
    report = bench_recall(
        workload,
        repeats=arguments.repeats,
        n_loop=arguments.loop_probes,
        n_ranked=arguments.ranked_probes,
        batch_tokens=arguments.batch_tokens,
        progress=lambda line: print(printable(line), file=sys.stderr),
    )
    say(to_json(report, indent=2) if arguments.json else _table(report))


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['model']}: {report['parameters']:,} parameters, {report['vocab_size']:,} tokens, "
        f"{report['dtype']} on {report['device']}, {report['threads']} threads",
        f"{report['n_probes']} probes of {report['prompt_tokens']:.1f} tokens, {report['n_candidates']:g} "
        f"candidates of {report['answer_tokens']:.1f}; medians of {report['repeats']}",
        "",
        f"{'true answers, ranks and perplexity':<40}{'probes/s':>12}{'ours is':>12}",
    ]
    ours = report["ours_probes_per_second"]
    for name, speed, times in (
        ("loop as in Tidy-STLMs", report["loop_probes_per_second"], report["times_loop"]),
        ("lm-eval, batch 32 (no ranks)", report["lm_eval_probes_per_second"], report["times_lm_eval_probes"]),
    ):
        lines.append(f"  {name:<38}{speed:>12.1f}{times:>11.1f}x")
    lines += [
        f"  {'ours':<38}{ours:>12.1f}",
        f"{'all candidates of ' + str(report['ranked_probes']) + ' probes':<40}{'candidates/s':>12}",
        f"  {'lm-eval, batch 32':<38}{report['lm_eval_candidates_per_second']:>12.1f}"
        f"{report['times_lm_eval']:>11.1f}x",
        f"  {'ours':<38}{report['ours_candidates_per_second']:>12.1f}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
