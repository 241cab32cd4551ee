"""What all tests start from: the limit of descriptors as high as it may be, as a service manager sets it for a server."""

import os
import resource

import pytest

_, _HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(_HARD, 20_000), _HARD))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of whole servers be run over TLS."""
    parser.addoption("--tls", action="store_true", help="labs speak TLS, unless they say themselves whether they do")


def pytest_configure(config: pytest.Config) -> None:
    """Tell the labs, those in processes of pytest-xdist as well."""
    if config.getoption("--tls"):
        os.environ["PERCHILD_TEST_TLS"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about plain connections."""
    if config.getoption("--tls"):
        plain = [item for item in items if item.get_closest_marker("plain")]
        config.hook.pytest_deselected(items=plain)
        items[:] = [item for item in items if item not in plain]
