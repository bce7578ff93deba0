"""Fixtures of the damaged files, and the counts that pytest prints at the end."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.damaged.command import Case


@pytest.fixture
def new_case(request, tmp_path) -> Iterator[Callable[[], Case]]:
    """`new_case()`: a case in an empty folder. The folders of earlier cases of the test are removed."""
    counts: Counter = Counter()

    def make() -> Case:
        for old in tmp_path.iterdir():
            shutil.rmtree(old)
        return Case(Path(tempfile.mkdtemp(prefix="case-", dir=tmp_path)), counts)

    yield make
    request.node.user_properties.append(("cases", dict(counts)))


def pytest_terminal_summary(terminalreporter) -> None:
    total: Counter = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                total.update(dict(getattr(report, "user_properties", ())).get("cases", {}))
    if total:
        refused, accepted = total["refused"], total["accepted"]
        counts = f"{refused:,} refused in one line, {accepted:,} accepted"
        terminalreporter.write_line(f"damaged files: {refused + accepted:,} commands, {counts}")
