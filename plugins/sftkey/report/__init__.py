"""From the files of any number of runs to tables, figures and one page.

Files -> stages and evaluations (`collect`) -> runs (`runs`) -> cells with intervals and tests (`scores`) -> tables,
figures, changes -> page. Nothing here is imported by training or evaluation.
"""
