"""A stage's output directory and the chain of stages. Neither torch nor Axolotl is imported."""
