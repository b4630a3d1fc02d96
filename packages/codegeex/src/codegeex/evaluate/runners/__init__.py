"""How programs of each language are compiled, run and judged."""
