"""Completions over HTTP, in the protocols of the editors' plugins: a file or folder for each.

Every one is thin: it reads its protocol's fields into a hole or a raw prompt, hands that to the
`Completer`, and tells the answer in its protocol's words. `code.py` knows the models, `answer.py`
a request while it is answered, `fields.py` what protocols have in common, `shapes.py` their errors.
"""
