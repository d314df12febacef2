"""Suggestions in place of unknown words."""

from __future__ import annotations

from zmsvc.core.similar import MOST, closest, similar, similar_id


def test_a_misspelled_word_is_followed_by_the_known_one_in_its_own_spelling() -> None:
    assert similar("tx_100", ["ts_100", "ts_2"]) == " (did you mean ts_100?)"
    assert similar("SIGHPU", ["SIGHUP", "SIGINT"], 0.8) == " (did you mean SIGHUP?)"
    assert closest("echoaction", ["EchoAction"]) == "EchoAction"


def test_a_word_that_is_like_no_other_is_followed_by_nothing() -> None:
    assert similar("web", ["ts_100"]) == ""
    assert similar("", []) == ""


def test_an_id_with_another_number_is_not_taken_for_a_misspelled_one() -> None:
    assert similar_id("ts_9", ["ts_1", "ts_2"]) == ""
    assert similar_id("ts_1000", ["ts_100"]) == " (did you mean ts_100?)"
    assert similar_id("TS_1", ["ts_1"]) == " (did you mean ts_1?)"


def test_only_a_bounded_number_of_words_is_compared() -> None:
    assert closest("last", [*(f"x{number}" for number in range(MOST)), "last"]) == ""
