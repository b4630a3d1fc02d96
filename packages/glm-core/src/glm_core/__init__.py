"""glm_core: the backbone of the GLM family.

Importing it loads nothing heavy, and any part of it loads torch and little else (a test proves
it). The shortest way to a filled blank::

    from glm_core.checkpoint import load_model
    from glm_core.infer import TextGenerator

    generator = TextGenerator(*load_model("nano-text"))
    print(generator.fill("The [MASK] statement wraps a block.").text)

Where to find things:

- ``model``: the one transformer definition and the sizes of the released members
- ``attention``: mask kinds as values, and one file per attention backend
- ``data``: text sources, blank infilling, packing, the resumable loader
- ``train``: Trainer, tasks, optimizers, schedules, engines
- ``infer``: KV cache, sampling, beam search, filling of blanks, streaming
- ``checkpoint``: training checkpoints and the folders that ``--model`` takes
- ``tokenizer``: tokenizers behind one protocol
- ``evaluate``: held-out metrics
- ``nano``: the models that come with the package
- ``bench``: speed and memory against transformers
- ``demo``: the scenes of ``glm demo`` and their page
- ``testing``: helpers of tests
- ``cli`` and ``commands``: the ``glm`` command
"""

__version__ = "0.1.0"
