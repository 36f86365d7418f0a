"""Before the road: nothing heavy, since a run that is locked out pays for it."""
