"""edgellm: a local language-model runtime."""

__version__ = "0.1.0"
