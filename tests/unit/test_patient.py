"""What is known of a patient, and what it adds to a score."""

import math

import numpy as np
import pytest
from conftest import PATIENT_NUMBERS as NUMBERS

from isicvision import patient


@pytest.mark.parametrize("age", [-1, 121, 1e9, "old", "55 years", True, "inf", -0.5])
def test_an_impossible_age_is_named(age):
    with pytest.raises(ValueError, match="age is a number of years from 0 to 120, not") as error:
        patient.known({"age": age})
    assert str(age).lower() in str(error.value)


@pytest.mark.parametrize("value", [None, math.nan, "", " Unknown ", "nan", np.float64("nan")])
def test_what_is_missing_is_not_known(value):
    assert patient.known({"age": value, "sex": value, "site": value}) == {}


def test_spellings_of_one_value_are_one():
    assert patient.known({"age": " 55 ", "sex": "MALE ", "site": 1.0}) == {
        "age": 55.0,
        "sex": "male",
        "site": "1",
    }
    assert patient.known({"age": 0, "sex": "f"}) == {"age": 0.0, "sex": "f"}


@pytest.mark.parametrize("value", [["male"], {"is": "male"}, "x" * 101])
def test_what_is_not_one_short_value_is_refused(value):
    with pytest.raises(ValueError, match="sex is one short value"):
        patient.known({"sex": value})


def test_the_score_is_the_sum_of_log_odds():
    given = patient.known({"age": 35, "sex": "male", "site": "back"})
    assert patient.added(NUMBERS, given) == pytest.approx({"age": -0.45, "sex": 0.1, "site": 0.3})
    expected = 0.2 + 0.9 * math.log(0.3 / 0.7) - 0.45 + 0.1 + 0.3
    assert patient.score(NUMBERS, 0.3, 0.7, given) == pytest.approx(1 / (1 + math.exp(-expected)))


def test_the_age_adds_the_same_beyond_the_ends():
    first, last = (patient.added(NUMBERS, {"age": age})["age"] for age in (0.0, 120.0))
    assert (first, last) == (-1.0, 0.7)


def test_without_anything_known_the_score_is_exactly_the_images_own():
    for given in ({}, {"site": "moon"}):
        assert patient.score(NUMBERS, 0.123456789, 0.876543211, given) == 0.123456789


def test_sure_scores_stay_finite():
    assert 0.99 < patient.score(NUMBERS, 1.0, 0.0, {"sex": "male"}) < 1
    assert 0 < patient.score(NUMBERS, 0.0, 1.0, {"sex": "male"}) < 0.01
