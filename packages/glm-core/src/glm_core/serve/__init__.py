"""HTTP: what the outside world sees of the models."""
