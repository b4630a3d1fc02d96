"""Small trained parts that change what a model does, its own weights untouched."""
