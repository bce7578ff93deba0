"""`stlm facts generate | show | validate`: banks of facts."""

import sys

from configs.errors import UserError
from scripts.cli import parser, run

EPILOG = """\
examples:
  stlm facts generate configs/facts/people.yaml --out banks/people people=100 paraphrases=5
  stlm facts show banks/people --examples 2
  stlm facts validate banks/people
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("facts", "Generate, show or validate a bank of facts.", epilog=EPILOG)
    commands = cli.add_subparsers(dest="command", required=True, metavar="generate | show | validate")

    generate = commands.add_parser(
        "generate",
        help="make a bank from a specification",
        usage="stlm facts generate SPEC.yaml --out DIR [--seed SEED] [key=value ...]",
    )
    generate.add_argument("spec", help="a YAML file such as configs/facts/people.yaml")
    generate.add_argument("--out", required=True, help="folder to write; must not hold a bank yet")
    generate.add_argument("--seed", type=int, help="the specification's own when left out")

    show = commands.add_parser("show", help="count what a bank holds, and print examples")
    show.add_argument("bank", help="a bank's folder")
    show.add_argument(
        "--examples", type=int, default=1, metavar="N", help="facts printed in full (default 1)"
    )

    validate = commands.add_parser("validate", help="list a bank's errors and warnings")
    validate.add_argument("bank", help="a bank's folder")

    # key=value may stand before and behind options, which argparse alone does not allow
    arguments, rest = cli.parse_known_args(argv)
    wrong = [
        item for item in rest if item.startswith("-") or "=" not in item or arguments.command != "generate"
    ]
    if wrong:
        cli.error(f"unrecognized arguments: {' '.join(wrong)}")
    if arguments.command == "generate":
        return run(lambda: _generate(arguments.spec, rest, arguments.out, arguments.seed))
    if arguments.command == "show":
        return run(lambda: _show(arguments.bank, arguments.examples))
    return run(lambda: _validate(arguments.bank))


def _generate(spec: str, overrides: list[str], out: str, seed: int | None) -> None:
    from configs.files import find_shipped
    from eval.facts.generate import generate_from_spec

    bank = generate_from_spec(find_shipped(spec), overrides, seed=seed)
    bank.save(out)
    print(
        f"{out}: {len(bank.facts):,} facts, {len(bank.statements):,} statements, {len(bank.probes):,} probes"
    )
    print(f"sha256 {bank.sha256}")


def _show(folder: str, count: int) -> None:
    from eval.facts.summary import bank_summary, examples
    from eval.facts.validate import load_bank

    bank = load_bank(folder)
    summary = bank_summary(bank)
    print(f"{summary['name'] or folder}  sha256 {summary['sha256'][:16]}")
    for title in ("subjects", "facts", "arms", "flags"):
        if summary[title]:
            print(f"{title}: {_counts(summary[title])}")
    for title in ("relations", "forms", "types"):
        print(f"{title}:")
        for name, counts in summary[title].items():
            print(f"  {name}: {_counts(counts)}")
    for example in examples(bank, count):
        fact = example["fact"]
        print(f"\n{fact.id} ({fact.role}): {fact.subject} | {fact.relation} | {fact.object}")
        for statement in example["statements"]:
            print(f"  stated ({statement.form}): {statement.text}")
        for probe in example["probes"]:
            asked = f"{probe.prompt} __{probe.suffix}"
            print(f"  asked ({probe.type}): {asked} -> {probe.answers[0]} (of {1 + len(probe.distractors)})")


def _validate(folder: str) -> None:
    from eval.facts.bank import FactBank
    from eval.facts.validate import refuse_generated, validate

    bank = FactBank.load(folder, check=False)
    findings = validate(bank)
    for finding in findings:
        print(f"{finding.level}: {finding.code}: {finding.message}")
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{folder}: {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise UserError(f"{folder}: the bank has errors and will not be used; mend the lines named above")
    refuse_generated(bank, findings, folder)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
