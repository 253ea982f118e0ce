"""The file of a study: one line for each finished run, written whole or not at all."""

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path

from attnlib._checks import check_choice
from attnlib.feature_map import REGISTRY
from attnlib.lab.runs import COLUMNS, CONTROLS, SETTINGS, Run


def read_rows(file: Path) -> list[tuple[Run, dict[str, object]]]:
    """The finished runs in ``file``; lines that hold none go to FILE.damaged and are named on the screen.

    Raises ValueError if the first line is not that of a study's table.
    """
    if not file.exists() or file.stat().st_size == 0:
        return []
    header = ",".join(COLUMNS) + "\n"
    first, *lines = file.read_bytes().decode("utf-8", errors="replace").splitlines(keepends=True)
    if first != header:
        if header.startswith(first):  # the very first write was torn, before it held a row
            file.write_text("")
            return []
        raise ValueError(
            f"{file} does not begin with the columns of a study ({COLUMNS[0]}, {COLUMNS[1]}, ...); give "
            f"another file, or restore its first line"
        )
    good, damaged = [], []
    for number, line in enumerate(lines, start=2):
        try:
            good.append((line, *_parse(line)))
        except ValueError as error:
            damaged.append((number, line, error))
    if damaged:
        aside = file.with_name(file.name + ".damaged")
        with aside.open("a", encoding="utf-8") as kept:
            kept.writelines(line.rstrip("\n") + "\n" for _, line, _ in damaged)
        replacement = file.with_name(file.name + ".new")
        replacement.write_text(header + "".join(line for line, *_ in good), encoding="utf-8")
        os.replace(replacement, file)
        for number, _, error in damaged:
            print(f"{file.name}, line {number}: {error}; set aside in {aside.name}, its run is done again")
    return [(run, row) for _, run, row in good]


def _parse(line: str) -> tuple[Run, dict[str, object]]:
    """The run and the results in one line; ValueError says what is wrong with it."""
    if not line.endswith("\n"):
        raise ValueError("the line breaks off")
    values = next(csv.reader([line]), [])
    if len(values) != len(COLUMNS):
        raise ValueError(f"it has {len(values)} fields instead of {len(COLUMNS)}")
    row = dict(zip(COLUMNS, values, strict=True))
    settings = {}
    for field in fields(Run):
        text = row.pop(field.name)
        if field.type is bool:
            if text not in ("True", "False"):
                raise ValueError(f"{field.name}={text!r} should be True or False")
            settings[field.name] = text == "True"
        else:
            settings[field.name] = field.type(text)  # ValueError where a number is none
    check_choice("mechanism", settings["mechanism"], [*CONTROLS, *REGISTRY])
    for name in ("accuracy", "loss", "seconds"):
        row[name] = float(row[name])
    if not (0 <= row["accuracy"] <= 1 or row["note"]):
        raise ValueError(f"accuracy={row['accuracy']} does not lie between 0 and 1")
    return Run(**settings), row | {"parameters": int(row["parameters"])}


def append_row(file: Path, run: Run, row: Mapping[str, object]) -> None:
    """Add one line in a single write, which is on the disk when this returns; the first brings the header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not file.exists() or file.stat().st_size == 0:
        writer.writerow(COLUMNS)
    writer.writerow([*astuple(run), *(row[name] for name in COLUMNS[len(SETTINGS) :])])
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, text.getvalue().encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
