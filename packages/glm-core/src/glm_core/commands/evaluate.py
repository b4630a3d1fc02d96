"""``glm evaluate``: how well a model knows text that it has not seen."""

from __future__ import annotations

import argparse

from glm_core.cli import emit
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

HELP = "held-out bits per byte, blank filling and last-word accuracy"
EXAMPLE = """\
glm evaluate --model nano-text
glm evaluate --model runs/mine/model --baselines --json
glm evaluate --model nano-text --data notes/ --heldout-fraction 0.5 --limit 100"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_model_arguments(parser, default="nano-text")
    parser.add_argument(
        "--data",
        default="installed-text",
        help="corpus, as data.source of glm train: its held-out split is read "
        "(default: %(default)s)",
    )
    parser.add_argument("--text-field", default="text", help="of jsonl and parquet files")
    parser.add_argument(
        "--heldout-fraction",
        type=float,
        default=0.01,
        help="share of the documents that is held out, as in training (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="at most N held-out documents"
    )
    parser.add_argument(
        "--questions",
        type=int,
        default=500,
        metavar="N",
        help="at most N questions of each kind (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=512,
        metavar="TOKENS",
        help="given to the model at a time; best the length it was trained at "
        "(default: %(default)s, or what the model holds)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also measure what n-grams, word counts and compressors achieve",
    )
    parser.add_argument("--ngram-order", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1234, help="of the choice of questions")


def run(args: argparse.Namespace) -> int:
    """Load model and corpus, measure, print."""
    from glm_core.checkpoint.hub import resolve_model
    from glm_core.data.config import DataConfig
    from glm_core.data.prepare import prepare_data
    from glm_core.evaluate.report import EvaluationConfig, as_table, evaluate
    from glm_core.infer import TextGenerator

    config = EvaluationConfig(
        limit=args.limit,
        num_questions=args.questions,
        window=args.window,
        baselines=args.baselines,
        ngram_order=args.ngram_order,
        seed=args.seed,
    )
    loaded = load_named_model(args)
    generator = TextGenerator(loaded.model, loaded.tokenizer)
    data = prepare_data(
        DataConfig(
            source=args.data,
            text_field=args.text_field,
            tokenizer=str(resolve_model(args.model, weights=False)),
            heldout_fraction=args.heldout_fraction,
        )
    )
    measured = evaluate(generator, data, config)
    result = {"model": args.model, "data": args.data, **measured}
    emit(args, result, as_table(result))
    return 0
