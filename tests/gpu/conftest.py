"""Every test here says in one sentence what it misses where there is no GPU to run it."""

import pytest

from mezzotint.engines.backends import cuda
from mezzotint.engines.backends.cuda import Gpu
from mezzotint.engines.errors import DeviceNotFound


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The first GPU."""
    try:
        return cuda.gpu(0)
    except DeviceNotFound as error:
        pytest.skip(str(error))
