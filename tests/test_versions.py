"""The versions that this project says it works with are the same wherever it says so."""

import re
import tomllib

from modeling_stlm import LOWEST_TRANSFORMERS
from tests.versions import PACKAGES, ROOT, requirements


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_cards_readme_and_pyproject_name_one_floor_of_transformers():
    [floor] = [line for line in requirements("lowest") if line.startswith("transformers==")]
    assert floor == f"transformers=={LOWEST_TRANSFORMERS}"
    assert f"transformers {LOWEST_TRANSFORMERS}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_versioned_package_has_a_floor_and_a_pin_above_it():
    lowest = dict(line.split("==") for line in requirements("lowest"))
    assert set(lowest) == set(PACKAGES)
    for package, floor in lowest.items():
        numbers = [[int(n) for n in re.findall(r"\d+", text)] for text in (floor, pins()[package])]
        assert numbers == sorted(numbers), f"{package}: pinned below its floor"


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split("[><=]", line)[0] for line in project["dependencies"]}
    assert names - set(pins()) == set()
