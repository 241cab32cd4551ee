"""What all tests start from: the limit of descriptors as high as it may be, as a service manager sets it for a server."""

from __future__ import annotations

import os
import resource

import hypothesis
import pytest

from tests import spoken

_, _HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(_HARD, 20_000), _HARD))
# However busy the machine is, an example may take its time.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")
SPEECHES = {"tls": ("PERCHILD_TEST_TLS", "plain"), "h2": ("PERCHILD_TEST_H2", "http1")}  # option: what tells the labs, what is left out


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of whole servers be run over TLS, over HTTP/2, or both."""
    parser.addoption("--tls", action="store_true", help="labs speak TLS, unless they say themselves whether they do")
    parser.addoption("--h2", action="store_true", help="labs speak HTTP/2, unless they say themselves what they speak")


def pytest_configure(config: pytest.Config) -> None:
    """Tell the labs, those in processes of pytest-xdist as well, and have it looked after."""
    for option, (name, _) in SPEECHES.items():
        if config.getoption(option):
            os.environ[name] = "1"
    if any(map(config.getoption, SPEECHES)):
        config.pluginmanager.register(spoken, "spoken")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has no meaning in what is spoken (spoken.py)."""
    marks = [mark for option, (_, mark) in SPEECHES.items() if config.getoption(option)]
    left_out = [item for item in items if marks and (spoken.is_own(item) or any(item.get_closest_marker(mark) for mark in marks))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
