"""What is trained: one file for each objective, over one base; none of them imports torch."""
