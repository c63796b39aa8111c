"""The arithmetic of trying again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.retry import RetryPolicy

POLICY = RetryPolicy(initial=2, factor=3, max=100)


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 2), (2, 6), (3, 18), (4, 54), (5, 100), (6, 100)])
def test_each_failure_multiplies_the_ceiling_up_to_the_maximum(failures: int, ceiling: float) -> None:
    assert POLICY.delay(failures, 1) == ceiling


@pytest.mark.parametrize(("jitter", "delay"), [(0, 0), (0.25, 4.5), (0.5, 9), (1, 18)])
def test_jitter_is_full_anything_from_nothing_to_the_ceiling(jitter: float, delay: float) -> None:
    assert POLICY.delay(3, jitter) == delay


def test_the_policy_by_default_doubles_from_a_second_to_an_hour() -> None:
    assert [RetryPolicy().delay(failures, 1) for failures in (1, 2, 3, 12, 13)] == [1, 2, 4, 2048, 3600]


def test_a_factor_of_one_waits_evenly() -> None:
    policy = RetryPolicy(initial=7, factor=1, max=100)
    assert [policy.delay(failures, 1) for failures in (1, 2, 1000)] == [7, 7, 7]


def test_an_initial_delay_above_the_maximum_is_cut() -> None:
    assert RetryPolicy(initial=500, factor=2, max=60).delay(1, 1) == 60


def test_the_hundred_thousandth_failure_waits_the_maximum() -> None:
    assert RetryPolicy().delay(100_000, 1) == 3600
    assert RetryPolicy(initial=1e308, factor=1e308, max=60).delay(2, 1) == 60


@pytest.mark.parametrize("failures", [1, 2, 1024, 1025, 100_000])
def test_a_policy_without_delay_never_waits(failures: int) -> None:
    assert RetryPolicy(initial=0.0, factor=2.0, max=3600.0).delay(failures, 1) == 0


@settings(derandomize=True, max_examples=300)
@given(
    st.builds(RetryPolicy, initial=st.floats(0, 1e6), factor=st.floats(1, 1e3), max=st.floats(0, 1e6)),
    st.integers(1, 10_000),
    st.floats(0, 1),
)
def test_a_delay_lies_between_nothing_and_the_maximum_and_never_shrinks_with_failures(
    policy: RetryPolicy, failures: int, jitter: float
) -> None:
    delay = policy.delay(failures, jitter)
    assert 0 <= delay <= policy.max
    assert delay <= policy.delay(failures + 1, jitter)
