"""The laboratory of the notebooks: data, training, cost, gradients, audit, plots.

Import what you need from its modules, such as ``attnlib.lab.audit``; none is needed to use a mechanism.
"""
