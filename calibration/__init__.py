"""Representative data, quantisation, thresholds and evaluations: what is measured before a model may ship."""
