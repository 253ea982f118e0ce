"""attnlib: the attention mechanisms that the course derives, one readable file each.

What stands here is the library proper. The laboratory of the notebooks is ``attnlib.lab``, the checkers of
their exercises are ``attnlib.exercises``; neither is imported unless asked for.
"""

from attnlib.feature_map import SqueezeExcitation, build_attention

__all__ = ["SqueezeExcitation", "build_attention"]
__version__ = "0.1.0"
