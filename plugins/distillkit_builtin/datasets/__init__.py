"""Where rows come from: files of several formats."""
