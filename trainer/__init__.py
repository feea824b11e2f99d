"""DreamBooth fine-tuning; it meets the compiler in a checkpoint folder, not in code."""
