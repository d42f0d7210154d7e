"""What a training text looks like: segments, tags, methods, chat templates. Standard library only."""
