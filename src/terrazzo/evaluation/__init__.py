"""Scores of models on data sets, and the files and pages made from them."""
