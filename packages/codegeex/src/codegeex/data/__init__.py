"""Training data made of source code: filters, duplicates, split, packing order, shards."""
