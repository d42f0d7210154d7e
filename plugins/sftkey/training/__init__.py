"""From examples to tokens, labels and segments, and from those to the loss."""
