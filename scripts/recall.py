"""`stlm recall`: what models recall of a bank of facts."""

import sys
from pathlib import Path

from configs.errors import UserError
from scripts.cli import add_model_options, load, parser, run

EPILOG = """\
examples:
  stlm recall outputs/quickstart --facts outputs/quickstart/facts
  stlm recall outputs/quickstart outputs/twin gpt2 --facts banks/people --out results/comparison
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("recall", "Measure what models recall of a bank of facts.", epilog=EPILOG)
    cli.add_argument("models", nargs="+", metavar="MODEL", help="a run folder, any model folder, or a Hub id")
    cli.add_argument("--facts", required=True, metavar="BANK", help="the bank's folder")
    cli.add_argument("--out", metavar="DIR", help="also write results.jsonl and summary.json there")
    cli.add_argument("--no-generate", action="store_true", help="leave out free generation (exact match)")
    cli.add_argument("--batch-tokens", type=int, help="tokens in one forward pass (default: by device)")
    add_model_options(cli)
    arguments = cli.parse_args(argv)
    return run(lambda: _recall(arguments))


def _recall(arguments) -> int:
    from eval.facts.validate import load_bank
    from eval.models import check_model_path

    bank = load_bank(arguments.facts)
    for model in arguments.models:
        check_model_path(model)
    out = Path(arguments.out) if arguments.out else None
    if out and out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: already holds something; take another --out")

    summaries: dict[str, dict] = {}
    rows: list[dict] = []
    failed = []
    for model in arguments.models:
        try:
            measured = _measure(model, bank, arguments)
        except UserError as error:
            if len(arguments.models) == 1:
                raise
            print(f"stlm: {error}; going on with the others", file=sys.stderr)
            failed.append(model)
            continue
        rows += [{"model": model, **row} for row in measured]
        summaries[model] = _show(model, measured, bank)
    if out:
        from configs.files import write_json, write_jsonl

        write_jsonl(out / "results.jsonl", rows)
        write_json(out / "summary.json", summaries)
        print(f"wrote {out}/results.jsonl and {out}/summary.json")
    return 1 if failed else 0


def _measure(name: str, bank, arguments) -> list[dict]:
    from eval.recall.harness import evaluate_recall

    model, tokenizer = load(name, arguments)
    dtype = str(model.dtype).removeprefix("torch.")
    print(f"{name}: {model.num_parameters():,} parameters, {model.device}, {dtype}")
    return evaluate_recall(
        model,
        tokenizer,
        bank,
        batch_tokens=arguments.batch_tokens,
        generate=not arguments.no_generate,
        progress=sys.stderr.isatty(),
    )


def _show(name: str, rows: list[dict], bank) -> dict:
    from rich.console import Console

    from eval.recall.metrics import summarise
    from eval.report.run_report import reading_guide
    from eval.report.tables import recall_table
    from scripts.tables import print_recall_table

    summary = summarise(rows)
    console = Console()
    print_recall_table(console, recall_table({"after": summary}), f"Recall of {name}")
    console.print(reading_guide(bank), highlight=False, markup=False)
    return summary


if __name__ == "__main__":
    sys.exit(main())
