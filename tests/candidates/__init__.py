"""Vision Transformers as other people write them: right ones, and wrong ones with known faults."""
