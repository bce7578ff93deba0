"""The formats that `stlm facts import` reads, and what a source of each must hold.

This list is apart from the importers, so that the command's help need not import them.
"""

FORMATS = {
    "tidy": "one sentence a line, or inject_config.json, or test cases with `sentence` and `answer`",
    "bear": "a folder with metadata_relations.json and a P*.jsonl for each relation",
    "reversal-curse": "JSON Lines with `prompt` and `completion`, such as p2d_prompts_train.jsonl",
    "fictional-knowledge": "records with `train_context`, `mem_input`, `mem_target`, `gen_*`, `hard_gen_*`",
    "counterfact": "records with `requested_rewrite`, or with `prompt`, `subject` and `target_new`",
    "tofu": "records with `question` and `answer`",
    "csv": "columns such as `subject`, `object`, `statement`, `prompt`, `answer` (others by --column)",
    "jsonl": "fields such as `subject`, `object`, `statement`, `prompt`, `answer` (others by --column)",
}
FOLDER_FORMATS = ("tidy", "bear", "reversal-curse")  # which may be several files
ROW_FORMATS = tuple(name for name in FORMATS if name not in FOLDER_FORMATS)
