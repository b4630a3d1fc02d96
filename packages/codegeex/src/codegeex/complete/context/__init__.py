"""What else in a repository helps to complete a hole: snippets that are alike, declarations."""

from codegeex.complete.context.repository import RepositoryContext

__all__ = ["RepositoryContext"]
