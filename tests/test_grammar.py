"""Dates and numbers in words mean what stands beside them, and the two splits share no meaning."""

import re
from datetime import date, timedelta

import pytest
import torch

from attnlib.lab.grammar import (
    Vocabulary,
    chinese_number,
    date_forms,
    date_pairs,
    english_number,
    number_pairs,
)

WORDS = dict(
    zip(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
            "thirty",
            "forty",
            "fifty",
            "sixty",
            "seventy",
            "eighty",
            "ninety",
        ],
        [*range(20), 20, 30, 40, 50, 60, 70, 80, 90],
        strict=True,
    )
)
NUMERALS = {c: i for i, c in enumerate("零一二三四五六七八九")}
UNITS = {"十": 10, "百": 100, "千": 1000}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def read_english(text: str) -> int:
    total = part = 0
    for word in re.split("[ -]", text):
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = 1000 * part, 0
        elif word != "and":
            part += WORDS[word]
    return total + part


def read_chinese(text: str) -> int:
    if "万" in text:
        front, back = text.split("万")
        return 10_000 * read_chinese(front) + read_chinese(back)
    total, digit = 0, None
    for c in text:
        if c in UNITS:
            total += (1 if digit is None else digit) * UNITS[c]
            digit = None
        else:
            digit = NUMERALS[c] or None
    return total + (digit or 0)


SOME = [*range(2100), 9_999, *range(10_000, 10_120), *range(99_990, 101_200), 110_000, 345_678, 999_999]


def test_numbers_are_read_back():
    assert [read_english(english_number(n)) for n in SOME] == SOME
    assert [read_chinese(chinese_number(n)) for n in SOME] == SOME
    assert len({english_number(n) for n in SOME}) == len({chinese_number(n) for n in SOME}) == len(set(SOME))


@pytest.mark.parametrize(
    ("n", "english", "chinese"),
    [
        (0, "zero", "零"),
        (10, "ten", "十"),
        (12, "twelve", "十二"),
        (20, "twenty", "二十"),
        (45, "forty-five", "四十五"),
        (100, "one hundred", "一百"),
        (110, "one hundred and ten", "一百一十"),
        (305, "three hundred and five", "三百零五"),
        (1005, "one thousand and five", "一千零五"),
        (1050, "one thousand and fifty", "一千零五十"),
        (1505, "one thousand five hundred and five", "一千五百零五"),
        (10_000, "ten thousand", "一万"),
        (10_300, "ten thousand three hundred", "一万零三百"),
        (13_000, "thirteen thousand", "一万三千"),
        (100_010, "one hundred thousand and ten", "十万零一十"),
        (120_345, "one hundred and twenty thousand three hundred and forty-five", "十二万零三百四十五"),
        (203_040, "two hundred and three thousand and forty", "二十万三千零四十"),
    ],
)
def test_numbers_by_hand(n, english, chinese):
    assert (english_number(n), chinese_number(n)) == (english, chinese)


def test_zeros_are_never_doubled_nor_last():
    for n in SOME[1:]:
        text = chinese_number(n)
        assert "零零" not in text and not text.endswith("零") and not text.startswith("一十")


def test_the_forms_of_a_date():
    day = date(1979, 5, 3)  # a Thursday
    assert date_forms(day, "english") == [
        "3 May 1979",
        "May 3, 1979",
        "the 3rd of May 1979",
        "Thursday, 3 May 1979",
    ]
    assert date_forms(day, "chinese") == ["1979年5月3日", "一九七九年五月三日"]
    assert date_forms(date(2005, 12, 21), "chinese")[1] == "二〇〇五年十二月二十一日"
    endings = {d: date_forms(date(2000, 1, d), "english")[2].split()[1] for d in range(1, 32)}
    assert [d for d in endings if endings[d] == f"{d}th"] == [*range(4, 21), *range(24, 31)]
    assert [endings[d] for d in (1, 2, 3, 21, 22, 23, 31)] == [
        "1st",
        "2nd",
        "3rd",
        "21st",
        "22nd",
        "23rd",
        "31st",
    ]


def test_every_date_of_five_years_is_read_back():
    day = date(1998, 1, 1)
    while day < date(2003, 1, 1):
        for text in date_forms(day, "english"):
            year, month = int(text[-4:]), MONTHS.index(re.search("|".join(MONTHS), text)[0]) + 1
            number = int(re.search(r"\d+", text)[0])
            assert date(year, month, number) == day, text
            assert "," not in text or text.startswith((day.strftime("%A"), day.strftime("%B")))
        plain, words = date_forms(day, "chinese")
        assert [int(part) for part in re.findall(r"\d+", plain)] == [day.year, day.month, day.day]
        year, month, number = re.fullmatch("(.{4})年(.*)月(.*)日", words).groups()
        assert int("".join(str(NUMERALS.get(c, 0)) for c in year)) == day.year
        assert (read_chinese(month), read_chinese(number)) == (day.month, day.day)
        day += timedelta(1)


@pytest.mark.parametrize("pairs", [date_pairs, number_pairs])
def test_the_splits_share_no_meaning(pairs):
    train = {target for _, target in pairs(4000, split="train")}
    test = {target for _, target in pairs(1000, split="test")}
    assert len(train) > 1500 and len(test) > 150
    assert not train & test


@pytest.mark.parametrize("pairs", [date_pairs, number_pairs])
def test_pairs_follow_from_the_seed(pairs):
    assert pairs(50, seed=3) == pairs(60, seed=3)[:50]
    assert pairs(50, seed=3) != pairs(50, seed=4)
    one = pairs(50, languages=["english"])
    assert all(source.isascii() for source, _ in one)
    assert not any(source.isascii() for source, _ in pairs(50, languages=["chinese"]) if "年" in source)
    assert len({source.isascii() for source, _ in pairs(50)}) == 2


def test_pairs_mean_what_they_say():
    for source, target in date_pairs(500):
        day = date.fromisoformat(target)
        assert source in date_forms(day, "english") + date_forms(day, "chinese")
    for source, target in number_pairs(500, digits=[1, 3, 6]):
        assert len(target) in (1, 3, 6)
        assert (read_english if source.isascii() else read_chinese)(source) == int(target)


def test_vocabulary():
    vocabulary = Vocabulary(["ca", "b年"])
    assert len(vocabulary) == 7
    tokens, lengths = vocabulary.encode(["ab", "c年a"])
    assert tokens.tolist() == [[3, 4, 0], [5, 6, 3]] and lengths.tolist() == [2, 3]
    tokens, lengths = vocabulary.encode(["ab", "c"], ends=True)
    assert tokens.tolist() == [[1, 3, 4, 2], [1, 5, 2, 0]] and lengths.tolist() == [4, 3]
    assert vocabulary.decode(tokens) == ["ab", "c"]
    assert vocabulary.decode(torch.tensor([[3, 2, 4, 4], [2, 3, 3, 3], [1, 5, 5, 5]])) == ["a", "", "ccc"]


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: english_number(1_000_000), "expected a number from 0 to 999,999, got 1000000"),
        (lambda: chinese_number(-1), "expected a number from 0 to 999,999, got -1"),
        (lambda: date_pairs(0), "n=0 should be a whole number of at least 1"),
        (lambda: date_pairs(1, split="all"), "split='all' is not one of 'train', 'test'"),
        (
            lambda: date_pairs(1, languages=["chinees"]),
            "language='chinees' is not one of 'english', 'chinese'",
        ),
        (lambda: number_pairs(1, languages=[]), "languages should hold one or both of english, chinese"),
        (lambda: number_pairs(1, digits=[0]), "digits=[0] should hold whole numbers from 1 to 6"),
        (lambda: Vocabulary([""]), "expected texts with at least one character, got none"),
        (lambda: Vocabulary(["ab"]).encode([]), "expected at least one text, got none"),
        (lambda: Vocabulary(["ab"]).encode(["a", ""]), "expected texts with at least one character, got an"),
        (
            lambda: Vocabulary(["ab"]).encode(["abx"]),
            "'x', character 3 of 'abx', is not in the vocabulary 'ab'",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        call()
