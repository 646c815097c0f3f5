"""Hyperparameter sweeps for LoRA fine-tuning that answer to a business goal."""
