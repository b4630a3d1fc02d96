"""The OpenAI-compatible part of the server."""
