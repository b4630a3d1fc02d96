"""glm_core: the backbone of the GLM family.

Importing it loads nothing heavy, and any part of it loads torch and little else (a test proves
it). Everything is imported from its own module, for example
``from glm_core.checkpoint.pretrained import load_pretrained``.

Where to find things:

- ``model``: the one transformer definition and the sizes of the released members
- ``attention``: mask kinds as values, and one file per attention backend
- ``data``: text sources, blank infilling, packing, the resumable loader
- ``train``: Trainer, tasks, optimizers, schedules, engines
- ``infer``: KV cache, sampling, beam search, filling of blanks, streaming
- ``checkpoint``: training checkpoints and the folders that ``--model`` takes
- ``tokenizer``: tokenizers behind one protocol
- ``evaluate``: held-out metrics
- ``cli`` and ``commands``: the ``glm`` command
"""

__version__ = "0.1.0"
