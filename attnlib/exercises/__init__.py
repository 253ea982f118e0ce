"""The checkers of the course's exercises, and what the learner has passed.

In a notebook: ``f = check("08.2", f)``. Each notebook's exercises stand in a module of their own.
"""

from attnlib.exercises.checker import Exercise, Wrong, all_exercises, check, choice, inputs

__all__ = ["Exercise", "Wrong", "all_exercises", "check", "choice", "inputs"]
