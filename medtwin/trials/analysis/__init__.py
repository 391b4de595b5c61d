"""Tests and estimates: kernels over many trials at once, and functions for the data of one trial."""
