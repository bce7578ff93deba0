"""Carries over what a config of Tidy-STLMs measures during training: prompts and benchmarks."""

import re

from tidy_stlms.configs.tidy.account import Account

# Tasks of lm-eval with the same examples as Tidy-STLMs' benchmarks. Its `winograd` reads WinoGrande.
BENCHMARKS = {
    "arc": "arc_easy",
    "arc_easy": "arc_easy",
    "blimp": "blimp",
    "hellaswag": "hellaswag",
    "mmlu": "mmlu",
    "piqa": "piqa",
    "winograd": "winogrande",
    "winogrande": "winogrande",
}


def carry_prompts(source: Account) -> None:
    """Carry over prompts: mappings with a sentence and its answer, or plain texts in older configs."""
    section, ours = "trainer.prompt.input_prompts", "evaluation.prompts"
    plain = source.get(section)
    if isinstance(plain, list) and all(isinstance(sentence, str) for sentence in plain):
        source.carry(section, ours, [{"sentence": sentence} for sentence in plain])
    prompts: list[dict[str, str]] = []
    for index in range(len(source.left)):
        prompt = f"{section}[{index}]"
        key = prompt if prompt in source.left else f"{prompt}.sentence"
        if not isinstance(sentence := source.get(key), str):
            continue
        prompts.append({"sentence": sentence})
        source.same(key, ours)
        if (answer := source.get(f"{prompt}.answer")) is not None:
            prompts[-1]["answer"] = str(answer)
            source.same(f"{prompt}.answer", ours)
    if prompts:
        source.put(ours, prompts)
    source.carry("trainer.prompt.generator.max_new_tokens", "evaluation.max_new_tokens")


def carry_benchmarks(source: Account, steps: float) -> None:
    """Carry over the benchmarks that lm-eval has, measured as often as the held-out text.

    All of them get the first limit of examples. `steps` is the length of the run. It is not positive if the
    config counts epochs.
    """
    tasks: list[str] = []
    for key in [key for key in source.left if re.fullmatch(r"trainer\.eval(\[\d+\])?\.benchmarks", key)]:
        section = key.removesuffix(".benchmarks")
        names = source.get(key) if source.get(f"{section}.evaluator") == "mcq" else None
        named = [str(name) for name in names] if isinstance(names, list) else []
        known = [BENCHMARKS[name] for name in named if name in BENCHMARKS]
        if not known:
            continue
        tasks += [task for task in dict.fromkeys(known) if task not in tasks]
        missing = ", ".join(name for name in named if name not in BENCHMARKS)
        note = "prompts and scoring are lm-eval's" + (f"; not carried over: {missing}" if missing else "")
        source.carry(key, "evaluation.benchmarks", tasks, note=note)
        source.same(f"{section}.evaluator")
        if (limit := int(source.number(f"{section}.num_samples"))) > 0:
            note = "the first ones here, and so many of each part of a group such as blimp or mmlu"
            if source.result.config["evaluation"].setdefault("benchmark_limit", limit) == limit:
                source.carry(f"{section}.num_samples", "evaluation.benchmark_limit", limit, note=note)
    every = source.number("trainer.training.eval_interval")
    if tasks and every > 0 and steps > 0:
        source.put("evaluation.benchmark_steps", int(every))
    if not source.get("trainer.eval"):
        source.same("trainer.eval")
    for key in [key for key in source.left if re.match(r"trainer\.eval\b", key)]:
        source.leave(key, "see evaluation.benchmarks and `stlm recall --benchmarks` for what there is")
