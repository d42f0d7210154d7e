"""Masks: exact on all real rows and on hostile text, against an independent computation."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sftkey.datasets.gsm8k import GSM8K
from sftkey.format import templates
from sftkey.format.example import Example
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.methods import METHODS
from sftkey.format.segments import SEGMENT_GROUPS, Segment
from sftkey.format.untagged import UntaggedForm
from sftkey.training.tokenization import IGNORE_INDEX, ExampleTokenizer
from sftkey.training.tokenizers import TokenizerError, encode
from support.brute_force_mask import brute_force, stretches
from tokenizers import AddedToken

TAGGED = ("sft-tag", "key-tag")


def tokenize_all(tokenizer: Any, method: str, examples: list[Example]) -> list[Any]:
    tokenize = ExampleTokenizer(tokenizer, METHODS[method], GSM8K.untagged)
    return [row for start in range(0, len(examples), 500) for row in tokenize(examples[start : start + 500])]


def test_every_real_row(gsm8k_rows: dict[str, list[dict[str, Any]]], qwen3_tokenizer: Any) -> None:
    examples = [GSM8K.to_example(row) for split in gsm8k_rows.values() for row in split]
    assert len(examples) == 8_792
    prompts = [
        qwen3_tokenizer.apply_chat_template(
            [{"role": "user", "content": example.question}], tokenize=False, add_generation_prompt=True
        )
        for example in examples
    ]
    rows = {method: tokenize_all(qwen3_tokenizer, method, examples) for method in TAGGED}
    for method in TAGGED:
        for example, prompt, row in zip(examples, prompts, rows[method], strict=True):
            ids, labels = brute_force(qwen3_tokenizer, prompt, example.thinking, example.answer, method)
            assert row.input_ids == ids
            assert row.labels == labels
    for example, prompt, sft_tag, key_tag in zip(examples, prompts, rows["sft-tag"], rows["key-tag"], strict=True):
        text = qwen3_tokenizer.decode(sft_tag.input_ids, clean_up_tokenization_spaces=False)
        assert text == prompt + "".join(stretches(example.thinking, example.answer))
        only_stage1 = [
            token
            for token, label, other in zip(sft_tag.input_ids, sft_tag.labels, key_tag.labels, strict=True)
            if label != IGNORE_INDEX and other == IGNORE_INDEX
        ]
        assert qwen3_tokenizer.decode(only_stage1) == f"<Thinking>{example.thinking}</Thinking>"
        assert not any(
            segment == Segment.PROMPT and label != IGNORE_INDEX
            for segment, label in zip(sft_tag.segments, sft_tag.labels, strict=True)
        )


def test_untagged_rows(gsm8k_rows: dict[str, list[dict[str, Any]]], qwen3_tokenizer: Any) -> None:
    qwen3_tokenizer.chat_template = templates.chat_template(templates.PLAIN)
    examples = [GSM8K.to_example(row) for row in gsm8k_rows["test"]]
    sft = tokenize_all(qwen3_tokenizer, "sft", examples)
    key = tokenize_all(qwen3_tokenizer, "key", examples)
    for example, whole, answer_only in zip(examples, sft, key, strict=True):
        prompt = f"<|im_start|>user\n{example.question}<|im_end|>\n<|im_start|>assistant\n"
        response = f"{example.thinking}\n#### {example.answer}<|im_end|>"
        assert qwen3_tokenizer.decode(whole.input_ids) == prompt + response
        assert qwen3_tokenizer.decode([label for label in whole.labels if label != IGNORE_INDEX]) == response
        trained = qwen3_tokenizer.decode([label for label in answer_only.labels if label != IGNORE_INDEX])
        assert trained == f"\n#### {example.answer}<|im_end|>"


hostile_text = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [
                *THINKING_ANSWER.tags,
                "<",
                ">",
                "</",
                "Answer",
                "Thinking>",
                " ",
                "\n",
                "\t",
                "\r\n",
                "é",
                "e\u0301",
                "\u0338",
                "\u200b",
                "𝟙",
                *("答え", "18.", "#### ", "{{ x }}", "{% raw %}", "\\boxed{", "\x00", "\ufeff", "a", " a", "1"),
            ]
        ),
        max_size=12,
    ).map("".join),
).filter(lambda text: not any(token in text for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=hostile_text, thinking=hostile_text, answer=hostile_text)
def test_hostile_text(qwen3_tokenizer: Any, question: str, thinking: str, answer: str) -> None:
    example = Example(question, thinking, answer)
    prompt = qwen3_tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    for method in TAGGED:
        tokenize = ExampleTokenizer(qwen3_tokenizer, METHODS[method], GSM8K.untagged)
        (row,) = tokenize([example])
        assert (row.input_ids, row.labels) == brute_force(qwen3_tokenizer, prompt, thinking, answer, method)
        for segment, text in ((Segment.THINKING, thinking), (Segment.ANSWER, answer)):
            tokens = [token for token, its in zip(row.input_ids, row.segments, strict=True) if its == segment]
            # Qwen's tokenizer normalises to NFC, segment by segment; nothing else may change.
            assert qwen3_tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == unicodedata.normalize(
                "NFC", text
            )
        assert sorted({*row.segments}) == sorted(
            {Segment.PROMPT, *(piece.segment for piece in tokenize.pieces(example) if piece.text)}
        )


def test_segment_groups_are_the_response() -> None:
    groups = [set(group) for group in SEGMENT_GROUPS.values()]
    assert set().union(*groups) == set(Segment) - {Segment.PROMPT}
    assert sum(map(len, groups)) == len(Segment) - 1


@pytest.mark.parametrize("markers", ["as published", "taking whitespace"])
def test_prompt_is_what_lm_eval_tokenizes(qwen3_tokenizer: Any, markers: str) -> None:
    if markers == "taking whitespace":
        # As phi-4 has its turn markers.
        stripping = [
            AddedToken(text, lstrip=True, rstrip=True, special=True) for text in ("<|im_start|>", "<|im_end|>")
        ]
        qwen3_tokenizer.add_special_tokens({"additional_special_tokens": stripping})
        assert qwen3_tokenizer.encode(" a <|im_end|>") == qwen3_tokenizer.encode(" a<|im_end|>")
    tokenize = ExampleTokenizer(qwen3_tokenizer, METHODS["key-tag"], GSM8K.untagged)
    for question in ("How many?", "\n\nA\n", " B ", "C <Answer>3</Answer>", "é\u0301", ""):
        (row,) = tokenize([Example(question, "t", "a")])
        prompt = [token for token, its in zip(row.input_ids, row.segments, strict=True) if its == Segment.PROMPT]
        rendered = qwen3_tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        assert prompt == qwen3_tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_generation_mask_of_the_template_is_that_of_sft_tag(
    gsm8k_rows: dict[str, list[dict[str, Any]]], qwen3_tokenizer: Any, tag_mode: str
) -> None:
    for row in gsm8k_rows["test"][:200]:
        example = GSM8K.to_example(row)
        messages = [
            {"role": "user", "content": example.question},
            {"role": "assistant", "reasoning_content": example.thinking, "content": example.answer},
        ]
        rendered = qwen3_tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        (ours,) = tokenize_all(qwen3_tokenizer, "sft-tag", [example])
        masked = [i for i, m in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if m]
        trained = [label for label in ours.labels if label != IGNORE_INDEX]
        assert qwen3_tokenizer.decode(masked) == qwen3_tokenizer.decode(trained)
        if tag_mode == "tokens":
            assert masked == trained
            # The template closes the turn with a newline that no one trains or generates.
            assert rendered["input_ids"][: len(ours.input_ids)] == ours.input_ids


class TestTokenizerIsRefused:
    """Tokenizers with which segments could not be exact, or outputs could not match."""

    def test_special_tags(self, qwen3_tokenizer: Any) -> None:
        qwen3_tokenizer.add_special_tokens({"additional_special_tokens": list(THINKING_ANSWER.tags)})
        with pytest.raises(TokenizerError, match="special tokens"):
            ExampleTokenizer(qwen3_tokenizer, METHODS["sft-tag"], GSM8K.untagged)

    @pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
    def test_only_some_tags(self, qwen3_tokenizer: Any) -> None:
        qwen3_tokenizer.add_tokens(["<Answer>"])
        with pytest.raises(TokenizerError, match="but not <Thinking>, </Thinking>, </Answer>"):
            ExampleTokenizer(qwen3_tokenizer, METHODS["sft-tag"], GSM8K.untagged)

    @pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
    @pytest.mark.parametrize("normalizer", ["Lowercase", "NFKC"])
    def test_text_is_changed(self, qwen3_tokenizer: Any, normalizer: str) -> None:
        from tokenizers import normalizers

        qwen3_tokenizer.backend_tokenizer.normalizer = getattr(normalizers, normalizer)()
        with pytest.raises(TokenizerError, match="segments would not join to the exact text"):
            ExampleTokenizer(qwen3_tokenizer, METHODS["sft-tag"], GSM8K.untagged)

    def test_prefix_space(self) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        alphabet = [chr(code) for code in range(32, 127)] + ["▁", "\n"]
        backend = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        backend.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, name_or_path="metaspace")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = templates.chat_template(templates.TAGGED)
        with pytest.raises(TokenizerError, match="at the start of a segment"):
            ExampleTokenizer(tokenizer, METHODS["sft-tag"], GSM8K.untagged)


def test_nothing_is_merged_across_segments(qwen3_tokenizer: Any, tag_mode: str) -> None:
    # The case that character offsets get wrong: with plain-text tags the tokenizer would make one token of "/></".
    (row,) = tokenize_all(qwen3_tokenizer, "key-tag", [Example("q", "so 18.", "18")])
    whole = encode(qwen3_tokenizer, ["<Thinking>so 18.</Thinking><Answer>18</Answer>"])[0]
    response = row.input_ids[row.segments.index(Segment.THINKING_OPEN) : -1]
    assert (response == whole) == (tag_mode == "tokens")


def test_untagged_form_may_have_no_ending() -> None:
    form = UntaggedForm(between="\n#### ")
    assert [piece.text for piece in form.render("t", "")] == ["t", "\n#### ", ""]


def test_encode_is_a_plain_call(gsm8k_rows: dict[str, list[dict[str, Any]]], qwen3_tokenizer: Any) -> None:
    texts = [text for row in gsm8k_rows["test"][:300] for text in row.values()] + [
        "",
        " ",
        "é\u0301<|im_end|>\n",
        "<Answer>",
    ]
    # What an earlier call asked for must not be kept.
    qwen3_tokenizer(texts[:2], truncation=True, max_length=2, padding="max_length")
    assert encode(qwen3_tokenizer, texts) == qwen3_tokenizer(texts, add_special_tokens=False)["input_ids"]
