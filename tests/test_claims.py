"""Every claim of data/claims.csv has one owner, and its verdict stands over an assertion there alone."""

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from attnlib.lab.data import load_claims

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
VERDICTS = {"TRUE", "FALSE", "PARTLY", "MISNAMED", "DEPENDS", "BROKEN"}
FAMILIES = {
    "ATT": 1, "CBAM": 6, "CS": 4, "ECA": 4, "EMA": 8, "GAM": 4, "NAM": 10, "SAM": 5, "SE": 5, "TR": 2
}  # fmt: skip
CLAIMS = load_claims()


def words(text: str) -> set[str]:
    """The verdicts in a text: the words written in capitals."""
    return {word for word in re.findall(r"\b[A-Z]{4,}\b", text) if word in VERDICTS}


def settled() -> dict[str, list[tuple[str, str, str]]]:
    """For each id the notebook, the verdict's line and the cell's id of every cell that settles it."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                for claim, verdict in re.findall(r"^# claim ([A-Z]+-\d+): (.*)$", cell.source, flags=re.M):
                    found.setdefault(claim, []).append((path.stem, verdict, cell.id))
    return found


SETTLED = settled()


def test_the_file_is_complete():
    assert Counter(claim.partition("-")[0] for claim in CLAIMS["id"]) == FAMILIES
    for family, count in FAMILIES.items():
        assert {f"{family}-{n}" for n in range(1, count + 1)} <= set(CLAIMS["id"])
    assert CLAIMS["chinese"].str.contains("[\u4e00-\u9fff]").all()
    assert CLAIMS["reason"].str.fullmatch(r"[A-Z][^|\n]*\.").all()
    assert all(words(verdict) for verdict in CLAIMS["verdict"])


@pytest.mark.parametrize("claim", CLAIMS.to_dict("records"), ids=CLAIMS["id"])
def test_a_claim_is_settled_by_its_owner_alone(claim):
    cells = SETTLED.get(claim["id"], [])
    assert {notebook for notebook, *_ in cells} == {claim["notebook"]}
    assert {word for _, verdict, _ in cells for word in words(verdict)} == words(claim["verdict"])
    assert cells[0][2] == f"claim-{claim['id'].lower()}", "the link from notebook 18 would miss it"


def test_no_cell_settles_a_claim_that_the_file_lacks():
    assert set(SETTLED) <= set(CLAIMS["id"])
