"""What each evaluation's judge decided, how well it knew known answers, and Acc corrected for its errors."""

from __future__ import annotations

from sftkey.evaluation.statistics import Interval
from sftkey.report.runs import data_set_title
from sftkey.report.scores import Scores
from sftkey.report.tables import Table, ends, figure, interval_line, number, texts


def judge_tables(scores: Scores) -> list[Table]:
    """The table of the evaluations whose judge was measured; none where there is no such evaluation."""
    table = Table(
        name="judge",
        title="Judge",
        caption=(
            "Judged: the share of items that the judge decided. Kappa, sensitivity (of the same answers, the share that it "
            "calls the same) and specificity (of different ones, different): on known answers, before it was asked. "
            "Corrected Acc: what Acc would be, were its errors those on the known answers (Rogan-Gladen), with the 95% "
            "interval; none for a judge no better than chance."
        ),
        columns=(
            "Model",
            "Strategy",
            "Data set",
            "Judged",
            "Kappa",
            "Sensitivity",
            "Specificity",
            "Acc",
            "Corrected Acc",
        ),
    )
    for row in scores.rows:
        for name in scores.data_sets:
            one = row.evaluations.get(name)
            if one is None or "judge_fitness_kappa" not in one.judge:
                continue
            judge = one.judge
            low, high = judge.get("acc_corrected_low"), judge.get("acc_corrected_high")
            interval = None if low is None or high is None else Interval(low, high)
            table.add(
                [
                    *texts({"model": row.model, "method": row.label, "data set": data_set_title(name)}),
                    number({"judged": judge.get("judged")}, figure),
                    number({"kappa": judge["judge_fitness_kappa"]}, figure),
                    number({"sensitivity": judge.get("judge_sensitivity")}, figure),
                    number({"specificity": judge.get("judge_specificity")}, figure),
                    number({"acc": one.reported.get("acc")}, figure),
                    number(
                        {"corrected acc": judge.get("acc_corrected"), **ends(interval)},
                        figure,
                        details=() if interval is None else (interval_line(interval),),
                    ),
                ],
                grouped=True,
            )
    return [table] if table.rows else []
