"""The corpora that have a short name, such as `simple_en_wiki`."""

from pathlib import Path
from typing import Any

from tidy_stlms.configs.yaml_files import read_yaml

CORPORA = Path(__file__).parent / "datasets.yaml"


def short_names() -> dict[str, list[dict[str, Any]]]:
    """For each short name, the Hub datasets that the corpus is made of."""
    table = read_yaml(CORPORA)
    return {name: parts if isinstance(parts, list) else [parts] for name, parts in table.items()}
