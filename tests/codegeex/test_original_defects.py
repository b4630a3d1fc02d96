"""Defects of the original programs, each with the test that keeps it away.

What is wrong in THUDM/CodeGeeX, CodeGeeX2, its FasterTransformer and OneFlow ports, and in
chatglm.cpp's server. The tests lie where the code does; here is which of them looks after what.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODELS, SERVE, TRAINING = "codegeex/models", "codegeex/serve", "codegeex/training"
EVALUATE, DATA, OPENAI = "codegeex/evaluate", "codegeex/data", "glm_core/serve/openai"

DEFECTS: dict[str, str] = {
    # models
    "weights and activations are fp16 on CUDA, whatever one has": f"{MODELS}/"
    "test_codegeex_logits.py::test_logits_equal_the_transcription_when_computed_in_full",
    "INT4 ends in a NameError: what packs it is never imported": f"{MODELS}/"
    "test_codegeex_quantized.py::test_logits_are_those_of_the_rounded_weights_when_quantized",
    "OneFlow's INT4 leaves the sign of a level in its neighbour": f"{MODELS}/"
    "test_codegeex_quantized.py::test_int4_holds_negative_levels_beside_positive_ones",
    "padding rows of the vocabulary can be sampled": f"{MODELS}/test_padded_vocabulary.py"
    "::test_padding_is_never_chosen_when_the_step_is_compiled",
    "a typed <|extratoken_12|> becomes spaces": f"{MODELS}/test_whitespace_tokens.py"
    "::test_typed_name_of_an_extra_token_stays_text",
    "slow tokenizers strip what stands beside an added token": f"{MODELS}/test_whitespace_tokens.py"
    "::test_runs_strip_nothing_from_their_neighbours",
    "out_seq_length counts the prompt": f"{MODELS}/test_codegeex_generation.py"
    "::test_length_counts_new_tokens_alone",
    "FasterTransformer's ranks get equal pieces of a fused matrix": f"{MODELS}/"
    "test_codegeex_formats.py::test_fused_shards_hold_parts_of_the_same_heads",
    "checkpoints are unpickled, whatever code is in them": f"{MODELS}/test_codegeex_formats.py"
    "::test_pickle_with_code_in_it_is_not_opened",
    "MindSpore's pipeline puts the last norm behind the query layer": "glm_core/model/"
    "test_top_query.py::test_final_norm_stands_below_and_not_above",
    # demo programs
    "test_inference.py reads --prompt-file and --greedy, and ignores them": f"{MODELS}/"
    "test_command_line.py::test_prompt_file_and_greedy_are_heeded_when_given",
    "the demo adds a list of answers to the prompt": f"{SERVE}/test_original_demo.py"
    "::test_answers_are_texts_when_several_are_wanted",
    "a server generates in its event loop, and answers nobody else": f"{SERVE}/"
    "test_original_demo.py::test_others_are_answered_while_one_is_generated",
    "a server answers a tuple where a text is wanted": f"{SERVE}/test_golden.py"
    "::test_client_gets_what_it_reads",
    "generation goes on when the client has gone": f"{SERVE}/test_cancelling.py"
    "::test_place_is_free_when_the_connection_is_dropped",
    "sentinels in a user's code are special tokens": f"{SERVE}/test_protocols.py"
    "::test_sentinels_in_code_are_text",
    "chatglm.cpp's server evaluates arguments that the model wrote": "glm_core/chat/"
    "test_tool_calls.py::test_python_call_is_refused_with_a_reason",
    "its streams know no tools": f"{OPENAI}/test_chat.py"
    "::test_client_gathers_a_stream_of_calls_and_of_a_schema",
    "its streams always end with stop": f"{OPENAI}/test_deltas.py"
    "::test_reason_is_length_when_a_call_is_cut",
    "its streams never tell the usage": f"{OPENAI}/test_chat.py"
    "::test_stream_gives_the_same_as_the_whole_answer",
    "its max_tokens is the length of prompt and answer": f"{SERVE}/test_original_demo.py"
    "::test_length_counts_new_tokens_alone_when_the_prompt_is_longer",
    # data and training
    "nothing is deduplicated": f"{DATA}/test_duplicates.py"
    "::test_first_stays_when_texts_are_the_same_or_nearly",
    "samples are padded, not packed": f"{TRAINING}/test_dataset.py"
    "::test_documents_do_not_see_each_other_when_masked",
    "a setting that nothing reads (the formatter)": "codegeex/commands/test_prepare.py"
    "::test_settings_reach_the_work_when_given_as_flags",
    "finetuning starts pretraining, and prompts are learnt": f"{TRAINING}/test_run.py"
    "::test_prompts_are_read_and_not_learnt_when_records_have_them",
    "padding, which is the end of text, counts in the loss": "glm_core/data/test_batch.py"
    "::test_rows_are_padded_on_the_right_when_samples_are_short",
    "a model is imported in a line that is commented out": "integration/test_lean_import.py"
    "::test_optional_packages_stay_out_when_every_module_is_imported",
    "holes are made after packing, and cut off": f"{TRAINING}/test_dataset.py"
    "::test_no_hole_is_cut_off_when_pieces_fill_a_row",
    "the guide's example of other files lacks ###REFERENCE:": "codegeex/fim/test_prompt.py"
    "::test_prompt_is_that_of_the_guide_when_written_for_codegeex4",
    # evaluation: generating
    "a worker passes beam_warmup, which nothing takes": f"{EVALUATE}/test_generate.py"
    "::test_each_problem_has_its_samples_when_the_run_ends",
    "an item that failed is queued again, and the server stops": f"{EVALUATE}/test_generate.py"
    "::test_samples_are_the_same_when_a_broken_run_goes_on",
    "kinds of failure are words looked for in the output": f"{EVALUATE}/test_verdicts.py"
    "::test_verdict_is_right_when_a_program_ends_in_a_known_way",
    "the evaluator looks for a name of file that no script writes": f"{EVALUATE}/"
    "test_humaneval_x.py::test_translation_is_told_by_the_sample_and_not_by_the_files_name",
    "a translation is run behind the whole prompt": f"{EVALUATE}/test_assemble.py"
    "::test_translation_goes_on_after_the_declaration_alone",
    "six problems have no example tests": f"{EVALUATE}/test_problems.py"
    "::test_tests_are_all_of_them_when_there_are_no_example_tests",
    # evaluation: running
    "Python runs inside the evaluator": f"{EVALUATE}/test_hostile.py"
    "::test_caller_lives_when_the_program_kills_all_it_can",
    "a first line without indentation cuts Python inside a text": f"{EVALUATE}/test_cleanup.py"
    "::test_answer_goes_on_when_its_function_is_open",
    "Java is compiled, and the line that runs it is commented out": f"{EVALUATE}/test_check.py"
    "::test_every_solution_passes_and_no_control_when_the_tools_are_there",
    "Go does not compile when an import is unused": f"{EVALUATE}/test_assemble.py"
    "::test_go_imports_are_those_that_are_used_when_the_prompt_has_others",
    "Go's imports are looked for in comments and texts": f"{EVALUATE}/test_assemble.py"
    "::test_go_imports_leave_out_what_only_comments_and_texts_name",
    "samples of one Rust problem overwrite each other": f"{EVALUATE}/test_execute.py"
    "::test_samples_of_one_problem_keep_apart_when_they_run_at_once",
    "Rust has no limit of time": f"{EVALUATE}/test_verdicts.py"
    "::test_verdict_is_right_when_a_program_ends_in_a_known_way",
    "the limit of time holds for compiling and running together": f"{EVALUATE}/test_execute.py"
    "::test_compiling_takes_nothing_from_the_time_of_the_run",
    "children of a program outlive it": f"{EVALUATE}/test_hostile.py"
    "::test_children_end_when_their_program_has_ended_well",
    "a compiler that takes too long is called a program that did": f"{EVALUATE}/test_execute.py"
    "::test_compiler_is_ended_when_it_takes_too_long",
    "Rust and libraries are missing from the image, and count as failed": f"{EVALUATE}/"
    "test_execute.py::test_language_is_skipped_when_its_tools_are_missing",
    "js-md5 and Boost are missing, and count as failed": f"{EVALUATE}/test_execute.py"
    "::test_missing_library_skips_a_program_when_the_original_had_it",
}
"""Where each defect is looked after."""


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of the tests in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_has_its_test(defect: str) -> None:
    path, _, name = DEFECTS[defect].partition("::")
    assert name.startswith("test_") and name in functions(TESTS / path)
