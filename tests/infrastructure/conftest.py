"""What the tests of the log begin with: servers over the module's database, and a database of the test's own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.infrastructure.nodes import Node, migrated
from tests.infrastructure.proxies import Proxy


@pytest.fixture
def nodes(dsn: str) -> Iterator[Callable[[], Node]]:
    """Makes servers that share the module's database."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Node(dsn))


@pytest.fixture
def node(nodes: Callable[[], Node]) -> Node:
    return nodes()


@pytest.fixture
def own(new_database: Callable[[], str]) -> str:
    """A migrated database of the test's own."""
    return migrated(new_database())


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """A way to the module's database that a test can cut."""
    with Proxy(dsn) as proxy:
        yield proxy
