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
