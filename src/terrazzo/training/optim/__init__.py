"""Optimizers, schedules, mixed precision and weight averages."""
