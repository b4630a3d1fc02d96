"""Agents: tools that a model may call, and the code interpreter."""
