"""Dates and numbers as people write them, in English and Chinese, with what they mean in digits.

A grammar writes both sides, so every pair is right by construction:

    3 May 1979 · May 3, 1979 · the 3rd of May 1979 · Thursday, 3 May 1979
    1979年5月3日 · 一九七九年五月三日                                          -> 1979-05-03
    three hundred and five · 三百零五                                        -> 305

Whether a date or number belongs to the training or to the test set follows from its digits alone, so none is
in both, in whatever words.
"""

import zlib
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from attnlib._checks import check_choice, check_positive

FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)
LARGEST = 999_999
LANGUAGES = ("english", "chinese")

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ONES = [
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
]
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
CHINESE_DIGITS = "零一二三四五六七八九"


# ---- in words


def english_number(n: int) -> str:
    """0 to 999,999 in British English: 305 -> "three hundred and five", 1979 -> "one thousand nine ..."."""
    _check_number(n)
    thousands, rest = divmod(n, 1000)
    if not thousands:
        return _english_below_1000(rest)
    words = f"{_english_below_1000(thousands)} thousand"
    if rest == 0:
        return words
    return (
        f"{words} and {_english_below_1000(rest)}" if rest < 100 else f"{words} {_english_below_1000(rest)}"
    )


def _english_below_1000(n: int) -> str:
    hundreds, rest = divmod(n, 100)
    ten, one = divmod(rest, 10)
    words = ONES[rest] if rest < 20 else f"{TENS[ten]}-{ONES[one]}" if one else TENS[ten]
    if not hundreds:
        return words
    return f"{ONES[hundreds]} hundred" + (f" and {words}" if rest else "")


def chinese_number(n: int) -> str:
    """0 to 999,999 in Chinese numerals: 305 -> 三百零五, 12 -> 十二, 112 -> 一百一十二, 100010 -> 十万零一十.

    One 零 stands for any run of zeros between digits, and 10 to 19 at the very front drop their 一.
    """
    _check_number(n)
    myriads, rest = divmod(n, 10_000)
    text = _chinese_below_10_000(rest)
    if myriads:
        gap = "零" if 0 < rest < 1000 else ""
        text = _chinese_below_10_000(myriads) + "万" + (gap + text if rest else "")
    return text.removeprefix("一") if text.startswith("一十") else text


def _chinese_below_10_000(n: int) -> str:
    if n == 0:
        return "零"
    text, gap = "", False
    for unit, value in (("千", 1000), ("百", 100), ("十", 10), ("", 1)):
        digit, n = divmod(n, value)
        if digit:
            text += ("零" if gap and text else "") + CHINESE_DIGITS[digit] + unit
        gap = digit == 0
    return text


def date_forms(day: date, language: str) -> list[str]:
    """All the ways in which the grammar writes a day in "english" or "chinese"."""
    check_choice("language", language, LANGUAGES)
    number, year = day.day, day.year
    if language == "chinese":
        digits = "".join("〇" if c == "0" else CHINESE_DIGITS[int(c)] for c in str(year))
        words = f"{digits}年{chinese_number(day.month)}月{chinese_number(number)}日"
        return [f"{year}年{day.month}月{number}日", words]
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number not in (11, 12, 13) else 0, "th")
    return [
        f"{number} {month} {year}",
        f"{month} {number}, {year}",
        f"the {number}{ending} of {month} {year}",
        f"{weekday}, {number} {month} {year}",
    ]


# ---- pairs


def date_pairs(
    n: int, *, seed: int = 0, split: str = "train", languages: Sequence[str] = LANGUAGES
) -> list[tuple[str, str]]:
    """``n`` dates from 1900 to 2099 with the date in ISO form, such as ("3 May 1979", "1979-05-03").

    Each is drawn anew: a day, a language and one of its forms. About every tenth day belongs to ``"test"``.
    """
    _check_pairs(n, split, languages)
    rng = np.random.default_rng(seed)
    days = (LAST_DAY - FIRST_DAY).days + 1
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        day = FIRST_DAY + timedelta(int(rng.integers(days)))
        forms = date_forms(day, languages[int(rng.integers(len(languages)))])
        source, target = forms[int(rng.integers(len(forms)))], day.isoformat()
        if _split(target) == split:
            pairs.append((source, target))
    return pairs


def number_pairs(
    n: int,
    *,
    seed: int = 0,
    split: str = "train",
    languages: Sequence[str] = LANGUAGES,
    digits: Sequence[int] = (1, 2, 3, 4),
) -> list[tuple[str, str]]:
    """``n`` numbers in words with their digits, such as ("three hundred and five", "305").

    Each is drawn anew: how many digits it has (one of ``digits``, 1 to 6), the number, and the language.
    About every tenth number belongs to ``"test"``.
    """
    _check_pairs(n, split, languages)
    if not digits or not all(1 <= d <= len(str(LARGEST)) for d in digits):
        raise ValueError(f"digits={digits!r} should hold whole numbers from 1 to {len(str(LARGEST))}")
    rng = np.random.default_rng(seed)
    words = {"english": english_number, "chinese": chinese_number}
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        length = digits[int(rng.integers(len(digits)))]
        number = int(rng.integers(0 if length == 1 else 10 ** (length - 1), 10**length))
        language = languages[int(rng.integers(len(languages)))]
        if _split(str(number)) == split:
            pairs.append((words[language](number), str(number)))
    return pairs


def _split(target: str) -> str:
    return "test" if zlib.crc32(target.encode()) % 10 == 0 else "train"


# ---- as numbers for a network


class Vocabulary:
    """The characters of one side, as whole numbers: 0 pads, 1 begins, 2 ends, then the characters in order.

    Args:
        texts: the characters that occur in them are the vocabulary.
    """

    PAD, BEGIN, END = 0, 1, 2

    def __init__(self, texts: Sequence[str]) -> None:
        self.characters = sorted(set("".join(texts)))
        if not self.characters:
            raise ValueError("expected texts with at least one character, got none")
        self._number = {c: i for i, c in enumerate(self.characters, start=3)}

    def __len__(self) -> int:
        return 3 + len(self.characters)

    def encode(
        self, texts: Sequence[str], *, ends: bool = False
    ) -> tuple[Int64[Tensor, "b m"], Int64[Tensor, " b"]]:
        """The texts as rows of numbers, padded with 0 to the longest, and their lengths.

        With ``ends``, BEGIN stands before each text and END behind it, and both count. ValueError for no
        texts, an empty one, and a character that is not in the vocabulary.
        """
        if not texts:
            raise ValueError("expected at least one text, got none")
        rows = []
        for text in texts:
            if not text:
                raise ValueError("expected texts with at least one character, got an empty one")
            for place, character in enumerate(text):
                if character not in self._number:
                    raise ValueError(
                        f"{character!r}, character {place + 1} of {text!r}, is not in the vocabulary "
                        f"{''.join(self.characters)!r}"
                    )
            row = [self._number[character] for character in text]
            rows.append([self.BEGIN, *row, self.END] if ends else row)
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.full((len(rows), int(lengths.max())), self.PAD)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
        return tokens, lengths

    def decode(self, tokens: Int64[Tensor, "b n"]) -> list[str]:
        """Each row as text: up to the first END, without BEGIN and padding."""
        texts = []
        for row in tokens.tolist():
            end = row.index(self.END) if self.END in row else len(row)
            texts.append("".join(self.characters[i - 3] for i in row[:end] if i > self.END))
        return texts


def _check_number(n: int) -> None:
    if not 0 <= n <= LARGEST:
        raise ValueError(f"expected a number from 0 to {LARGEST:,}, got {n}")


def _check_pairs(n: int, split: str, languages: Sequence[str]) -> None:
    check_positive("n", n)
    check_choice("split", split, ("train", "test"))
    if not languages:
        raise ValueError(f"languages should hold one or both of {', '.join(LANGUAGES)}, got none")
    for language in languages:
        check_choice("language", language, LANGUAGES)
