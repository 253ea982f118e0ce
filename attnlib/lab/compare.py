"""Compare networks trained with equal seeds: intervals, paired differences, many comparisons at once."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

Numbers = Sequence[float] | np.ndarray | pd.Series


def interval(values: Numbers, *, level: float = 0.95) -> tuple[float, float]:
    """Mean of the values, and how far Student's interval for it reaches to either side.

    If the values are independent and normal, the interval holds the true mean with probability ``level``.
    Raises ValueError for fewer than two values, and for a level that is not between 0 and 1.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected two or more values in a list, got shape {values.shape}; train more seeds")
    if not 0 < level < 1:
        raise ValueError(f"level={level} does not lie between 0 and 1; 0.95 is usual")
    reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(reach)


def holm(p_values: Numbers) -> np.ndarray:
    """Holm's corrected p-values: those below a level contain a false alarm with at most that probability.

    The smallest of n is multiplied by n, the next by n - 1, and so on; none falls below the one before it
    (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979). Raises ValueError for a value
    that is no probability.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected a list of probabilities from 0 to 1, got {p_values}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def paired(
    runs: pd.DataFrame, against: str, *, by: str = "mechanism", value: str = "accuracy"
) -> pd.DataFrame:
    """Every other mechanism against one, seed by seed.

    Args:
        runs: one row for each mechanism and seed, such as ``study`` returns.
        against: the mechanism to compare with.
        by, value: the columns that name the mechanism and hold what is compared.

    Returns:
        A row for each other mechanism in their order of appearance: ``difference`` (mean over the seeds),
        ``reach`` (of its 95 % interval), ``p`` (two-sided paired t-test) and ``p_holm`` (corrected for all
        the rows).

    Raises ValueError if ``against`` is not there, if seeds repeat, or if a mechanism lacks a seed.
    """
    names = list(dict.fromkeys(runs[by]))
    if against not in names:
        raise ValueError(f"{by} {against!r} is not among {', '.join(map(str, names))}; choose one of these")
    if runs.duplicated([by, "seed"]).any():
        raise ValueError(f"a {by} has several rows for one seed; select one setting before you compare")
    table = runs.pivot(index="seed", columns=by, values=value)
    if table.isna().any(axis=None):
        name, seed = table.isna().T.stack().idxmax()
        raise ValueError(f"{name} has no {value} for seed {seed}; finish the study, or leave the seed out")
    rows = []
    for name in names:
        if name == against:
            continue
        differences = (table[name] - table[against]).to_numpy()
        mean, reach = interval(differences)
        p = stats.ttest_rel(table[name], table[against]).pvalue if differences.std() else float(mean == 0)
        rows.append({by: name, "difference": mean, "reach": reach, "p": float(p)})
    result = pd.DataFrame(rows).set_index(by)
    return result.assign(p_holm=holm(result["p"]))
