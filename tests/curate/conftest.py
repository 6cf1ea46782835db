"""A server that stands for models and detectors, shared by the tests of the stages that ask one."""

import pytest

from tests.curate.stub import Stub


@pytest.fixture(scope="session")
def server():
    """The server, with nine scenes."""
    with Stub(range(9)) as stub:
        yield stub


@pytest.fixture
def stub(server):
    """The server, without trouble and with nothing answered yet."""
    server.forget()
    return server
