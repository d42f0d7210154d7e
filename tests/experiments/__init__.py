"""The paper's experiment on one GPU in minutes, without Axolotl: see README.md beside this file."""
