"""Accuracy and latency of a loaded engine, and the machine that they were measured on."""
