"""What every room uses: errors, files, texts, the version."""
