"""One module per data set. A recipe names the module: ``type: sftkey.datasets.gsm8k``."""
