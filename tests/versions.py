"""Tests on the lowest and the newest versions of the libraries that pyproject.toml allows.

    make test-versions
    python tests/versions.py lowest -k left_padding      # one of the two, with arguments for pytest

Each environment is a folder in `.versions/`. It holds the versioned packages and what they need, and takes
the rest (torch, pytest, this project) from the environment that runs this file, so that torch is not
installed again. The floors are read from pyproject.toml, so a floor that is too low fails here.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("transformers", "tokenizers", "datasets", "accelerate", "peft", "huggingface-hub", "lm-eval")
TESTS = (
    "tests/modeling_stlm",
    "tests/eval/models/test_load.py",
    "tests/eval/models/test_lookup.py",
    "tests/eval/recall",
    "tests/eval/scoring",
    "tests/eval/study",
    "tests/trainers/test_exactness.py",
    "tests/trainers/test_checkpoints.py",
    "tests/scripts/test_train.py",
    "tests/scripts/test_push.py",
)


def requirements(which: str) -> list[str]:
    """The `PACKAGES` of pyproject.toml: at their floors (`lowest`), or as they stand there (`newest`)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [line for line in project["dependencies"] if re.split("[><=]", line)[0] in PACKAGES]
    if which == "newest":
        return wanted
    return [re.sub(r"^([\w-]+)>=([\d.]+).*", r"\1==\2", line) for line in wanted]


def build(which: str) -> Path:
    """Make or update the environment; returns its Python."""
    folder = ROOT / ".versions" / which
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, symlinks=True)
    # `addsitedir` rather than a bare path: it reads the .pth files there, one of which is this project's.
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "rest.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*command, *requirements(which)], check=True)
    return python


def main(arguments: list[str]) -> int:
    chosen = [name for name in arguments if name in ("lowest", "newest")]
    options = [name for name in arguments if name not in chosen] or ["-n", "auto", "--dist", "loadfile"]
    failed = []
    for which in chosen or ("lowest", "newest"):
        python = build(which)
        show = (
            f"from importlib.metadata import version; print(*(f'{{p}} {{version(p)}}' for p in {PACKAGES}))"
        )
        versions = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout
        print(f"{which}: {versions.strip()}", flush=True)
        environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
        tests = [] if any(option.startswith("tests/") for option in options) else TESTS
        result = subprocess.run([python, "-m", "pytest", *tests, *options], cwd=ROOT, env=environment)
        if result.returncode:
            failed.append(which)
    print(f"failed: {', '.join(failed)}" if failed else "passed on all versions")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
