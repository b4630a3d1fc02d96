"""The shipped model nano-code, and what makes its card."""
