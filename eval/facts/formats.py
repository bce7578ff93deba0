"""The formats that `stlm facts import` reads, and what a source of each must hold.

A list apart from the importers, because the help of the command may not import them.
"""

FORMATS = {
    "tidy": "sentences a line, or inject_config.json, or test cases with `sentence` and `answer`",
    "bear": "a folder with metadata_relations.json and a P*.jsonl for each relation",
    "reversal-curse": "JSON Lines with `prompt` and `completion`, such as p2d_prompts_train.jsonl",
    "fictional-knowledge": "records with `train_context`, `mem_input`, `mem_target`, `gen_*`, `hard_gen_*`",
    "counterfact": "records with `requested_rewrite`, or with `prompt`, `subject` and `target_new`",
    "tofu": "records with `question` and `answer`",
    "csv": "columns such as `subject`, `object`, `statement`, `prompt`, `answer` (others by --column)",
    "jsonl": "fields such as `subject`, `object`, `statement`, `prompt`, `answer` (others by --column)",
}
FOLDER_FORMATS = ("tidy", "bear", "reversal-curse")  # several files that belong together
ROW_FORMATS = tuple(name for name in FORMATS if name not in FOLDER_FORMATS)
