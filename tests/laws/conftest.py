"""Every test here has the tables in which the tests' jobs leave their traces."""

import pytest

from tests.processes import processes

__all__ = ["processes"]


@pytest.fixture(autouse=True)
def traces(clean_slate: None) -> None:
    """The tables of `tests.ledger.commands`."""
    from tests.ledger.scene import make_tables  # not above: the environment is prepared after this module is read

    make_tables()
