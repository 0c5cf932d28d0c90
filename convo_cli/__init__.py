"""convo: train multi-turn conversation models from JSONL files of dialogues, and talk to the
result.
"""

__version__ = "0.1.0"
