"""One EM iteration of fastem and of its peers, side by side: `fastem bench`, or `python -m benchmarks.peers`."""
