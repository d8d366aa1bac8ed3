"""How the tests are shared out among the workers of pytest-xdist."""

from typing import Any

import pytest

ONE_RUN = ("test_commands.py", "test_deploy.py", "test_recipe.py")
"""Files of tests/flows that share one run of the recipe."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By files, like `--dist loadfile`, but for files that share what is costly to make.

    The mark `xdist_group` would say that too, but pytest-xdist 3.8 does not heed it under pytest 9.2.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByCost(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tests/flows, one run" if file.startswith("tests/flows/") and file.endswith(ONE_RUN) else file

    config.option.loadscopereorder = False  # tests/flows, the longest, come first
    return ByCost(config, log)
