"""On gaussian data, whose ideal model and ODE solution are closed forms, samplers converge at their paper's order."""

import numpy as np
import pytest

from benchmarks.samplers import FITTED, MEAN, ORDERS, STD, STEPS, STOCHASTIC, distribution, error, run_of, slope
from mezzotint.engines.sampling import SAMPLERS
from mezzotint.engines.schedule import Prediction

FIRST_ORDER = ("ddim", "ddpm", "euler_a")


def test_every_sampler_is_asked() -> None:
    assert {*ORDERS, *STOCHASTIC} == set(SAMPLERS)


@pytest.mark.parametrize("name", ORDERS)
def test_deterministic_samplers_reach_their_papers_order_in_uniform_steps_of_log_snr(name: str) -> None:
    errors = [error(run_of(name, num_steps)) for num_steps in FITTED[name]]
    assert (np.diff(errors) < 0).all()
    assert slope(FITTED[name], errors) >= ORDERS[name] - 0.2


@pytest.mark.parametrize("name", ["plms", "pndm"])
def test_pndm_reaches_its_order_where_the_model_predicts_clean_samples(name: str) -> None:
    errors = [error(run_of(name, num_steps, prediction=Prediction.SAMPLE)) for num_steps in STEPS]
    assert slope(STEPS, errors) >= 1.8


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_end_in_the_datas_distribution(name: str) -> None:
    mean, std = distribution(name, 320 if name in FIRST_ORDER else 50)
    assert mean == pytest.approx(MEAN, abs=0.02)
    assert std == pytest.approx(STD, rel=0.02)
