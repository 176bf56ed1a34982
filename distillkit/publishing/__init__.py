"""What of a run goes to the Hugging Face hub: the exported weights and a card with its figures, and nobody's paths."""
