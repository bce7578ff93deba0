"""Local copies of public datasets, a few made-up examples each, laid out as `hf download` leaves them."""

import json
from pathlib import Path

import numpy as np

ARC = """---
configs:
- config_name: ARC-Easy
  data_files:
  - {split: train, path: ARC-Easy/train.jsonl}
  - {split: validation, path: ARC-Easy/test.jsonl}
  - {split: test, path: ARC-Easy/test.jsonl}
---
"""
GLUE = """---
configs:
"""


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_arc(data_dir: Path, count: int = 12) -> None:
    """ARC-Easy: the right answer is a word of the question."""
    words = ["stone", "river", "garden", "farmer", "winter", "market"]
    rows = [
        {
            "id": str(i),
            "question": f"Which of these is a {words[i % 6]}?",
            "choices": {
                "text": [words[i % 6], words[(i + 1) % 6], words[(i + 2) % 6]],
                "label": ["A", "B", "C"],
            },
            "answerKey": "A",
        }
        for i in range(count)
    ]
    folder = data_dir / "allenai/ai2_arc"
    for split in ("train", "test"):
        write_lines(folder / f"ARC-Easy/{split}.jsonl", rows)
    (folder / "README.md").write_text(ARC)


def write_glue(data_dir: Path, tasks: dict[str, tuple[str, ...]], count: int = 60) -> None:
    """Tasks of GLUE by name, with their text columns: label 1 is about ships, label 0 about bread.

    Of `stsb` the sentences are about both, and the label is the number of words about ships.
    """
    generator = np.random.default_rng(0)
    ships, bread = ["sail", "mast", "harbour", "anchor", "wave"], ["oven", "flour", "crust", "loaf", "dough"]
    folder, readme = data_dir / "nyu-mll/glue", GLUE
    for task, columns in tasks.items():
        readme += f"- config_name: {task}\n  data_files:\n"
        for split, size in (("train", count), ("validation", count // 2)):
            rows = []
            for i in range(size):
                label = i % 2
                source = ships + bread if task == "stsb" else (ships if label else bread)
                words = [generator.choice(source, 4).tolist() for _ in columns]
                count_of_ships = sum(word in ships for side in words for word in side)
                row: dict = {name: " ".join(side) for name, side in zip(columns, words, strict=True)}
                row |= {"idx": i, "label": float(count_of_ships) if task == "stsb" else label}
                rows.append(row)
            write_lines(folder / f"{task}/{split}.jsonl", rows)
            readme += f"  - {{split: {split}, path: {task}/{split}.jsonl}}\n"
    (folder / "README.md").write_text(readme + "---\n")
