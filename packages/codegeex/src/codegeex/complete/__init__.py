"""Completions for editors: a hole in, texts out that fit there.

completer = Completer(engine, format_of(tokenizer), "nano-code")
for piece in completer.submit(Hole(prefix="def fib(n):"), Options()):
    print(piece.text, end="")
"""

from codegeex.complete.completer import Completer
from codegeex.complete.completion import Completed, Completion, CompletionPiece
from codegeex.complete.options import Options
from codegeex.complete.pending import Pending

__all__ = ["Completed", "Completer", "Completion", "CompletionPiece", "Options", "Pending"]
