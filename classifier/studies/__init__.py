"""What evaluate_cls.py measures beside the plain evaluation: each study an option of its own.

A study takes the script's parsed arguments and the paths of photos that can be read and have
256 px on each side, prints what people want to see, and returns a dict for its JSON file. The
first line of its docstring is the option's help.
"""
from classifier.studies import (analysis, compare, edits, lattice, likelihood_fit, posterior_fit,
                                recompression, robustness, stopping, wild)

STUDIES = {study.__name__: study for study in (
    robustness.robustness, wild.wild, analysis.analysis, compare.compare,
    likelihood_fit.fit_likelihood, posterior_fit.fit_posterior, stopping.stopping,
    recompression.recompression, edits.edited, lattice.small, lattice.tables,
    lattice.subsampling)}
