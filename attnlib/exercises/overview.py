"""How far the learner has come: the figure of notebook 00."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from attnlib.exercises import progress
from attnlib.exercises.checker import all_exercises


def draw_progress(*, ax: Axes | None = None) -> Axes:
    """One bar a notebook: the exercises and recall questions that are passed, out of all there are."""
    exercises, passed = all_exercises(), progress.passed()
    notebooks = [name if name == "toolbox" else f"notebook {name}" for name in exercises]
    if ax is None:
        ax = plt.subplots(figsize=(6, 0.8 + 0.35 * len(notebooks)))[1]
    ax.barh(notebooks, [len(names) for names in exercises.values()], color="lightgrey", label="to do")
    ax.barh(notebooks, [sum(n in passed for n in names) for names in exercises.values()], label="passed")
    ax.invert_yaxis()
    ax.set(xlabel="exercises and recall questions")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
