"""CodeGeeX: code on the GLM backbone.

Completions in a hole of a file, for editors and from the command line, with the models of the
CodeGeeX family or one of your own; training on your own repositories; HumanEval-X.
Nothing is imported here: `codegeex.complete`, `codegeex.fim`, `codegeex.training` and the others
are imported where they are used.
"""
