import pytest

from tests.conftest import TINY
from tidy_stlms.scripts.__main__ import main


@pytest.fixture(scope="session")
def run(tmp_path_factory, cache):
    """One tiny run by the command, for all tests that only look at what it left."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY)
    keys = [f"training.output_dir={folder / 'out'}", f"data.cache_dir={cache}"]
    assert main(["train", str(folder / "tiny.yaml"), *keys]) == 0
    return folder / "out"


def fails(capsys, arguments, *expected):
    """Assert that the command ends with exit code 2 and one error, which holds the expected texts."""
    capsys.readouterr()
    assert main(arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stlm: error: ")]
    assert len(error) == 1
    for part in expected:
        assert part in error[0]
