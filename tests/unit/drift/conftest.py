import pytest

from retrain_assets.drift import kernels


@pytest.fixture(params=["compiled", "numpy"])
def each_kernel(request, monkeypatch):
    """Runs a test on the compiled kernels (skipped where they are not built) and on numpy."""
    monkeypatch.setenv("RETRAIN_DRIFT_KERNELS", request.param)
    kernels.compiled.cache_clear()
    if request.param == "compiled" and kernels.compiled() is None:
        pytest.skip("the kernels are not built here: no C compiler when the package was installed")
    yield request.param
    kernels.compiled.cache_clear()
