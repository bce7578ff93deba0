import pytest

from tidy_stlms.configs.load import load_config
from tidy_stlms.trainers.run import train


@pytest.fixture
def run_tiny(tiny, tmp_path):
    """`run_tiny(name, "section.key=value", ...)`: a tiny run in this process; returns its folder."""

    def run(name, *overrides, overwrite=False):
        file, *keys = tiny(name, *overrides)
        train(*load_config([file], keys), overwrite=overwrite)
        return tmp_path / name

    return run
