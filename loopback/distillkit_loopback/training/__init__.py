"""What services that train share: a learner on a real model, and operations whose results are fetched later."""
