"""The package as users get it: the wheel's content, and commands in a folder that has our folders' names."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from shutil import copytree, ignore_patterns
from zipfile import ZipFile

import pytest

from tests.conftest import TINY
from tests.test_imports import FOLDERS, ROOT

pytestmark = pytest.mark.skipif(
    int(version("setuptools").partition(".")[0]) < 77, reason="setuptools 77 reads pyproject.toml"
)
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
COLLIDING = ("configs", "eval", "scripts", "tests", "trainers")
IMPORTS = """
import sys
import modeling_stlm
import tidy_stlms.eval.recall.harness
import tidy_stlms.trainers.run
for package in (modeling_stlm, tidy_stlms, tidy_stlms.eval, tidy_stlms.trainers):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
twice = [name for name in sys.modules if name.endswith(".modeling_stlm.configuration_stlm")]
assert not twice, twice
"""


def succeed(*command, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


def build_wheel(source: Path, out: Path) -> Path:
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", out]
    succeed(sys.executable, "-m", "pip", "wheel", *options, source)
    [wheel] = out.glob("*.whl")
    return wheel


def content(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the wheel is made of, since building writes into the source folder."""
    copy = tmp_path_factory.mktemp("package") / "checkout"
    for folder in (*FOLDERS, "src"):
        ignored = ignore_patterns("__pycache__", "*.egg-info")
        copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(checkout):
    return build_wheel(checkout, checkout.parent / "wheel")


@pytest.fixture(scope="module")
def installed(wheel):
    """The folder that the wheel is installed in."""
    folder = wheel.parent.parent / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--target", folder]
    succeed(sys.executable, "-m", "pip", "install", *options, wheel)
    return folder


@pytest.fixture
def user(installed, tmp_path):
    """`user(command, ...)` runs a command where a user has folders with the names of ours."""
    for name in COLLIDING:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('the {name} of the user')\n")
    (tmp_path / "eval.py").write_text("raise ImportError('the eval.py of the user')\n")
    environment = {
        **os.environ,
        "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(installed),  # in front of the checkout's editable install
    }
    return lambda *command: succeed(*command, cwd=tmp_path, env=environment)


def test_the_wheel_holds_the_two_packages_and_nothing_else(checkout, wheel):
    files = {
        path.relative_to(checkout).as_posix()
        for folder in FOLDERS
        for path in (checkout / folder).rglob("*")
        if path.is_file()
    }
    expected = {name if name.startswith("modeling_stlm/") else f"tidy_stlms/{name}" for name in files}
    assert content(wheel) == expected | {"tidy_stlms/__init__.py"}
    assert {Path(name).suffix for name in expected} == {".py", ".yaml", ".css", ".js", ".j2"}


def test_the_source_archive_builds_the_same_wheel(checkout, wheel, tmp_path):
    succeed(sys.executable, "-c", BUILD_SDIST, tmp_path, cwd=checkout)
    [archive] = tmp_path.glob("*.tar.gz")
    assert content(build_wheel(archive, tmp_path / "wheel")) == content(wheel)


def test_imports_beside_a_users_own_folders(user, installed):
    user(sys.executable, "-c", IMPORTS, str(installed))


def test_commands_beside_a_users_own_folders(user, tmp_path):
    assert "usage: stlm COMMAND" in user("stlm", "--help")
    assert user(sys.executable, "-m", "tidy_stlms.scripts", "--help") == user("stlm", "--help")
    user("stlm", "facts", "generate", "configs/facts/people.yaml", "--out", "bank", "people=12")
    assert (tmp_path / "bank" / "bank.json").is_file()

    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    keys = ["training.max_steps=2", "injection.exposures=1", "evaluation.recall_steps=2"]
    user("stlm", "train", "tiny.yaml", *keys, "training.output_dir=run", "data.cache_dir=cache")
    assert (tmp_path / "run" / "report.md").is_file()


def test_a_users_own_config_wins_over_a_shipped_one_of_the_same_name(user, tmp_path):
    spec = "configs/facts/people.yaml"
    shipped = user("stlm", "facts", "generate", spec, "--out", "shipped")
    (tmp_path / "configs" / "facts").mkdir()
    text = (ROOT / spec).read_text(encoding="utf-8")
    (tmp_path / spec).write_text(text.replace("people: 16", "people: 12"), encoding="utf-8")
    own = user("stlm", "facts", "generate", spec, "--out", "own")
    assert shipped.startswith("shipped: 192 facts")
    assert own.startswith("own: 144 facts")
