"""What holds for every test: nothing is skipped, and no process outlives the run."""

from collections.abc import Generator, Iterator

import hypothesis
import psutil
import pytest

hypothesis.settings.register_profile("project", database=None, deadline=None)
hypothesis.settings.load_profile("project")

NOT_RUN = "skipped, or expected to fail: a test that is not run proves nothing. What it needs must be there."
EXIT_GRACE = 5.0
"""Seconds that a process which has been told to end may take."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write transcripts anew; review them as a diff")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"{item.nodeid}: {NOT_RUN}\n{report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"{collector.nodeid}: {NOT_RUN}\n{report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=EXIT_GRACE)
    assert not left, f"the tests left processes behind: {left}"
