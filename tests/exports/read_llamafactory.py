"""Run with LLaMA-Factory's own Python: what its data pipeline makes of an exported data set, a JSON line for each row.

python read_llamafactory.py CONFIG.yaml MODEL OUT.jsonl, in the folder of the export.
"""

from __future__ import annotations

import json
import sys

import yaml
from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import AutoTokenizer, Seq2SeqTrainingArguments


def main(config: str, folder: str, out: str) -> None:
    with open(config, encoding="utf-8") as file:
        given = yaml.safe_load(file)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    data = DataArguments(
        **{key: given[key] for key in ("dataset_dir", "dataset", "template", "cutoff_len")}, overwrite_cache=True
    )
    model = ModelArguments(model_name_or_path=folder)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    training = Seq2SeqTrainingArguments(
        given["output_dir"], use_cpu=True, report_to="none", remove_unused_columns=False
    )
    rows = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)["train_dataset"]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = "<|endoftext|>"
    collator = SFTDataCollatorWith4DAttentionMask(
        tokenizer=tokenizer, template=template, label_pad_token_id=-100, compute_dtype=None
    )
    with open(out, "w", encoding="utf-8") as file:
        for row in rows:
            batch = collator([{key: row[key] for key in row}])
            file.write(json.dumps({key: batch[key][0].tolist() for key in ("input_ids", "labels")}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
