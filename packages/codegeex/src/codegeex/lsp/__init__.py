"""Completions for editors as a language server, over stdin and stdout.

Nothing here that an editor's first messages need imports torch: the server answers `initialize`
at once, and a thread loads the model meanwhile.

- ``documents``, ``positions``: the open files, kept in step with the editor
- ``protocol``, ``stdio``: pygls, with what it leaves to its users
- ``server``: what is answered to which message
- ``settings``: what an editor may choose
- ``question``, ``ask``, ``neighbours``, ``late``: what the model is asked
- ``items``: completions in the protocol's words
"""
