"""Prediction of images of any size, window by window, with memory that does not grow with the image."""
