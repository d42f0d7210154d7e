"""A recipe file: its keys, its checks, the shipped ones. Neither torch nor Axolotl is imported."""
