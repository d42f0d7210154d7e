"""Everything that the lm-evaluation-harness tasks need: answers, equivalence, the judge, scores."""
