"""Chat templates built like those of the model families that users bring: prompts, ends, chains, opened or not."""

from dataclasses import dataclass

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1kit import chat, tinyworld
from r1kit.chat import check_template, end_id, opens_think, parse, prompt_ids, prompt_text, response, training_ids
from r1kit.rewards import format_reward
from r1kit.sampler import end_token_ids

LLAMA_3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] | trim %}"
    "{% set rest = messages[1:] %}"
    "{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nDay: ' + date_string + '\n\n' + told + '<|eot_id|>' }}"
    "{% for m in rest %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_3 = (  # the chain stays in the last turn alone, and is set anew; a turn without one gets an empty one
    "{% for m in messages %}{% if m['role'] != 'assistant' %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% else %}"
    "{% set said = m['content'].split('</think>')[-1].lstrip('\n') %}{% set chain = '' %}"
    "{% if '</think>' in m['content'] %}"
    "{% set chain = m['content'].split('</think>')[0].split('<think>')[-1].strip('\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\n' }}{% if loop.last %}{{ '<think>\n' + chain + '\n</think>\n\n' }}{% endif %}"
    "{{ said + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWEN_3_THINKING = QWEN_3.replace(
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking",
    "{{ '<|im_start|>assistant\n<think>\n' }}{% if enable_thinking",
)
STRIPPING = QWEN_3_THINKING.replace("{% if loop.last %}", "{% if false %}")  # as the distilled R1 models' do


@dataclass(frozen=True)
class Family:
    """A template and what is true of it."""

    template: str
    special: tuple[str, ...]
    end: str
    pad: str
    bos: str | None = None
    plain: tuple[str, ...] = ()
    opens: bool = False
    verbatim: bool = True


_IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_TAGS = ("<think>", "</think>")
FAMILIES = {
    "Llama 3": Family(
        LLAMA_3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>",
        pad="<|eot_id|>", bos="<|begin_of_text|>",
    ),
    "Qwen 2.5": Family(CHATML, _IM, "<|im_end|>", pad="<|endoftext|>"),
    "SmolLM2": Family(CHATML, _IM, "<|im_end|>", pad="<|im_end|>", bos="<|im_start|>"),
    "Qwen 3": Family(QWEN_3, _IM, "<|im_end|>", pad="<|endoftext|>", plain=_TAGS, verbatim=False),
    "Qwen 3, thinking": Family(
        QWEN_3_THINKING, _IM, "<|im_end|>", pad="<|endoftext|>", plain=_TAGS, opens=True, verbatim=False
    ),
    "our own": Family("", (), "<|end|>", pad="<|pad|>"),
}  # fmt: skip
SYSTEM = "think first"
PROMPT = "how many legs"
CHAIN = response("start cat with 4 makes 4", "4")


def tokenizer_of(family: Family, template: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and the family's own."""
    if not family.template:
        return tinyworld.tokenizer()
    letters = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE({letter: n for n, letter in enumerate(sorted(letters))}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.plain])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=family.end, pad_token=family.pad, bos_token=family.bos
    )
    made.chat_template = template or family.template
    return made


families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


@families
def test_the_template_passes_and_is_known_for_what_it_is(family: Family) -> None:
    made = tokenizer_of(family)
    check_template(made)
    assert opens_think(made) == family.opens
    assert made.convert_ids_to_tokens(end_id(made)) == family.end
    assert end_token_ids(made) == {end_id(made)}


@families
@pytest.mark.parametrize("system", [None, SYSTEM])
def test_a_chain_is_learned_whole_behind_the_very_prompt_that_is_sampled_from(
    family: Family, system: str | None
) -> None:
    made = tokenizer_of(family)
    ids, num_prompt = training_ids(made, PROMPT, CHAIN, system)
    assert ids[:num_prompt] == prompt_ids(made, PROMPT, system)
    assert ids[-1] == end_id(made) and end_id(made) not in ids[num_prompt:-1]
    text = str(made.decode(ids[num_prompt:-1]))
    assert parse(text, family.opens) == parse(CHAIN)
    assert format_reward(text, opens_think=family.opens) == 1
    assert (str(made.decode(ids)).count("<think>"), str(made.decode(ids)).count("</think>")) == (1, 1)


@families
def test_a_prompt_holds_system_and_question_once_and_the_first_token_once(family: Family) -> None:
    made = tokenizer_of(family)
    text = prompt_text(made, PROMPT, SYSTEM)
    assert text.count(SYSTEM) == text.count(PROMPT) == 1 and text.index(SYSTEM) < text.index(PROMPT)
    if family.bos == "<|begin_of_text|>":
        assert made.convert_ids_to_tokens(prompt_ids(made, PROMPT)).count(family.bos) == 1


@families
def test_a_turn_that_is_learned_is_the_turn_as_the_template_writes_it(family: Family) -> None:
    made = tokenizer_of(family)
    ids, _ = training_ids(made, PROMPT, CHAIN)
    turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": CHAIN}]
    rendered = str(made.apply_chat_template(turns, tokenize=False, date_string=chat._DATE))
    whole = list(made(rendered, add_special_tokens=False)["input_ids"])
    if family.verbatim:
        assert whole[: len(ids)] == ids
    else:  # Qwen 3 sets the chain anew: the same but for white space
        assert "".join(str(made.decode(ids)).split()) == "".join(str(made.decode(whole)).split())


def test_a_general_reply_has_no_chain_where_none_is_opened() -> None:
    made = tokenizer_of(FAMILIES["Qwen 3"])
    ids, num_prompt = training_ids(made, PROMPT, "four")
    assert made.decode(ids[num_prompt:]) == "four<|im_end|>"


def test_the_day_does_not_change_a_prompt() -> None:
    assert "Day: 26 Jul 2024" in prompt_text(tokenizer_of(FAMILIES["Llama 3"]), PROMPT)


def test_a_template_that_strips_the_chain_from_every_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="swallows <think>"):
        check_template(tokenizer_of(FAMILIES["Qwen 3, thinking"], STRIPPING))
