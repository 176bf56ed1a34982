"""One run on several devices: rank 0 directs, and every rank samples, scores and trains its share."""
