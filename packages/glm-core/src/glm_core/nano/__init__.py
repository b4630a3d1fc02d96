"""The small models that come with the repository, trained by its own commands."""
