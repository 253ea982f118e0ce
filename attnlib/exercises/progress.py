"""What the learner has passed: one small JSON file for each exercise, on their own disk.

The folder is the system's place for user data, or the environment variable ATTNLIB_PROGRESS. One file an
exercise means that two notebooks open at once cannot overwrite each other's passes.
"""

import json
import os
import tempfile
from datetime import date
from pathlib import Path

import platformdirs


def folder() -> Path:
    """Where the passes are kept."""
    place = os.environ.get("ATTNLIB_PROGRESS")
    return Path(place) if place else platformdirs.user_data_path("attnlib", appauthor=False) / "progress"


def record(name: str) -> None:
    """Remember that the exercise ``name`` was passed; the date of the first pass stays.

    A disk that cannot be written to is no reason to stop a lesson: it is reported in one line.
    """
    try:
        if name in passed():
            return
        folder().mkdir(parents=True, exist_ok=True)
        write_atomically(
            folder() / f"{name}.json", json.dumps({"exercise": name, "passed": f"{date.today()}"})
        )
    except OSError as error:
        print(f"This pass could not be remembered in {folder()}: {error.strerror}.")


def passed() -> dict[str, date]:
    """The exercises passed so far with the day of the first pass.

    A damaged file is set aside as ``NAME.json.damaged`` (``.damaged-2`` and so on if there is one already).
    """
    found = {}
    for file in sorted(folder().glob("*.json")):
        try:
            entry = json.loads(file.read_text(encoding="utf-8"))
            found[entry["exercise"]] = date.fromisoformat(entry["passed"])
        except (ValueError, KeyError, TypeError):
            aside = set_aside(file)
            print(
                f"{file.name} could not be read and was set aside as {aside.name}; run its check once more."
            )
    return found


def set_aside(file: Path) -> Path:
    aside = file.with_name(file.name + ".damaged")
    number = 2
    while aside.exists():
        aside = file.with_name(f"{file.name}.damaged-{number}")
        number += 1
    return file.rename(aside)


def write_atomically(path: Path, text: str) -> None:
    """Write ``path`` in one step: whoever reads it sees the old text or the new one, never half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
