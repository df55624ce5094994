"""Whole models, stacked from the pieces in nn, and the configurations of the published families."""
