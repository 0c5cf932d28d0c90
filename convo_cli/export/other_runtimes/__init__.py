"""Formats of runtimes that read a model of their own and the tokenizer of transformers."""
