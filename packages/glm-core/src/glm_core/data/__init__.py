"""Text sources, blank infilling, packing and the resumable loader.

The way of a text: `sources` -> `prepare` (tokenizer and `shards`) -> `windows` -> `mixture`
(`span_corruption`, `instructions`, `packing`) -> `loader`.
"""
