"""Everything that is checked before anything is loaded, and the plan of the run."""
