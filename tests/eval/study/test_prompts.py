"""Lists of prompts in all their spellings, and what is reported of one."""

import json
import math

import pytest
import torch

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.records import from_row, to_row
from tidy_stlms.eval.study.prompts import Prompt, PromptResult, load_prompts, watch_prompt

FRANCE = {"sentence": "The capital of France is", "answer": "Paris"}
BARE = {"sentence": "Once upon a time", "answer": None}

YAML = """
# a heading, which YAML takes for a comment
- sentence: "The capital of France is"
  answer: " Paris"

- sentence: Once upon a time
"""
# as Tidy-STLMs writes its test cases: JSON5, by relation and type
JSON5 = """{
  capital: {
    memorization: [
      { sentence: "The capital of France is", answer: " Paris", },
    ],
    semantic: [ { sentence: "Once upon a time" } ],
  },
}"""
CONFIG = """
generator:
  input_prompts:
    - {sentence: The capital of France is, answer: Paris}
    - Once upon a time
"""
MARKDOWN = f"""# Prompts

Some prose: with a colon.

```yaml
{YAML}```

The end.
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", YAML),
        ("a.md", YAML),
        ("a.md", MARKDOWN),
        ("a.json", json.dumps([FRANCE, {"sentence": BARE["sentence"]}])),
        ("a.json", JSON5),
        ("a.yaml", CONFIG),
    ],
)
def test_all_spellings_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert load_prompts(tmp_path / name) == [Prompt(**FRANCE), Prompt(**BARE)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no prompts"),
        ("just words", None),  # a sentence, as a list of one would be
        ("name,place\nAda,Rome\n", "is no list of prompts"),
        ("<html>\n<p>Page</p>\n</html>", "is no list of prompts"),
        ("[]", "holds no prompts"),
        ("- {sentence: a, anwser: b}", "'a': anwser: no such key"),
        ("- {sentence: Turing was born in, answer: 1912}", "put it in quotes"),
        ("- {sentence: ' '}", "the sentence must be text"),
        ("- {sentence: a, answer: ' '}", "the answer is empty"),
        ("- 12", "12 is no prompt"),
        ("steps: 12", "steps: is no list of prompts"),
        ("a: [b", "neither YAML nor JSON"),
        ("7", "7 is no prompt"),
        ("- {sentence: a, sentence: b}", "neither YAML nor JSON (the key 'sentence' occurs twice)"),
        ('[{"sentence": "a", "sentence": "b"}]', "the key 'sentence' occurs twice"),
        ('["a\\ud800"]', "holds the character '\\ud800'"),
        ("[" * 3000, "nested more than 40 levels deep"),
        ("[" * 3000 + "]" * 3000, "nested more than 40 levels deep"),
        ("[" * 300 + "]" * 300, "nested more than 40 levels deep"),
        ("- ['a', {sentence: [b]}]", "the sentence must be text"),
        ("- !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path, text, expected):
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    if expected is None:
        assert load_prompts(path) == [Prompt(text)]
        return
    with pytest.raises(UserError) as caught:
        load_prompts(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_resolved_in_a_prompt(tmp_path):
    (tmp_path / "prompts.yaml").write_text("- It costs ${oc.env:HOME}\n")
    assert load_prompts(tmp_path / "prompts.yaml") == [Prompt("It costs ${oc.env:HOME}")]


@pytest.mark.parametrize(("name", "at_least"), [("capitals", 20), ("date_of_birth", 15)])
def test_the_shipped_lists(name, at_least):
    prompts = load_prompts(f"configs/prompts/{name}.yaml")
    assert len(prompts) >= at_least
    assert len({prompt.sentence for prompt in prompts}) == len(prompts)
    assert all(prompt.answer for prompt in prompts)
    if name == "date_of_birth":
        from datetime import datetime

        for prompt in prompts:
            datetime.strptime(prompt.answer, "%B %d, %Y")


def test_what_is_reported_of_a_prompt():
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.llama(len(tokenizer))
    row = watch_prompt(model, tokenizer, Prompt("Ada Lopez was born in", " Paris"), max_new_tokens=4, top_k=3)
    assert row.answer == "Paris"
    assert len(row.top_tokens) == 4
    assert row.generation == "".join(top[0][0] for top in row.top_tokens)
    assert from_row(PromptResult, json.loads(json.dumps(to_row(row))), "line") == row

    prompt, whole = tokenizer.encode("Ada Lopez was born in"), tokenizer.encode("Ada Lopez was born in Paris")
    with torch.no_grad():
        logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    answer = whole[len(prompt) :]
    own = [logprobs[len(prompt) - 1 + k, token].item() for k, token in enumerate(answer)]
    assert row.answer_logprob == pytest.approx(sum(own), abs=1e-4)
    assert row.answer_perplexity == pytest.approx(math.exp(-sum(own) / len(own)), rel=1e-4)
    ranks = [(logprobs[len(prompt) - 1 + k] >= value).sum().item() for k, value in enumerate(own)]
    assert list(row.answer_token_ranks) == ranks
    first = logprobs[len(prompt) - 1].exp().topk(3)
    assert [p for _, p in row.top_tokens[0]] == pytest.approx(first.values.tolist(), abs=1e-5)

    bare = watch_prompt(model, tokenizer, Prompt("Ada"), max_new_tokens=2, top_k=1)
    assert bare.answer is None
    assert "answer_logprob" not in to_row(bare)
