"""Training of code models: fill-in-the-middle samples, and what `codegeex train` puts together."""
