"""From the files of any number of runs to tables, figures and one page.

Files -> stages and evaluations (`collect`) -> runs (`runs`) -> scores with intervals (`score_rows`) and paired tests
(`comparisons`) -> tables, figures, changes -> page. Nothing here is imported by training or evaluation.
"""

from sftkey.util.extras import extra

with extra("report"):
    from matplotlib import __version__ as __version__
