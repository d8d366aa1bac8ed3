"""Completions are taken apart the same way everywhere, templates that cannot teach the format are refused."""

import time

import pytest

from r1kit import chat, tinyworld
from r1kit.chat import check_template, final_answer, last_boxed, parse, response, training_ids

PLAIN = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|> ' + m['content'] + ' <|end|> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)
OPENING = PLAIN.replace("'<|assistant|> '", "'<|assistant|> <think>'")
SWALLOWING = PLAIN.replace("m['content']", "m['content'].split('</think>')[-1]")
DEAF = PLAIN.replace("m['content']", "(m['content'] if m['role'] == 'assistant' else '')")


def tokenizer(template: str | None = PLAIN, eos: str | None = "<|end|>"):
    made = tinyworld.tokenizer()
    made.chat_template = template  # pyright: ignore[reportAttributeAccessIssue]  (None is allowed)
    made.eos_token = eos
    return made


@pytest.mark.parametrize("chain", ["3 plus 4 makes 7", "a\nb", "7"])
@pytest.mark.parametrize("answer", ["7", "-1", "two words"])
def test_a_response_is_taken_apart_into_what_it_was_built_from(chain: str, answer: str) -> None:
    parsed = parse(response(chain, answer))
    assert parsed.think and parsed.think.strip() == chain
    assert (parsed.answer, parsed.summary, parsed.well_formed) == (answer, answer, True)
    opened = parse(response(chain, answer).removeprefix("<think>"), opens_think=True)
    assert opened == parsed


@pytest.mark.parametrize(
    ("text", "think", "answer", "summary"),
    [
        ("a reply", None, None, "a reply"),
        ("", None, None, ""),
        ("<think> on and on", " on and on", None, ""),
        ("<think> a </think> a reply", " a ", None, "a reply"),
        ("<think> a </think> <answer> 1 </answer> <answer> 2 </answer>", " a ", None, "1   2"),
        ("<think> <answer> 1 </answer> </think> <answer> 2 </answer>", " <answer> 1 </answer> ", "2", "2"),
        ("a </think> b", None, None, "b"),
        ("</answer> 1 <answer>", None, None, "1"),
    ],
)
def test_odd_completions_are_taken_apart(text: str, think: str | None, answer: str | None, summary: str) -> None:
    parsed = parse(text)
    assert (parsed.think, parsed.answer, parsed.summary) == (think, answer, summary)
    assert not parsed.well_formed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think> a </think> <answer> 7 </answer>", "7"),
        ("<answer>7</answer>", "7"),
        ("<think> 8 </think> so \\boxed{7}", "7"),
        ("\\boxed{6} no, \\boxed{7}", "7"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("<think> a </think> 7", "7"),
        ("7", "7"),
        ("<think> \\boxed{7}", None),
        ("<think> <answer> 7 </answer>", None),
        ("<answer> 7 </answer> <answer> 8 </answer>", None),
        ("<answer> 7", None),
        ("<answer> </answer>", None),
        ("\\boxed{7", "\\boxed{7"),
        ("words " * 100, None),
        ("", None),
    ],
)
def test_the_final_answer_is_the_one_committed_to(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_a_final_answer_where_the_template_opened_the_chain() -> None:
    assert final_answer("a </think> <answer> 7 </answer>", opens_think=True) == "7"
    assert final_answer("7", opens_think=True) is None  # it never left the chain


@pytest.mark.parametrize(
    "text",
    ["[" * 10**6, "(" * 10**6, "{" * 10**6, "\\boxed{" * 140_000, "<think>" * 140_000, "</think>" * 120_000,
     "<answer>" * 120_000, "<answer></answer>" * 60_000, "<" * 10**6, "\\" * 10**6, "<think>" + "</answer>" * 110_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_time_is_linear(text: str) -> None:
    started = time.monotonic()
    parse(text)
    parse(text, opens_think=True)
    final_answer(text)
    last_boxed(text)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("template", [PLAIN, OPENING])
def test_a_template_that_keeps_the_chain_passes(template: str) -> None:
    made = tokenizer(template)
    check_template(made)
    assert chat.opens_think(made) == (template is OPENING)


@pytest.mark.parametrize(
    ("template", "eos", "complaint"),
    [
        (None, "<|end|>", "has no chat template"),
        (SWALLOWING, "<|end|>", "swallows <think>"),
        (DEAF, "<|end|>", "drops the user's prompt"),
        (PLAIN.replace("' <|end|> '", "' '"), None, "no end-of-turn token"),
    ],
)
def test_a_template_that_cannot_teach_the_format_is_refused(template: str, eos: str | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_template(tokenizer(template, eos))


def test_a_tokenizer_that_does_not_know_the_tags_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {
        word: n for n, word in enumerate(["<u>", "<|end|>", "<|user|>", "<|assistant|>", "question", *chat._PROBE])
    }
    backend = Tokenizer(models.WordLevel(words, unk_token="<u>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<u>", eos_token="<|end|>")
    made.chat_template = PLAIN
    with pytest.raises(ValueError, match="does not know <think> or <answer>"):
        check_template(made)


@pytest.mark.parametrize("template", [PLAIN, OPENING])
def test_training_ids_are_the_prompt_as_sampled_then_the_response_and_its_end(template: str) -> None:
    made = tokenizer(template)
    text = response("start 3 plus 4 makes 7", "7")
    ids, prompt_length = training_ids(made, "tell me", text, system="go away")
    assert ids[:prompt_length] == chat.prompt_ids(made, "tell me", system="go away")
    assert ids[-1] == chat.end_id(made) == made.convert_tokens_to_ids("<|end|>")
    assert ids.count(made.get_vocab()["<think>"]) == 1
    assert parse(str(made.decode(ids[prompt_length:-1])), opens_think=template is OPENING).answer == "7"


def test_the_end_of_turn_is_learned_even_where_padding_is_the_same_token() -> None:
    made = tokenizer()
    made.pad_token = made.eos_token
    ids, prompt_length = training_ids(made, "tell me", "go away")
    assert ids[-1] == made.pad_token_id == made.eos_token_id and ids[-1] not in ids[prompt_length:-1]


def test_the_template_decides_how_a_turn_ends() -> None:
    made = tokenizer(PLAIN.replace("' <|end|> '", "' <|user|> '"))
    assert chat.end_id(made) == made.convert_tokens_to_ids("<|user|>")
