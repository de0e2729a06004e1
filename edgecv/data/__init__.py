"""Data sets, calibration sets and their lint."""
