"""lm-eval on a model with a short context: examples that do not fit are left out and counted.

    harness = FittingLM(pretrained=model, tokenizer=tokenizer, bar=bar)
    simple_evaluate(model=harness, task_manager=FittingTasks(manager, harness), tasks=["blimp"])
    harness.too_long  # {"blimp_adjunct_island": {17, 204}}: numbers of examples

lm-eval itself cuts the beginning of a text that is too long, and fails if the part that it scores is too
long. A question without its beginning is another question, and a mean over such examples measures something
else. So an example counts only if the model reads all of it: the prompt with its few-shot examples, and the
answer or the room to generate one. All candidates of an example must fit: with fewer it would be easier.
Scores are then means over the examples that fit. These are the shorter ones, so scores of models with
different contexts cannot be compared. If everything fits, scores equal lm-eval's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import UserError

NEW_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # in lm-eval's order


class FittingLM(HFLM):
    """A model for one evaluation. It answers only requests that fit, and records the examples of the others.
    All progress is in `bar`.

    `prefix` are the ids of the special tokens before each text. None leaves them to lm-eval, which takes
    those that the tokenizer adds by itself. Where a whole text is scored, lm-eval puts one token before it
    whatever the tokenizer adds; that token is then the prefix, which is not scored.
    """

    def __init__(self, *, bar: tqdm, prefix: Sequence[int] | None = None, **options: Any):
        super().__init__(**options, prefix_token_id=prefix[0] if prefix else None)
        self.bar, self.prefix, self._is_rolling = bar, prefix, False
        self.too_long: dict[str, set[int]] = {}
        """The examples that are left out, by task."""
        self.examples: dict[str, set[int]] = {}
        """All examples, by task."""
        self._requests: Sequence[Any] = ()

    def counts(self) -> dict[str, tuple[int, int]]:
        """For each task, the numbers of examples that fit, and of those that do not."""
        left_out = {task: len(self.too_long[task]) for task in self.examples}
        return {task: (len(each) - left_out[task], left_out[task]) for task, each in self.examples.items()}

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        if self.prefix is None or add_special_tokens is False:
            return super().tok_encode(string, add_special_tokens, left_truncate_len, **options)
        ids = super().tok_encode(string, add_special_tokens=False)
        if not self._is_rolling:
            ids = [*self.prefix, *ids]
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", left_truncate_len: int | None = None, **options
    ) -> tuple[Any, Any]:
        """Token ids and mask of the texts to continue, each (texts, longest text)."""
        if self.prefix is None:
            return super().tok_batch_encode(strings, padding_side, left_truncate_len, **options)
        rows = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
        padded = self.tokenizer.pad({"input_ids": rows}, padding_side=padding_side, return_tensors="pt")
        return padded["input_ids"], padded["attention_mask"]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self._requests = requests
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if not self._requests:  # windows of `loglikelihood_rolling`, which fit
            return self._counted(requests, super()._loglikelihood_tokens, override_bs=override_bs)
        # the last token of an answer is not read
        sizes = [len(context) + len(answer) - 1 for _, context, answer in requests]
        fits = self._fitting(self._requests, sizes)
        self._requests = ()
        kept = [request for request, fit in zip(requests, fits, strict=True) if fit]
        scored = iter(self._counted(kept, super()._loglikelihood_tokens, override_bs=override_bs))
        return [next(scored) if fit else (0.0, False) for fit in fits]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        self._fitting(requests, [0] * len(requests))
        self._is_rolling = True
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)
        finally:
            self._is_rolling = False

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        fits = self._fitting(requests, [self._size_of_generation(*request.args) for request in requests])
        kept = [request for request, fit in zip(requests, fits, strict=True) if fit]
        generated = iter(self._counted(kept, super().generate_until))
        return [next(generated) if fit else "" for fit in fits]

    def _model_call(self, inps: Any, *args: Any, **options: Any) -> Any:
        logits = super()._model_call(inps, *args, **options)
        self.bar.update(len(inps))
        return logits

    def _model_generate(self, context: Any, *args: Any, **options: Any) -> Any:
        tokens = super()._model_generate(context, *args, **options)
        self.bar.update(len(context))
        return tokens

    def _size_of_generation(self, context: str, options: dict[str, Any]) -> int:
        room = next((options[name] for name in NEW_TOKENS if options.get(name)), self.max_gen_toks)
        return len(self.tok_encode(context)) + int(room)

    def _counted(self, requests: list[Any], answer: Any, **options: Any) -> list[Any]:
        """The answers, counted in the bar. Requests with the same input share a call of the model."""
        goal = self.bar.n + len(requests)
        self.bar.total = max(self.bar.total or 0, goal)
        answers = answer(requests, disable_tqdm=True, **options) if requests else []
        self.bar.update(goal - self.bar.n)
        return answers

    def _fitting(self, requests: Sequence[Any], sizes: Sequence[int]) -> list[bool]:
        """For each request, whether all requests of its example fit. `sizes` are in tokens.

        Raises UserError for a task of which no example fits.
        """
        needs: dict[str, dict[int, int]] = {}  # tokens of the longest request of each example
        for request, size in zip(requests, sizes, strict=True):
            of_task = needs.setdefault(request.task_name, {})
            of_task[request.doc_id] = max(size, of_task.get(request.doc_id, 0))
        for task, of_task in needs.items():
            long = {example for example, size in of_task.items() if size > self.max_length}
            if len(long) == len(of_task):
                raise UserError(
                    f"none of the {len(long):,} examples of {task} fits: the shortest needs "
                    f"{min(of_task.values()):,} tokens, and the model reads {self.max_length:,}"
                )
            self.examples.setdefault(task, set()).update(of_task)
            self.too_long.setdefault(task, set()).update(long)
        return [request.doc_id not in self.too_long[request.task_name] for request in requests]


class FittingTasks:
    """lm-eval's TaskManager. The tasks that it loads evaluate only examples that fit."""

    def __init__(self, manager: Any, harness: FittingLM):
        self._manager, self._harness = manager, harness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def load(self, names: Any) -> Any:
        """Called by lm-eval from 0.4.12 on. Returns `{"tasks": {name: task}, ...}`."""
        loaded = self._manager.load(names)
        self._filter(loaded["tasks"])
        return loaded

    def load_task_or_group(self, names: Any) -> Any:
        """Called by lm-eval before 0.4.12. Returns `{group: {name: task}, name: task}`."""
        loaded = self._manager.load_task_or_group(names)
        self._filter(loaded)
        return loaded

    def _filter(self, tasks: dict[Any, Any]) -> None:
        for task in tasks.values():
            if isinstance(task, dict):
                self._filter(task)
            else:
                _leave_out(task, self._harness)


def _leave_out(task: Any, harness: FittingLM) -> None:
    """Make a task iterate over the examples that fit, once these are known.

    lm-eval iterates twice: to make requests, when nothing is known yet, and to collect the answers. So the
    draw of few-shot examples does not depend on what is left out.
    """
    iterate, name = task.doc_iterator, task.config.task

    def fitting(**options: Any) -> Iterator[tuple[int, Any]]:
        for number, document in iterate(**options):
            if number not in harness.too_long.get(name, ()):
                yield number, document

    task.doc_iterator = fitting
