"""Run with ms-swift's own Python: what its data pipeline makes of an exported data set, a JSON line for each row.

python read_ms_swift.py CONFIG.yaml MODEL OUT.jsonl, in the folder of the export.
"""

from __future__ import annotations

import json
import sys

import yaml
from swift.dataset import load_dataset
from swift.model import get_model_processor
from swift.template import get_template


def main(config: str, folder: str, out: str) -> None:
    with open(config, encoding="utf-8") as file:
        given = yaml.safe_load(file)
    _, processor = get_model_processor(folder, model_type="qwen3", load_model=False)
    keys = ("max_length", "truncation_strategy", "loss_scale", "is_binary_loss_scale")
    template = get_template(
        processor, template_type=given["template"], **{key: given[key] for key in keys if key in given}
    )
    template.set_mode("train")
    rows, _ = load_dataset(given["dataset"], split_dataset_ratio=given["split_dataset_ratio"], shuffle=False)
    with open(out, "w", encoding="utf-8") as file:
        for row in rows:
            encoded = template.encode(row)
            batch = template.data_collator([encoded])
            names = [key for key in ("input_ids", "labels", "loss_scale") if batch.get(key) is not None]
            file.write(json.dumps({key: batch[key][0].tolist() for key in names}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
