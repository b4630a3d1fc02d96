"""Benchmarks of ours against peers: alternating in one run, printed as ratios."""
