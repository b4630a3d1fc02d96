from __future__ import annotations

import numpy as np

from codegeex.hole import Hole
from codegeex.nano.baselines import NextLine, NgramLine
from codegeex.testing import tiny_code_tokenizer
from glm_core.evaluate.ngram import KneserNey

TEXT = "import os\nimport sys\n\n\ndef main():\n    return sys.argv\n"


def test_line_is_the_one_that_followed_most_often_when_the_line_before_is_known():
    hole, other = Hole(prefix="x = 1\nimport os\n"), Hole(prefix="never seen\n    ")
    texts = [TEXT, TEXT, "import os\nimport re\n", "import os\n\nimport sys\nimport sys\n"]
    guess = NextLine([hole, other], texts)
    assert guess.complete(hole) == "import sys"
    assert guess.complete(other) == "import os"  # in all four texts


def test_ngram_goes_on_to_the_end_of_the_line_when_the_text_was_seen():
    tokenizer = tiny_code_tokenizer()
    tokens = np.array([*tokenizer.encode(TEXT), tokenizer.eos_id] * 4)
    guess = NgramLine(KneserNey(tokens, tokenizer.vocab_size, 5, tokenizer.eos_id), tokenizer)
    written = guess.complete(Hole(prefix="import os\nimport sys\n\n\ndef main():\n    "))
    assert written == "return sys.argv\n"
    assert guess.complete(Hole(prefix="import os\n")).startswith("import sys")
