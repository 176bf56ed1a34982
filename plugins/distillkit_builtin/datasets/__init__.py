"""Where rows come from: built-in sources."""
