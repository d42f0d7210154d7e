"""The LLM judge: what the rules can't settle."""
