"""Unsupervised anomaly detection with a reconstruction network: data, model, training, reports."""
