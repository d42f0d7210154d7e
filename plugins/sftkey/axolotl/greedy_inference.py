"""``axolotl inference`` answers greedily, as evaluations do: its own settings sample, and no recipe key changes them."""

from __future__ import annotations

from typing import Any

_KEPT = ("max_new_tokens", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "return_dict_in_generate")


def make_inference_greedy() -> None:
    """Let Axolotl's inference, which has just read a recipe of this package, generate greedily."""
    from axolotl.cli import inference

    given = inference.GenerationConfig
    if getattr(given, "_sftkey", False):
        return

    def greedy(**settings: Any) -> Any:
        kept = {name: settings[name] for name in _KEPT if name in settings}
        return given(do_sample=False, num_beams=1, repetition_penalty=1.0, **kept)

    greedy._sftkey = True  # type: ignore[attr-defined]
    inference.GenerationConfig = greedy
