"""What a machine can train, tried in a few minutes: each check in a process of its own, with a limit.

Needs torch, transformers and accelerate; a check that needs another package is skipped where it isn't installed. Front
ends are ``sftkey doctor`` and ``tests/gpu/run.py``.
"""
