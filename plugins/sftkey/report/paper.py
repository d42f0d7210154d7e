"""The paper's own figures: Score (Table 1), Acc (Table 6) and Fmt (Table 7), and where they disagree.

Table 7 has no Fmt for Qwen2.5-3B and Qwen2.5-1.5B; their scores in Table 1 are 0.7 Acc, as if Fmt were 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sftkey.datasets.registry import PAPER
from sftkey.evaluation.verdicts import composite

AVERAGE = "average"
"""The last column; the others are the data sets of `sftkey.datasets.registry.PAPER`."""

_Table = dict[str, dict[str, dict[str, float]]]


def _table(text: str) -> _Table:
    table: _Table = {}
    for line in text.strip().splitlines():
        model, strategy, *figures = line.split()
        columns = dict(zip((*PAPER, AVERAGE), map(float, figures), strict=True))
        table.setdefault(model, {})[strategy] = columns
    return table


_TABLE_1 = _table(
    """
    Qwen3-8B-Base    SFT         0.8218  0.6164  0.9020  0.7278  0.7670
    Qwen3-8B-Base    SFT-Tag     0.8805  0.6959  0.9062  0.7264  0.8022
    Qwen3-8B-Base    Key-Tag     0.7360  0.5831  0.8762  0.6921  0.7218
    Qwen3-8B-Base    SFTKey-Tag  0.8816  0.8633  0.9020  0.7298  0.8441
    Qwen2.5-7B       SFT         0.8305  0.5772  0.8922  0.7348  0.7586
    Qwen2.5-7B       SFT-Tag     0.8302  0.5604  0.8992  0.7370  0.7567
    Qwen2.5-7B       Key-Tag     0.5519  0.3822  0.6272  0.4480  0.5023
    Qwen2.5-7B       SFTKey-Tag  0.8420  0.7217  0.9214  0.7342  0.8048
    SmolLM3-3B-Base  SFT         0.7685  0.4574  0.8516  0.6678  0.6863
    SmolLM3-3B-Base  SFT-Tag     0.7775  0.5645  0.7134  0.6502  0.6764
    SmolLM3-3B-Base  Key-Tag     0.5850  0.2660  0.6192  0.3694  0.4599
    SmolLM3-3B-Base  SFTKey-Tag  0.7798  0.5225  0.8200  0.6797  0.7005
    Qwen2.5-3B       SFT         0.4749  0.3094  0.5138  0.3724  0.4176
    Qwen2.5-3B       SFT-Tag     0.3866  0.3402  0.4984  0.3752  0.4001
    Qwen2.5-3B       Key-Tag     0.5030  0.3570  0.5530  0.3430  0.4390
    Qwen2.5-3B       SFTKey-Tag  0.4739  0.3416  0.4970  0.3997  0.4280
    Qwen2.5-1.5B     SFT         0.3248  0.2842  0.4536  0.3248  0.3468
    Qwen2.5-1.5B     SFT-Tag     0.3332  0.2800  0.5754  0.3332  0.3804
    Qwen2.5-1.5B     Key-Tag     0.3430  0.2828  0.5866  0.3430  0.4517
    Qwen2.5-1.5B     SFTKey-Tag  0.3688  0.3434  0.5208  0.3192  0.3880
    """
)

_TABLE_6 = _table(
    """
    Qwen3-8B-Base    SFT         0.8378  0.5180  0.8600  0.6120  0.7069
    Qwen3-8B-Base    SFT-Tag     0.8300  0.6134  0.8660  0.6092  0.7297
    Qwen3-8B-Base    Key-Tag     0.7982  0.5789  0.8629  0.7093  0.7512
    Qwen3-8B-Base    SFTKey-Tag  0.8309  0.8116  0.8600  0.6140  0.7791
    SmolLM3-3B-Base  SFT         0.6732  0.3140  0.7880  0.5280  0.5758
    SmolLM3-3B-Base  SFT-Tag     0.6854  0.4194  0.6180  0.5030  0.5565
    SmolLM3-3B-Base  Key-Tag     0.8354  0.3761  0.7740  0.5260  0.6278
    SmolLM3-3B-Base  SFTKey-Tag  0.6884  0.4677  0.7455  0.5442  0.6115
    Qwen2.5-7B       SFT         0.7589  0.4620  0.8460  0.6220  0.6722
    Qwen2.5-7B       SFT-Tag     0.7582  0.4380  0.8560  0.6260  0.6696
    Qwen2.5-7B       Key-Tag     0.7885  0.5460  0.8960  0.6400  0.7176
    Qwen2.5-7B       SFTKey-Tag  0.7809  0.6529  0.8920  0.6220  0.7369
    Qwen2.5-3B       SFT         0.6785  0.4420  0.7340  0.5320  0.5966
    Qwen2.5-3B       SFT-Tag     0.5524  0.4860  0.7120  0.5360  0.5719
    Qwen2.5-3B       Key-Tag     0.7187  0.5100  0.7900  0.4900  0.6271
    Qwen2.5-3B       SFTKey-Tag  0.6770  0.4880  0.7100  0.5711  0.6115
    Qwen2.5-1.5B     SFT         0.4640  0.4060  0.6480  0.4640  0.4955
    Qwen2.5-1.5B     SFT-Tag     0.4760  0.4000  0.8220  0.4760  0.5435
    Qwen2.5-1.5B     Key-Tag     0.4900  0.4040  0.8380  0.4900  0.5555
    Qwen2.5-1.5B     SFTKey-Tag  0.5269  0.4906  0.7440  0.4560  0.5543
    """
)

_TABLE_7 = _table(
    """
    Qwen3-8B-Base    SFT         0.7946  0.8460  1.0000  0.9980  0.9071
    Qwen3-8B-Base    SFT-Tag     0.9984  0.8884  1.0000  1.0000  0.9717
    Qwen3-8B-Base    Key-Tag     0.5910  0.5929  0.9072  0.9138  0.7512
    Qwen3-8B-Base    SFTKey-Tag  1.0000  0.9839  1.0000  1.0000  0.9959
    SmolLM3-3B-Base  SFT         0.9909  0.7920  1.0000  0.9940  0.9442
    SmolLM3-3B-Base  SFT-Tag     0.9924  0.9032  0.9360  0.9939  0.9564
    SmolLM3-3B-Base  Key-Tag     0.0007  0.0091  0.2580  0.0040  0.0679
    SmolLM3-3B-Base  SFTKey-Tag  0.9931  0.6505  0.9939  0.9959  0.9084
    Qwen2.5-7B       SFT         0.9977  0.8460  1.0000  0.9980  0.9604
    Qwen2.5-7B       SFT-Tag     0.9984  0.8460  1.0000  0.9960  0.9601
    Qwen2.5-7B       Key-Tag     0.0000  0.0000  0.0000  0.0000  0.0000
    Qwen2.5-7B       SFTKey-Tag  0.9848  0.8823  0.9900  0.9960  0.9632
    """
)

PUBLISHED: Mapping[str, _Table] = {"score": _TABLE_1, "acc": _TABLE_6, "fmt": _TABLE_7}
"""Metric -> model -> strategy -> data set or `AVERAGE` -> the figure as printed."""

TABLE_OF = {"score": 1, "acc": 6, "fmt": 7}
"""In which table of the paper a metric is."""

LAST_DIGIT = 1e-4
"""The paper rounds some figures and truncates others, so a difference of one in the last digit says nothing."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A cell that the paper's other figures don't give.

    Attributes:
        metric: ``score``, ``acc`` or ``fmt``.
        model: The row's model.
        strategy: The row's training strategy.
        column: A data set or `AVERAGE`.
        published: The figure as printed.
        computed: For an average the mean of its row, else the composite of the cells in Tables 6 and 7.
    """

    metric: str
    model: str
    strategy: str
    column: str
    published: float
    computed: float


def disagreements() -> list[Disagreement]:
    """Every cell that differs, by more than the last digit, from what the paper's other cells give.

    The averages are computed from the printed cells of their row; a cell of Table 1 as 0.7 Acc + 0.3 Fmt (section 4),
    with Fmt 0 for the two models that Table 7 lacks.

    What the right figures may be: for Qwen3-8B-Base, SFT, GSM8K both Table 1 and Table 7's own average fit a Fmt of
    0.7844 in place of 0.7946. For its Key-Tag on CoT-Collection Table 4 has Acc 0.5972, which fits Table 1; Table 6 has
    there 0.7093, Table 4's average, and as average 0.7512, Table 7's average.
    """
    return [found for found in _checks() if abs(found.published - found.computed) > LAST_DIGIT + 1e-9]


def _checks() -> Iterator[Disagreement]:
    for metric, table in PUBLISHED.items():
        for model, strategies in table.items():
            for strategy, columns in strategies.items():
                mean = sum(columns[name] for name in PAPER) / len(PAPER)
                yield Disagreement(metric, model, strategy, AVERAGE, columns[AVERAGE], mean)
    for model, strategies in _TABLE_1.items():
        for strategy, columns in strategies.items():
            for name in PAPER:
                fmt = _TABLE_7.get(model, {}).get(strategy, {}).get(name, 0.0)
                computed = composite(_TABLE_6[model][strategy][name], fmt)
                yield Disagreement("score", model, strategy, name, columns[name], computed)
